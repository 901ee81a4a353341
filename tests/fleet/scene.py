"""The processes of a test: NATS servers, gateways, uplinks. Nothing waits by sleeping for a time: every wait ends with its condition,
and a limit turns what never comes into a failure that shows the logs."""

import asyncio
import base64
import http.client
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import nats
import nkeys

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "fleet"
FIXTURES = ROOT / "tests" / "fixtures"
NATS_SERVER = Path(sys.executable).parent / "nats-server"
logging.getLogger("asyncio").setLevel(logging.ERROR)  # its word on every TLS connection that ends
PATIENCE = 90  # seconds until a wait gives up: a bound for what never comes, not for a busy machine


class Failure(Exception):
    """A test that did not pass, and why."""


def check(condition, *what):
    if not condition:
        raise Failure(" ".join(str(one) for one in what))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


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

    def __init__(self, programs):
        self.programs = programs
        self.running = []

    def __enter__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="sophon-fleet."))
        shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.ring_dir = Path(tempfile.mkdtemp(prefix="sophon-fleet.", dir=shared_memory))
        return self

    def __exit__(self, *_):
        while self.running:
            self.kill(self.running[-1])
        shutil.rmtree(self.ring_dir, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, name, command, **environment):
        with open(self.dir / f"{name}.log", "ab") as log:
            command = [str(word) for word in command]
            environment = {**os.environ, "NO_COLOR": "1", **environment}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir, env=environment)
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
            for process in self.running:
                check(process.poll() is None, process.name, "ended with exit code", process.returncode, "before", what)
            check(time.monotonic() < limit, patience, "s passed before", what)
            time.sleep(0.05)

    def log(self, name):
        return (self.dir / f"{name}.log").read_text(errors="replace")

    def logs(self):
        for log in sorted(self.dir.glob("*.log")):
            yield f"--- {log.name}"
            yield from log.read_text(errors="replace").splitlines()[-12:]


class Node:
    """One server without a cluster and without a login, or of a `Cluster`."""

    def __init__(self, scene, name="node", program=NATS_SERVER, config=None, sync="sync_interval: always"):
        self.scene, self.name, self.program = scene, name, program
        self.client, self.monitor = free_port(), free_port()
        self.config = scene.dir / f"{name}.conf"
        self.config.write_text(config or (
            f'listen: "127.0.0.1:{self.client}"\nhttp: "127.0.0.1:{self.monitor}"\nmax_payload: 16MB\nmax_pending: 128MB\n'
            f'jetstream {{ store_dir: "{scene.dir / name}", max_file_store: 1GB, {sync} }}\n'))
        self.url = f"nats://127.0.0.1:{self.client}"
        self.login = {}

    def start(self, wait=True):
        self.process = self.scene.start(self.name, [self.program, "-c", self.config])
        if wait:
            self.scene.wait(self.is_healthy, f"{self.name} was healthy")
        return self

    def is_healthy(self):
        return get(f"http://127.0.0.1:{self.monitor}/healthz")[0] == 200

    def kill(self):
        self.scene.kill(self.process)


