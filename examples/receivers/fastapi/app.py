"""A receiver with FastAPI. Start it in this folder; STORE is the events' folder:

    python3 -m venv venv && venv/bin/pip install fastapi==0.165.0 uvicorn==0.54.0 python-multipart
    PYTHONPATH=.. STORE=/folder venv/bin/uvicorn --host 0.0.0.0 --port 9528 app:app
"""
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from store import LIMIT, is_signed, keep

app = FastAPI()


@app.post("/RealTimeEvent")
async def real_time_event(request: Request):
    if not is_signed(request.headers.get("x-signature"), await request.body()):
        return JSONResponse({"error": "the signature is missing, wrong or old"}, 401)
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            event = await request.json()
        else:
            event = dict(await request.form(max_part_size=LIMIT))  # the default is 1 MiB: larger parts get 400
        return await run_in_threadpool(keep, request.headers.get("x-event-id"), event)
    except (KeyError, TypeError, ValueError) as fault:
        return JSONResponse({"error": f"not an event: {fault!r}"}, 400)
