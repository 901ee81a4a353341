"""The NATS servers of a test, and the stream for who may do everything with it."""

import asyncio
import base64
import json
import logging
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import nats
import nkeys

from scene import PATIENCE, ROOT, Failure, check, free_port, get

EXAMPLES = ROOT / "examples" / "fleet"
NATS_SERVER = Path(sys.executable).parent / "nats-server"
logging.getLogger("asyncio").setLevel(logging.ERROR)  # its word on every TLS connection that ends


class Node:
    """One server without a cluster and without a login, or of a `Cluster`."""

    def __init__(self, scene, name="node", program=NATS_SERVER, config=None, sync="sync_interval: always"):
        self.scene, self.name, self.program = scene, name, program
        self.monitored_at, self.before = "127.0.0.1", []  # the words before its command
        self.client, self.monitor = free_port(), free_port()
        self.config = scene.dir / f"{name}.conf"
        self.config.write_text(config or (
            f'listen: "127.0.0.1:{self.client}"\nhttp: "127.0.0.1:{self.monitor}"\nmax_payload: 16MB\nmax_pending: 128MB\n'
            f'jetstream {{ store_dir: "{scene.dir / name}", max_file_store: 1GB, {sync} }}\n'))
        self.url = f"nats://127.0.0.1:{self.client}"
        self.login = {}

    def start(self, wait=True):
        self.process = self.scene.start(self.name, [*self.before, self.program, "-c", self.config])
        if wait:
            self.scene.wait(self.is_healthy, f"{self.name} was healthy")
        return self

    def is_healthy(self):
        return get(f"http://{self.monitored_at}:{self.monitor}/healthz")[0] == 200

    def kill(self, how=signal.SIGKILL):
        return self.scene.kill(self.process, how)