class Cluster:
    """Three servers as examples/fleet has them: TLS, nkeys, and what each user may do."""

    def __init__(self, scene):
        self.scene = scene
        self.seeds = {}
        for user in ("ADMINISTRATOR", "GATEWAY", "CONSUMER", "OPERATOR"):
            pair = nkeys.from_seed(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
            self.seeds[user] = (pair.public_key.decode(), bytes(pair.seed).decode())
            (scene.dir / f"{user}.seed").write_text(self.seeds[user][1] + "\n")
            (scene.dir / f"{user}.seed").chmod(0o600)
        certificate(scene.dir)
        shutil.copy(EXAMPLES / "nats.conf", scene.dir)
        routes = [free_port() for _ in range(3)]
        self.nodes = [self.node(number, routes) for number in range(3)]
        self.url = ",".join(node.url for node in self.nodes)

    def node(self, number, routes):
        name = f"nats-{number + 1}"
        folder = self.scene.dir / f"conf-{number + 1}"
        folder.mkdir()
        shutil.copy(EXAMPLES / "nats.conf", folder)
        node = Node(self.scene, name, config="# in a folder of its own\n")
        node.config = folder / "nats.conf"
        node.url = f"tls://127.0.0.1:{node.client}"
        node.login = {"user": str(self.scene.dir / "OPERATOR.seed"), "ca": self.scene.dir / "ca.crt"}
        values = {"NAME": name, "CLIENT": f"127.0.0.1:{node.client}", "MONITOR": f"127.0.0.1:{node.monitor}"}
        values |= {"ROUTE": f"127.0.0.1:{routes[number]}", "ROUTES": [f"nats://127.0.0.1:{port}" for port in routes]}
        values |= {"STORE": str(self.scene.dir / name), "CERT": str(self.scene.dir / "server.crt")}
        values |= {"KEY": str(self.scene.dir / "server.key"), "CA": str(self.scene.dir / "ca.crt")}
        lines = [f"node_{name.lower()}: {json.dumps(value)}" for name, value in values.items()]
        lines += [f"nkey_{user.lower()}: {public}" for user, (public, _) in self.seeds.items()]
        (folder / "node.conf").write_text("\n".join([*lines, "node_size: 2GB", "fleet_size: 6GB"]) + "\n")
        return node

    def start(self):
        for node in self.nodes:
            node.start(wait=False)
        self.scene.wait(lambda: all(node.is_healthy() for node in self.nodes), "three nodes were healthy")
        return self

    def gateway_login(self):
        return ["--creds", self.scene.dir / "GATEWAY.seed", "--tls-ca", self.scene.dir / "ca.crt"]

    @property
    def login(self):
        return self.nodes[0].login

    def leader(self):
        info = operate(self, lambda stream: stream.info())
        return next(node for node in self.nodes if node.name == info["cluster"]["leader"])


def certificate(folder):
    """A CA of the test's own, and a certificate for loopback by it."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl("req", "-x509", *curve, "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *curve[:-2], "-subj", "/CN=node", "-keyout", "server.key", "-out", "server.csr")
    (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    ca = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "server.ext"]
    openssl("x509", "-req", "-in", "server.csr", *ca, "-out", "server.crt")


class Stream:
    """The stream, for who may do everything with it."""

    def __init__(self, client):
        self.client = client

    async def api(self, what, request=None):
        answer = await self.client.request(f"$JS.API.{what}", json.dumps(request).encode() if request else b"", timeout=20)
        return json.loads(answer.data)

    async def create(self, **changes):
        config = {**json.loads((EXAMPLES / "stream.json").read_text()), "max_bytes": 1 << 30, **changes}
        answer = await self.api("STREAM.CREATE.EVENTS", config)
        check("error" not in answer, "the stream was not made:", answer)

    async def update(self, **changes):
        config = (await self.info())["config"]
        answer = await self.api("STREAM.UPDATE.EVENTS", {**config, **changes})
        check("error" not in answer, "the stream was not changed:", answer)

    async def info(self):
        return await self.api("STREAM.INFO.EVENTS")

    async def messages(self):
        """All of them, in their order: (subject, headers, data)."""
        info = await self.info()
        found = []
        for sequence in range(info["state"]["first_seq"], info["state"]["last_seq"] + 1):
            answer = await self.api("STREAM.MSG.GET.EVENTS", {"seq": sequence})
            if message := answer.get("message"):
                found.append((message["subject"], headers_of(message.get("hdrs", "")), base64.b64decode(message.get("data", ""))))
        return found


def headers_of(text):
    lines = base64.b64decode(text).decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


async def connected(engine):
    options = {}
    if engine.login:
        options = {"nkeys_seed": engine.login["user"], "tls": ssl.create_default_context(cafile=engine.login["ca"])}
    async def ignored(error):
        """What matters comes to whoever asked."""

    return await nats.connect(engine.url.split(","), max_reconnect_attempts=1, connect_timeout=5, error_cb=ignored, **options)


def operate(engine, action):
    """What an action of a `Stream` gives. Tried again while there is no leader."""
    async def run():
        client = await connected(engine)
        try:
            return await action(Stream(client))
        finally:
            await client.close()

    limit = time.monotonic() + PATIENCE
    while True:
        try:
            return asyncio.run(run())
        except (nats.errors.Error, OSError, asyncio.TimeoutError) as error:
            if time.monotonic() > limit:
                raise Failure(f"the stream could not be asked: {error!r}") from error
            time.sleep(0.1)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.text = status, headers, body.decode(errors="replace")

    def __repr__(self):
        return f"{self.status} {self.text[:300]}"


class Gateway:
    """event-receive-server --jetstream."""

    def __init__(self, scene, engine, *options, name="gateway", listen="127.0.0.1:0", ready=True):
        self.scene = scene
        self.command = [scene.programs / "gateway", "--listen", listen, "--jetstream", engine.url, *options]
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
