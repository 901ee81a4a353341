"""A receiver of realtime and history events in Flask, which writes down whatever it gets: members with their text, pictures with their hash.

Run by `dialects.py`. It knows no dialect: what looks like a JPEG in base64 is a picture, wherever it stands.
"""

import base64
import hashlib
import json
import os

from flask import Flask, request

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = 64 * 1024 * 1024


def noted(value):
    if isinstance(value, str) and value.startswith("/9j/"):
        content = base64.b64decode(value, validate=True)
        return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return value


def keep_text(number):
    """A number as it was written."""
    return {"number": number}


def parsed(text):
    return json.loads(text, parse_float=keep_text, parse_int=keep_text)


@app.post("/<report>")
def event(report):
    if request.is_json:
        fields = parsed(request.get_data(as_text=True))
    else:
        fields = dict(request.form)
        for key, text in fields.items():
            if text.startswith("{"):
                fields[key] = parsed(text)
    ext_data = {key: noted(value) for key, value in fields.pop("ext_data").items()}
    line = {
        "report": report,
        "id": request.headers["X-Event-Id"],
        "top": {key: noted(value) for key, value in fields.items()},
        "ext_data": ext_data,
    }
    with open(os.environ["SOPHON_EVENTS"], "ab", buffering=0) as events:
        events.write((json.dumps(line) + "\n").encode())
    return {"status": "ok"}
