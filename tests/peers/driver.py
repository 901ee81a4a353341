"""The driver behind `run`: each peer with each format gets real events from the real programs.

A combination passes when everything that fake-recognizer printed has arrived exactly once, byte for byte, and the peer
found no fault in any request. Nothing here waits by sleeping for a time: every wait ends with its condition, and a
process that ends early or a time limit turns it into a failure that shows the logs.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "scripts" / "lib"))
from compare import compare, dropped_duplicates, read_lines  # noqa: E402

EXAMPLES = ROOT / "examples" / "receivers"
KEY = b"a key of the tests alone"
NODE_MODULES = ROOT / "target" / "peers-node" / "node_modules"

BIG = 1_500_000  # a picture of at least this many bytes is one of "2 MB"
RUNS = [("small", 8), ("big", 4)]  # pictures, number of events
PATIENCE = 60  # seconds until a wait gives up: a bound for what never comes, not for a busy machine


class Failure(Exception):
    """A combination that did not pass, and why."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Scene:
    """The folder, the log and the processes of one combination; leaving it ends them all."""

    def __init__(self, binaries):
        self.binaries = binaries
        self.running = []

    def __enter__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="sophon-peers."))
        self.store = self.receiver = self.key = None
        self.is_example = False
        self.before = []  # words before the command of an example
        shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.ring_dir = Path(tempfile.mkdtemp(prefix="sophon-peers.", dir=shared_memory))
        self.events = self.dir / "events.jsonl"
        self.received = lambda: read_lines(self.events)
        return self

    def __exit__(self, *_):
        while self.running:
            self.stop(self.running[-1])
        shutil.rmtree(self.ring_dir, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, name, command, **environment):
        log = open(self.dir / f"{name}.log", "ab")
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.dir,
            env={**os.environ, **environment},
            start_new_session=True,  # a server's workers end with it
        )
        log.close()
        process.name = name
        self.running.append(process)
        return process

    def stop(self, process):
        """Ends a process with SIGTERM, and what is left of it with SIGKILL; returns its exit code."""
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(10)
        except subprocess.TimeoutExpired:
            return None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            self.running.remove(process)

    def wait(self, condition, what):
        """The first true value of the condition."""
        limit = time.monotonic() + PATIENCE
        while True:
            value = condition()
            if value:
                return value
            for process in self.running:
                if process.poll() is not None:
                    raise Failure(f"{process.name} ended with exit code {process.returncode} before {what}")
            if time.monotonic() > limit:
                raise Failure(f"{PATIENCE} s passed before {what}")
            time.sleep(0.02)

    def wait_for_port(self, port, what):
        def connects():
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        self.wait(connects, f"{what} listened on port {port}")

    def logs(self):
        for log in sorted(self.dir.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-12:]
            if lines:
                yield f"--- {log.name}"
                yield from lines


# --- the peers: each starts its server and returns the port ----------------------------------------------------------


def flask_itself(scene):
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", HERE / "flask_app.py", "run", "--port", port]
    scene.start("flask", command, SOPHON_EVENTS=str(scene.events), PYTHONDONTWRITEBYTECODE="1")
    scene.wait_for_port(port, "Flask")
    return port


def gunicorn(scene, *worker):
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--chdir", HERE, *worker]
    # The control socket would stand in the user's home, where it outlives the test.
    command += ["--no-control-socket", "--worker-tmp-dir", scene.ring_dir, "flask_app:app"]
    scene.start("gunicorn", command, SOPHON_EVENTS=str(scene.events), PYTHONDONTWRITEBYTECODE="1")
    scene.wait_for_port(port, "gunicorn")
    return port


def gunicorn_sync(scene):
    return gunicorn(scene, "--worker-class", "sync", "--workers", 2)


def gunicorn_threads(scene):
    return gunicorn(scene, "--worker-class", "gthread", "--workers", 1, "--threads", 4)


def event_receive_server(scene):
    """The box's own receiver; its store is where the events are read from."""
    process = scene.start(
        "receiver",
        [scene.binaries / "event-receive-server", "--listen", "127.0.0.1:0", "--store", scene.dir / "store"],
    )
    scene.events = scene.dir / "store" / "events.jsonl"
    scene.store = scene.dir / "store"

    def announced():
        for line in (scene.dir / f"{process.name}.log").read_text(errors="replace").splitlines():
            before, found, address = line.partition("listening on http://")
            if found:
                return int(address.split()[0].rstrip("/").rpartition(":")[2])

    port = scene.wait(announced, "event-receive-server said where it listens")
    scene.receiver = f"http://127.0.0.1:{port}"
    return port


