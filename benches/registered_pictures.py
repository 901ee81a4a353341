#!/usr/bin/env python3
"""What it would save, and cost, to store registered pictures once by their SHA-256 instead of in every event.

    target/venv-fleet/bin/python3 benches/registered_pictures.py [EVENTS]

Events of the fixtures' three persons go into a stream of a nats-server of its own (one copy, the settings of examples/fleet), in three
ways: as the gateway stores them; with the stream's own compression; with the registered picture taken out, stored under its digest when it
is new, and read back by the consumer for each event. Bytes are those on the disk; times are CPU times of the server, as the kernel has counted.
"""

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nats

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "tests" / "fixtures"
PERSONS = [("astronaut-reg-60k.jpg", "astronaut-spot-200k.jpg"), ("cameraman-reg-30k.jpg", "cameraman-spot-100k.jpg"),
           ("chelsea-reg-15k.jpg", "chelsea-spot-50k.jpg")]
WAYS = ("as it is", "compression s2", "registered pictures once")


def picture(name):
    return base64.b64encode((FIXTURES / name).read_bytes()).decode()


def event(number, pictures):
    """No two spot pictures are the same: a number in the JPEG's last bytes."""
    reg, spot = pictures[number % len(pictures)]
    spot = base64.b64encode(spot[:-8] + number.to_bytes(8)).decode()
    return {"identity_id": str(number % len(pictures)), "reg_pic": reg, "timestamp": 1700000000 + number, "score": 0.9, "ext_data": {"spot_pic": spot}}


class Server:
    def __init__(self, folder):
        self.store = folder / "store"
        ports, program = folder / "ports", Path(sys.executable).parent / "nats-server"
        config = f'listen: "127.0.0.1:-1"\nports_file_dir: "{ports}"\nmax_payload: 16MB\njetstream {{ store_dir: "{self.store}", sync_interval: always }}\n'
        ports.mkdir()
        (folder / "nats.conf").write_text(config)
        self.process = subprocess.Popen([program, "-c", folder / "nats.conf"], stderr=subprocess.DEVNULL)
        while not (found := list(ports.glob("*.ports"))) or not found[0].read_text():
            time.sleep(0.05)
        self.url = json.loads(found[0].read_text())["nats"][0]

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def disk_bytes(self):
        return sum(path.stat().st_blocks * 512 for path in self.store.rglob("*") if path.is_file())


async def measure(way, count, server):
    client = await nats.connect(server.url)
    stream = json.loads((ROOT / "examples/fleet/stream.json").read_text()) | {"num_replicas": 1, "max_bytes": 4 << 30}
    stream |= {"subjects": ["events.>", "pictures.*"], "compression": "s2" if way == WAYS[1] else "none"}
    answer = json.loads((await client.request("$JS.API.STREAM.CREATE.EVENTS", json.dumps(stream).encode())).data)
    assert "error" not in answer, answer
    jetstream, known, wire = client.jetstream(), set(), 0
    pictures = [(picture(reg), (FIXTURES / spot).read_bytes()) for reg, spot in PERSONS]
    before = server.cpu_seconds()
    for number in range(count):
        made = event(number, pictures)
        if way == WAYS[2]:
            reg = made["reg_pic"]
            digest = hashlib.sha256(reg.encode()).hexdigest()
            made["reg_pic"] = digest
            if digest not in known:
                await jetstream.publish(f"pictures.{digest}", reg.encode())
                known.add(digest)
        body = json.dumps(made).encode()
        wire += len(body)
        await jetstream.publish("events.box.realtime", body, headers={"Nats-Msg-Id": f"box:{number}"})
    written = server.cpu_seconds()
    consumer = await jetstream.pull_subscribe("events.>", durable="reader", stream="EVENTS")
    taken = 0
    while taken < count:
        for message in await consumer.fetch(8):
            made = json.loads(message.data)
            if way == WAYS[2]:
                found = await client.request(f"$JS.API.DIRECT.GET.EVENTS.pictures.{made['reg_pic']}")
                made["reg_pic"] = found.data.decode()
            assert made["reg_pic"] == pictures[taken % len(pictures)][0]
            await message.ack()
            taken += 1
    read = server.cpu_seconds()
    await client.close()
    return wire / count, server.disk_bytes() / count, (written - before) / count * 1000, (read - written) / count * 1000


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 900
    print(f"{count} events, each: body sent, on the disk, the server's CPU to write, to read")
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder))
            try:
                sent, disk, write, read = asyncio.run(measure(way, count, server))
            finally:
                server.process.kill()
                server.process.wait()
        print(f"  {way:26} {sent / 1000:7.1f} KB {disk / 1000:7.1f} KB {write:6.2f} ms {read:6.2f} ms", flush=True)


if __name__ == "__main__":
    main()
