"""A receiver of events as an integrator would write it with Flask, and a strict judge of what reaches it.

Run by `run`, under Flask's own server and under gunicorn. Every event becomes a line in the file that the environment
variable SOPHON_EVENTS names, in the shape of event-receive-server's events.jsonl; `faults` lists what is not as the
contract says, and such an event is answered with 400.
"""

import base64
import binascii
import hashlib
import json
import os
import re

from flask import Flask, request

app = Flask(__name__)

# What an integrator needs. Since Werkzeug 3.1 a form field may have 500 kB, above which Flask answers 413: with
# form-data the registered picture is one field, and the picture from the spot is inside another. Two pictures of
# 4 MiB are 11.2 MB of base64. (JSON bodies are bounded by MAX_CONTENT_LENGTH alone.)
LIMIT = 32 * 1024 * 1024
app.config["MAX_CONTENT_LENGTH"] = LIMIT
app.config["MAX_FORM_MEMORY_SIZE"] = int(os.environ.get("SOPHON_FORM_LIMIT", LIMIT))

EVENT_ID = re.compile(r"[0-9a-f]{32}-[0-9]+")
TOP = {"identity_id": str, "identity_name": str, "group_name": str, "reg_pic": str, "timestamp": int, "score": float}
EXT = {"device_ip": str, "person_type": int, "device_type": str}


class Faults(list):
    def check(self, holds, fault):
        if not holds:
            self.append(fault)


def framing(faults):
    """The headers that decide whether a server sees the body at all, and those that name the event."""
    faults.check(request.headers.get("Content-Length", "").isdigit(), "no Content-Length")
    faults.check("Transfer-Encoding" not in request.headers, "has a Transfer-Encoding")
    faults.check("Expect" not in request.headers, "has an Expect")
    event_id = request.headers.get("X-Event-Id", "")
    faults.check(EVENT_ID.fullmatch(event_id), f"X-Event-Id is {event_id!r}")
    faults.check(request.headers.get("Idempotency-Key") == event_id, "Idempotency-Key is not X-Event-Id")
    return event_id


def fields_of_form(faults):
    """A form's texts as the types they stand for."""
    faults.check(not request.files, f"parts came as files: {sorted(request.files)}")
    fields = dict(request.form)
    for name, convert in {"timestamp": int, "score": float, "ext_data": json.loads}.items():
        try:
            fields[name] = convert(fields[name])
        except (KeyError, ValueError) as error:
            faults.append(f"{name}: {error!r}")
    return fields


def types(fields, wanted, required, faults):
    for name, kind in wanted.items():
        if name not in fields:
            faults.check(not required, f"{name} is missing")
            continue
        # A score of exactly 1 may be written without a point; bool is an int to Python, and to nobody else.
        kinds = (int, float) if kind is float else (kind,)
        value = fields[name]
        faults.check(isinstance(value, kinds) and not isinstance(value, bool), f"{name} is {value!r:.80}")


def picture(fields, name, faults):
    """The picture as its hash and length; None where the field is empty or absent."""
    text = fields.get(name) or ""
    try:
        # validate: no line breaks, no other alphabet, the padding complete.
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        faults.append(f"{name} is not base64: {error}")
        return None
    if not content:
        return None
    faults.check(content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9"), f"{name} is not a whole JPEG")
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


@app.post("/RealTimeEvent")
def real_time_event():
    faults = Faults()
    event_id = framing(faults)
    fields = request.get_json() if request.is_json else fields_of_form(faults)
    ext_data = fields.get("ext_data")
    if not isinstance(ext_data, dict):
        faults.append("ext_data is not an object")
        ext_data = {}
    types(fields, TOP, True, faults)
    types(ext_data, EXT, False, faults)
    faults.check(set(fields) == {*TOP, "ext_data"}, f"the keys are {sorted(fields)}")
    faults.check(0 < fields.get("timestamp", 0) < 2**31, "timestamp is not an int32 above 0")

    event = {**fields, "id": event_id, "content_length": request.content_length}
    event["reg_pic"] = picture(fields, "reg_pic", faults)
    event["ext_data"] = {**ext_data, "spot_pic": picture(ext_data, "spot_pic", faults)}
    event["faults"] = faults
    line = json.dumps(event, ensure_ascii=False) + "\n"
    # One write to a file open for appending: gunicorn's workers are several processes.
    with open(os.environ["SOPHON_EVENTS"], "ab", buffering=0) as events:
        events.write(line.encode())
    return ({"status": "bad event", "faults": faults}, 400) if faults else {"status": "ok"}
