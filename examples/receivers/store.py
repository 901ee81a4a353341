"""Stores one event in a folder named by its id: pictures as files, the rest as event.json. The Flask, FastAPI and Django examples
share it. A repeated event is stored once. When `keep` returns, the event is on the disk."""
import base64, hashlib, hmac, json, os, pathlib, re, shutil, tempfile, time

STORE = pathlib.Path(os.environ.get("STORE", "store"))
LIMIT = 32 * 1024 * 1024  # size of a request in bytes: more than two pictures of 8 MiB as base64


SIGN_KEY = pathlib.Path(os.environ["SIGN_KEY_FILE"]).read_bytes().removesuffix(b"\n") if "SIGN_KEY_FILE" in os.environ else None


def is_signed(signature, body):
    """If there is a key, checks that a request comes from the box: `X-Signature: t=SECONDS,v1=HEX`, HMAC-SHA256 of SECONDS.BODY,
    at most 5 minutes old."""
    if SIGN_KEY is None:
        return True
    match = re.fullmatch(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})", signature or "")
    wanted = match and hmac.new(SIGN_KEY, match[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    return bool(match) and hmac.compare_digest(wanted, match[2]) and abs(time.time() - int(match[1])) < 300


def to_disk(path, data=None):
    """Writes and fsyncs a file; without data, fsyncs a folder."""
    descriptor = os.open(path, os.O_RDONLY if data is None else os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if data is not None:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keep(event_id, event):
    """Stores an event (a dict; values of a form may be texts) and returns the answer. ValueError, KeyError: it is none."""
    if not re.fullmatch(r"[0-9a-f]{32}-[0-9]+(-history)?", event_id or ""):
        raise ValueError("X-Event-Id is missing or malformed")
    ext_data = event["ext_data"] if isinstance(event["ext_data"], dict) else json.loads(event["ext_data"])
    event = {**event, "timestamp": int(event["timestamp"]), "score": float(event["score"]), "ext_data": ext_data}
    pictures, received = {}, {}
    for name, holder in (("reg_pic", event), ("spot_pic", ext_data)):
        data = base64.b64decode(holder.get(name) or "", validate=True)
        holder[name] = None
        if data:
            pictures[f"{name}.jpg"] = data
            received[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            holder[name] = {"file": f"{event_id}/{name}.jpg", **received[name]}
    STORE.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=STORE))
    try:
        for file, data in {**pictures, "event.json": json.dumps({"id": event_id, **event}).encode()}.items():
            to_disk(folder / file, data)
        to_disk(folder)
        folder.rename(STORE / event_id)  # fails if the event is stored already
    except OSError:
        if not (STORE / event_id / "event.json").is_file():
            raise  # for example a full disk: answered with 500, and the event is sent again
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # there is none after the rename
    to_disk(STORE)  # for a repeated event too: the first try may have ended just before this line
    return {"status": "ok", "received": received}
