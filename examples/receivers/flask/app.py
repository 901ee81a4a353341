"""A receiver with Flask. Start it in this folder; STORE is the events' folder:

    python3 -m venv venv && venv/bin/pip install Flask==3.1.3 gunicorn==27.0.1
    PYTHONPATH=.. STORE=/folder venv/bin/gunicorn --threads 4 --bind 0.0.0.0:9528 app:app
"""
from flask import Flask, request

from store import LIMIT, is_signed, keep

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = LIMIT
app.config["MAX_FORM_MEMORY_SIZE"] = LIMIT  # the default is 500 kB: a form with larger pictures gets 413


@app.post("/RealTimeEvent")
def real_time_event():
    if not is_signed(request.headers.get("X-Signature"), request.get_data()):
        return {"error": "the signature is missing, wrong or old"}, 401
    try:
        event = request.get_json() if request.is_json else request.form.to_dict()
        return keep(request.headers.get("X-Event-Id"), event)
    except (KeyError, TypeError, ValueError) as fault:
        return {"error": f"not an event: {fault!r}"}, 400
