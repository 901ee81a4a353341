"""The processes of a test, and its gateways. Nothing waits by sleeping for a time: every wait ends with its condition,
and a limit turns what never comes into a failure that shows the logs."""

import base64
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
PATIENCE = 90  # seconds until a wait gives up: a bound for what never comes, not for a busy machine


GIVEN = set()  # ports
GIVING = threading.Lock()


class Failure(Exception):
    """A test that did not pass, and why."""


def check(condition, *what):
    if not condition:
        raise Failure(" ".join(str(one) for one in what))


def free_port():
    """A port below those that the system gives to outgoing connections, which would take it while its server is restarted."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(max(first // 2, 1025), first)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        with GIVING:
            if port not in GIVEN:
                GIVEN.add(port)
                return port


def get(url):
    """Status and text, also of an answer that says that something is wrong."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


class Scene:
    """The folder and the processes of one test; leaving it ends them all."""

    stopping = threading.Event()  # no test is to go on

    def __init__(self, programs):
        self.programs = programs
        self.running = []  # may not end by themselves
        self.ending = []  # may
        self.undo = []  # what is called before the folders are removed
        self.notes = []  # lines for who reads the result
        self.looked = 0.0  # when it was last seen that all of them live

    def __enter__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="sophon-fleet."))
        shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.ring_dir = Path(tempfile.mkdtemp(prefix="sophon-fleet.", dir=shared_memory))
        return self

    def __exit__(self, *_):
        for process in self.running + self.ending:
            process.kill()
        for process in self.running + self.ending:
            process.wait()
        for undo in self.undo:
            undo()
        shutil.rmtree(self.ring_dir, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, name, command, output=None, **environment):
        """Starts a process whose words go to NAME.log; its standard output to the file `output`, where that is given."""
        with open(self.dir / f"{name}.log", "ab") as log, open(output or os.devnull, "ab") as out:
            command = [str(word) for word in command]
            environment = {**os.environ, "NO_COLOR": "1", **environment}
            # In a session of its own: Ctrl-C ends the test, and the test its processes.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out if output else log, stderr=log, cwd=self.dir,
                                       env=environment, start_new_session=True)
        process.name = name
        self.running.append(process)
        return process

    def kill(self, process, how=signal.SIGKILL):
        """Ends a process and returns its exit code."""
        process.send_signal(how)
        code = process.wait(PATIENCE)
        self.running.remove(process)
        return code

    def wait(self, condition, what, patience=PATIENCE):
        """The first true value of the condition."""
        limit = time.monotonic() + patience
        while True:
            value = condition()
            if value:
                return value
            self.all_live(what)
            check(time.monotonic() < limit, patience, "s passed before", what)
            time.sleep(0.05)

    def all_live(self, what):
        """A process that ended by itself is a failure."""
        check(not self.stopping.is_set(), "stopped before", what)
        if len(self.running) > 100 and time.monotonic() < self.looked + 1:
            return  # a thousand are not asked twenty times a second
        self.looked = time.monotonic()
        for process in self.running:
            check(process.poll() is None, process.name, "ended with exit code", process.returncode, "before", what)

    def log(self, name):
        return (self.dir / f"{name}.log").read_text(errors="replace")

    def logs(self):
        for log in sorted(self.dir.glob("*.log")):
            yield f"--- {log.name}"
            yield from log.read_text(errors="replace").splitlines()[-12:]


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.text = status, headers, body.decode(errors="replace")

    def __repr__(self):
        return f"{self.status} {self.text[:300]}"


class Gateway:
    """event-receive-server --jetstream."""

    OPTION = "--jetstream"

    def __init__(self, scene, engine, *options, name="gateway", listen=None, ready=True):
        self.scene = scene
        listen = listen or f"127.0.0.1:{free_port()}"
        self.command = [scene.programs / "gateway", "--listen", listen, self.OPTION, engine.url, *options]
        log = scene.dir / f"{name}.log"
        before = log.stat().st_size if log.exists() else 0
        self.process = scene.start(name, self.command)
        self.port = scene.wait(lambda: self.announced(log, before), f"{name} said where it listens")
        self.url = f"http://127.0.0.1:{self.port}"
        if ready:
            scene.wait(self.is_ready, f"{name} was ready")

    @staticmethod
    def announced(log, before):
        for line in log.read_bytes()[before:].decode(errors="replace").splitlines():
            _, found, address = line.partition("listening on http://")
            if found:
                return int(address.split()[0].rpartition(":")[2])

    def is_ready(self):
        return get(f"{self.url}/healthz")[0] == 200

    def fault(self):
        """What /healthz says is wrong; empty when nothing is."""
        status, text = get(f"{self.url}/healthz")
        return "" if status == 200 else text

    def metric(self, name):
        """The value of a sample, as it is written, or 0."""
        for line in get(f"{self.url}/metrics")[1].splitlines():
            if line.rpartition(" ")[0] == f"sophon_gateway_{name}":
                return float(line.rpartition(" ")[2])
        return 0

    def kill(self, how=signal.SIGKILL):
        return self.scene.kill(self.process, how)

    def post(self, body, event_id=None, path="/RealTimeEvent", **headers):
        headers = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if event_id is not None:
            headers["X-Event-Id"] = event_id
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def raw(self, head, body=b""):
        """Sends bytes and reads what comes until the end of the head of an answer."""
        with socket.create_connection(("127.0.0.1", self.port), 60) as client:
            client.sendall(head.replace("\n", "\r\n").encode() + body)
            answer = b""
            while b"\r\n\r\n" not in answer and (more := client.recv(65536)):
                answer += more
            return answer.decode(errors="replace")


RING = "0123456789abcdef" * 2


def event_id(number):
    return f"{RING}-{number}"


def picture(name):
    return base64.b64encode((FIXTURES / name).read_bytes()).decode()


def event(**changes):
    """A good event; `ext_data` is added to what is there."""
    good = {"identity_id": "1001", "identity_name": "\u674e", "group_name": "Staff", "reg_pic": picture("chelsea-reg-15k.jpg")}
    good |= {"timestamp": 1700000000, "score": 0.93, "ext_data": {"spot_pic": picture("chelsea-spot-50k.jpg")}}
    good["ext_data"] |= changes.pop("ext_data", {})
    return good | changes


def sized(length):
    """A good event of so many bytes."""
    body = json.dumps(event(reg_pic="", ext_data={"spot_pic": ""})).encode()
    return body + b" " * (length - len(body))