def nginx(scene):
    values = {
        "DIR": str(scene.dir),
        "PORT": str(free_port()),
        "BACKEND": str(event_receive_server(scene)),
        # As root nginx would let its worker be www-data, who may not enter the test's folder.
        "USER": "user root;" if os.geteuid() == 0 else "",
    }
    config = (HERE / "nginx.conf.in").read_text()
    for name, value in values.items():
        config = config.replace(f"@{name}@", value)
    (scene.dir / "nginx.conf").write_text(config)
    scene.start("nginx", ["nginx", "-e", "stderr", "-p", scene.dir, "-c", scene.dir / "nginx.conf"])
    scene.wait_for_port(int(values["PORT"]), "nginx")
    return int(values["PORT"])


def example(scene, command, **environment):
    """One of examples/receivers: it keeps each event in a folder of its own, whose event.json says what the files are."""
    port = free_port()
    scene.is_example = True
    scene.store = scene.dir / "store"
    scene.received = lambda: [json.loads(file.read_text()) for file in scene.store.glob("[0-9a-f]*/event.json")]
    command = [word.replace("PORT", str(port)) if isinstance(word, str) else word for word in command]
    scene.start("example", [*scene.before, *command], STORE=str(scene.store), PORT=str(port), PYTHONDONTWRITEBYTECODE="1", **environment)
    scene.wait_for_port(port, "the example")
    return port


def sign(scene):
    """Has the box sign its requests, and the example verify them."""
    scene.key = scene.dir / "sign.key"
    scene.key.write_bytes(KEY + b"\n")
    scene.key.chmod(0o600)
    return {"SIGN_KEY_FILE": str(scene.key)}


def sign_json(scene):
    """The same where the example can have the bytes of a body: of JSON alone."""
    return sign(scene) if scene.content_type == "json" else {}


def python_example(folder, module, *command):
    """The example in `folder`, run by a module of the tests' environment."""
    here = EXAMPLES / folder

    def start(scene):
        places = {"PYTHONPATH": f"{EXAMPLES}:{here}", "HOME": str(scene.dir)}
        return example(scene, [sys.executable, "-m", module, *command], **places, **sign(scene))

    return start


GUNICORN = ("--threads", "4", "--no-control-socket", "--bind", "127.0.0.1:PORT")


def express(scene):
    return example(scene, ["node", EXAMPLES / "express" / "app.js"], NODE_PATH=str(NODE_MODULES), **sign(scene))


def php(scene):
    settings = ["-n", "-d", "display_errors=0", "-d", "post_max_size=32M", "-d", "memory_limit=256M"]
    return example(scene, ["php", *settings, "-S", "127.0.0.1:PORT", EXAMPLES / "php" / "receive.php"], **sign_json(scene))


def build_go(scene):
    """The example in Go, as a program."""
    program = scene.dir / "receiver"
    caches = {"GOCACHE": str(ROOT / "target" / "go-cache"), "GOFLAGS": "-mod=mod", "GO111MODULE": "off"}
    sources = sorted((EXAMPLES / "go").glob("*.go"))
    subprocess.run(["go", "build", "-o", program, *sources], check=True, env={**os.environ, **caches})
    return program


def go(scene):
    return example(scene, [build_go(scene)], **sign(scene))


def servlet(scene):
    java = ["java", "-cp", os.environ["SERVLET_CLASSPATH"], "Tomcat10", "ReceiveEvents", "PORT", str(32 << 20)]
    scene.dir.joinpath("store").mkdir(exist_ok=True)
    return example(scene, java, BASE=str(scene.dir), **sign_json(scene))


def multipart(fields):
    """The form that a box sends, and its content type."""
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()]
    return "".join([*parts, "--edge--\r\n"]).encode(), "multipart/form-data; boundary=edge"