class Cluster:
    """Three servers as examples/fleet has them: TLS, nkeys, and what each user may do. Each keeps at most so many GB. `places` are where
    they run, if not here: an address for each, the words before its command, and the folder of its store."""

    def __init__(self, scene, gigabytes=2, places=None):
        self.scene, self.gigabytes = scene, gigabytes
        self.places = places or [("127.0.0.1", [], scene.dir / f"nats-{number}") for number in (1, 2, 3)]
        self.seeds = {}
        for user in ("ADMINISTRATOR", "GATEWAY", "CONSUMER", "GALLERY", "OPERATOR"):
            pair = nkeys.from_seed(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
            self.seeds[user] = (pair.public_key.decode(), bytes(pair.seed).decode())
            (scene.dir / f"{user}.seed").write_text(self.seeds[user][1] + "\n")
            (scene.dir / f"{user}.seed").chmod(0o600)
        certificate(scene.dir, sorted({"127.0.0.1", *(address for address, _, _ in self.places)}))
        shutil.copy(EXAMPLES / "nats.conf", scene.dir)
        routes = [f"{address}:{free_port()}" for address, _, _ in self.places]
        self.nodes = [self.node(number, routes) for number in range(3)]
        self.url = ",".join(node.url for node in self.nodes)

    def node(self, number, routes):
        name = f"nats-{number + 1}"
        folder = self.scene.dir / f"conf-{number + 1}"
        folder.mkdir()
        shutil.copy(EXAMPLES / "nats.conf", folder)
        node = Node(self.scene, name, config="# in a folder of its own\n")
        node.config = folder / "nats.conf"
        node.monitored_at, node.before, store = self.places[number]
        node.url = f"tls://{node.monitored_at}:{node.client}"
        node.login = {"user": str(self.scene.dir / "OPERATOR.seed"), "ca": self.scene.dir / "ca.crt"}
        values = {"NAME": name, "CLIENT": f"{node.monitored_at}:{node.client}", "MONITOR": f"{node.monitored_at}:{node.monitor}"}
        values |= {"ROUTE": routes[number], "ROUTES": [f"nats://{route}" for route in routes]}
        values |= {"STORE": str(store), "CERT": str(self.scene.dir / "server.crt")}
        values |= {"KEY": str(self.scene.dir / "server.key"), "CA": str(self.scene.dir / "ca.crt")}
        lines = [f"node_{name.lower()}: {json.dumps(value)}" for name, value in values.items()]
        lines += [f"nkey_{user.lower()}: {public}" for user, (public, _) in self.seeds.items()]
        (folder / "node.conf").write_text("\n".join([*lines, f"node_size: {self.gigabytes}GB", f"fleet_size: {3 * self.gigabytes}GB"]) + "\n")
        return node

    def start(self):
        for node in self.nodes:
            node.start(wait=False)
        self.scene.wait(lambda: all(node.is_healthy() for node in self.nodes), "three nodes were healthy")
        return self

    def gateway_login(self):
        return ["--creds", self.scene.dir / "GATEWAY.seed", "--tls-ca", self.scene.dir / "ca.crt"]

    def gallery_login(self):
        return ["--creds", self.scene.dir / "GALLERY.seed", "--tls-ca", self.scene.dir / "ca.crt"]

    @property
    def login(self):
        return self.nodes[0].login

    def leader(self):
        def known():
            name = operate(self, lambda stream: stream.info())["cluster"].get("leader")
            return next((node for node in self.nodes if node.name == name), None)

        return self.scene.wait(known, "the stream had a leader")


def certificate(folder, addresses):
    """A CA of the test's own, and a certificate for these addresses by it."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl("req", "-x509", *curve, "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *curve[:-2], "-subj", "/CN=node", "-keyout", "server.key", "-out", "server.csr")
    (folder / "server.ext").write_text(f"subjectAltName={','.join(f'IP:{address}' for address in addresses)}\nextendedKeyUsage=serverAuth,clientAuth\n")
    ca = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "server.ext"]
    openssl("x509", "-req", "-in", "server.csr", *ca, "-out", "server.crt")


class NotNow(nats.errors.Error):
    """There is no leader; `operate` asks again."""


class Stream:
    """The stream, for who may do everything with it."""

    def __init__(self, client):
        self.client = client

    async def api(self, what, request=None):
        answer = await self.client.request(f"$JS.API.{what}", json.dumps(request).encode() if request else b"", timeout=20)
        answer = json.loads(answer.data)
        if answer.get("error", {}).get("code") == 503:
            raise NotNow(answer["error"])
        return answer

    async def create(self, **changes):
        config = {**json.loads((EXAMPLES / "stream.json").read_text()), "max_bytes": 1 << 30, **changes}
        answer = await self.api("STREAM.CREATE.EVENTS", config)
        check("error" not in answer, "the stream was not made:", answer)

    async def update(self, **changes):
        config = (await self.info())["config"]
        answer = await self.api("STREAM.UPDATE.EVENTS", {**config, **changes})
        check("error" not in answer, "the stream was not changed:", answer)

    async def add_consumer(self, **changes):
        """The durable consumer of examples/fleet, with these changes. Changes the one that is there."""
        config = {**json.loads((EXAMPLES / "consumer.json").read_text()), **changes}
        answer = await self.api("CONSUMER.DURABLE.CREATE.EVENTS.store", {"stream_name": "EVENTS", "config": config})
        check("error" not in answer, "the consumer was not made:", answer)

    async def info(self):
        return await self.api("STREAM.INFO.EVENTS")

    async def shorten(self, consumer):
        """Has what was delivered and not acknowledged come again sooner than in a minute: a test is to wait for it."""
        config = (await self.api(f"CONSUMER.INFO.EVENTS.{consumer}"))["config"]
        request = {"stream_name": "EVENTS", "config": {**config, "ack_wait": 2_000_000_000}}
        answer = await self.api(f"CONSUMER.DURABLE.CREATE.EVENTS.{consumer}", request)
        check("error" not in answer, "the consumer was not changed:", answer)

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


def acknowledged(engine):
    """Whether the consumer has acknowledged everything that is in the stream."""
    async def action(stream):
        return await stream.api("CONSUMER.INFO.EVENTS.store"), await stream.info()

    consumer, info = operate(engine, action)
    return consumer["ack_floor"]["stream_seq"] == info["state"]["last_seq"]


async def connected(engine):
    options = {**engine.login}
    if ca := options.pop("ca", None):
        options = {"nkeys_seed": options["user"], "tls": ssl.create_default_context(cafile=ca)}
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