def post(port, content_type, event, event_id, key=KEY):
    """Sends an event, or the bytes of a body, as a box that signs does; the status and the text of the answer."""
    if isinstance(event, bytes):
        body, kind = event, "application/json" if content_type == "json" else "multipart/form-data; boundary=edge"
    elif content_type == "json":
        body, kind = json.dumps(event).encode(), "application/json"
    else:
        body, kind = multipart({**event, "ext_data": json.dumps(event["ext_data"])} if "ext_data" in event else event)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    now = str(int(time.time()))
    signature = f"t={now},v1={hmac.new(key, now.encode() + b'.' + body, hashlib.sha256).hexdigest()}"
    headers = {"Content-Type": kind, "X-Event-Id": event_id, "X-Signature": signature}
    connection.request("POST", "/RealTimeEvent", body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


def event_with(pictures):
    """A good event with these pictures, reg_pic and spot_pic."""
    texts = {name: base64.b64encode(data).decode() for name, data in pictures.items()}
    event = {"identity_id": "1", "identity_name": "\u674e", "group_name": "Staff", "reg_pic": texts["reg_pic"]}
    return event | {"timestamp": 1700000000, "score": 0.5, "ext_data": {"spot_pic": texts["spot_pic"]}}


def check_example(scene, port, content_type):
    """What real programs do not show of an example: its answers, the same event twice, the largest pictures, bad events."""
    pictures = {name: bytes([number]) * (4 << 20) for number, name in enumerate(["reg_pic", "spot_pic"])}
    event, event_id = event_with(pictures), "0123456789abcdef" * 2 + "-7"
    wanted = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in pictures.items()}
    for turn in ("once", "twice"):
        status, text = post(port, content_type, event, event_id)
        if status != 200 or json.loads(text)["received"] != wanted:
            raise Failure(f"two pictures of 4 MiB, {turn}: answered {status} {text[:300]}")
    stored = [event for event in scene.received() if event["id"] == event_id]
    if len(stored) != 1 or stored[0]["identity_name"] != "\u674e":
        raise Failure(f"an event that came twice is stored {len(stored)} times: {stored}")
    for bad, bad_id in ((event, "no/id"), ({"identity_id": "1"}, event_id[:-1] + "8")):
        status, text = post(port, content_type, bad, bad_id)
        if not 400 <= status < 500:
            raise Failure(f"a bad event was answered {status} {text[:300]}")
    if content_type == "json":  # a number that no double can hold: refused, or stored in some way
        small = {"identity_id": "1", "identity_name": "", "group_name": "", "reg_pic": "", "timestamp": 1700000000, "score": 0.5}
        status, text = post(port, content_type, json.dumps(small)[:-1].encode() + b', "ext_data": {"a": 1e999}}', event_id[:-1] + "6")
        files = list(scene.store.glob(event_id[:-1] + "6/event.json"))
        if (status == 200) != any(json.loads(file.read_bytes() or b"{}") for file in files):
            raise Failure(f"1e999 is answered {status} {text[:300]}, and {len(files)} files are there")
    if scene.key and post(port, content_type, event, event_id[:-1] + "9", b"another key")[0] != 401:
        raise Failure("a wrong signature is taken")
    left = sorted(entry.name for entry in scene.store.iterdir() if entry.name.startswith(".new-"))
    if left or len(list(scene.store.iterdir())) != len(scene.received()):
        raise Failure(f"the store has more than events: {left}")


PEERS = {
    "flask": flask_itself,
    "gunicorn sync": gunicorn_sync,
    "gunicorn gthread": gunicorn_threads,
    "event-receive-server": event_receive_server,
    "nginx": nginx,
    "examples/receivers/flask": python_example("flask", "gunicorn", *GUNICORN, "app:app"),
    "examples/receivers/fastapi": python_example("fastapi", "uvicorn", "--host", "127.0.0.1", "--port", "PORT", "app:app"),
    "examples/receivers/django": python_example("django", "gunicorn", *GUNICORN, "app:application"),
    "examples/receivers/express": express,
    "examples/receivers/php": php,
    "examples/receivers/go": go,
    "examples/receivers/servlet": servlet,
}
# What a peer needs beyond Python's packages: without it, its runs are skipped by name.
TOOLS = {"examples/receivers/express": "node", "examples/receivers/php": "php", "examples/receivers/go": "go"}
if "SERVLET_CLASSPATH" not in os.environ:
    TOOLS["examples/receivers/servlet"] = "Tomcat 10"
FORMATS = ["json", "form-data"]


# --- one combination ------------------------------------------------------------------------------------------------


def sort_pictures(source, scratch):
    """Two folders of pictures, the small ones and those of 2 MB: every run is to have both."""
    for name, _ in RUNS:
        (scratch / name).mkdir()
    for picture in sorted(source.glob("*.jpg")):
        shutil.copy(picture, scratch / ("big" if picture.stat().st_size >= BIG else "small"))
    for name, _ in RUNS:
        if not any((scratch / name).iterdir()):
            sys.exit(f"tests/peers: {source} has no {name} *.jpg (big: from {BIG} bytes)")


def deliver(scene, peer, content_type, pictures):
    """Runs one combination and returns how many events it compared."""
    scene.content_type = content_type
    port = peer(scene)
    ring = scene.ring_dir / "events.ring"
    config = {
        "rings": [str(ring)],
        "event_server_url": [f"http://127.0.0.1:{port}/RealTimeEvent"],
        "content-type": content_type,
        "threshold": 0.0,
        "spool": {"dir": str(scene.dir / "spool")},
        "api": {"listen": "127.0.0.1:0", "token_file": str(scene.dir / "api.token")},
    }
    if scene.key:
        config["sign"] = {"key_file": str(scene.key)}
    config_file = scene.dir / "uplink.json"
    config_file.write_text(json.dumps(config, indent=2))
    uplink = scene.start("uplink", [scene.binaries / "sophon-uplink", "run", "--config", config_file])

    published = scene.dir / "published.jsonl"
    expected = 0
    for name, count in RUNS:
        with open(published, "ab") as output, open(scene.dir / "recognizer.log", "ab") as log:
            # Each run is a recognizer of its own: the second takes the first one's ring over. A slow rate, so that
            # the ring's size decides nothing.
            recognizer = subprocess.run(
                [scene.binaries / "fake-recognizer", "--ring", ring, "--pictures", pictures / name]
                + ["--rate", "8", "--count", str(count), "--seed", str(count)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                timeout=PATIENCE,
            )
        expected += count
        if recognizer.returncode:
            raise Failure(f"fake-recognizer ended with exit code {recognizer.returncode}")
        if len(read_lines(published)) != expected:
            raise Failure(f"fake-recognizer published {len(read_lines(published))} events instead of {expected}")
        scene.wait(lambda: len({event["id"] for event in scene.received()}) >= expected, f"{expected} events arrived")

    # Stopped before the comparison, so that no late repetition goes unseen.
    code = scene.stop(uplink)
    if code != 0:
        raise Failure(f"sophon-uplink ended with {code} on SIGTERM")
    received = scene.received()
    if scene.is_example:
        check_example(scene, port, content_type)
    report = compare(read_lines(published), received, store=scene.store)
    if scene.receiver:
        report.dropped_duplicates = dropped_duplicates(scene.receiver)
    faults = [f"{event['id']}: {fault}" for event in received for fault in event.get("faults", [])]
    if faults or not report.agrees:
        raise Failure("\n  ".join([report.verdict(), *report.details(), *faults]))
    if max(event["reg_pic"]["bytes"] for event in received if event["reg_pic"]) < BIG:
        raise Failure("no picture of 2 MB was among them")
    return report.delivered


def main():
    parser = argparse.ArgumentParser(prog="tests/peers/run")
    parser.add_argument("binaries", type=Path, help="folder of the built programs")
    parser.add_argument("--pictures", type=Path, default=ROOT / "tests" / "fixtures")
    parser.add_argument("--only", default="", metavar="TEXT", help="combinations whose name contains TEXT")
    arguments = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="sophon-peers.") as scratch:
        sort_pictures(arguments.pictures.resolve(), Path(scratch))
        for peer_name, peer in PEERS.items():
            for content_type in FORMATS:
                name = f"{peer_name}, {content_type}"
                if arguments.only not in name:
                    continue
                tool = TOOLS.get(peer_name)
                if tool and not shutil.which(tool):
                    print(f"SKIPPED  {name}: no {tool} here", flush=True)
                    continue
                began = time.monotonic()
                with Scene(arguments.binaries.resolve()) as scene:
                    try:
                        count = deliver(scene, peer, content_type, Path(scratch))
                        passed += 1
                        print(f"ok    {name}: {count} events ({time.monotonic() - began:.1f} s)", flush=True)
                    except (Failure, subprocess.SubprocessError, OSError, ValueError, KeyError) as failure:
                        failed += 1
                        print(f"FAIL  {name}: {failure}", flush=True)
                        for line in scene.logs():
                            print(f"      {line}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    # SIGTERM unwinds like Ctrl-C, so that no process and no ring is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
