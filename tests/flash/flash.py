#!/usr/bin/env python3
"""What a spooled event costs the flash: bytes, writes and flushes that reach a block device, as the kernel counts them, on an ext4 of its
own in a file; beside one append-only file and SQLite. And what a destination that refuses connections costs the processor.

    flash.py [--programs DIR] [--against DIR]...   the table; fails where this build exceeds a bound (scripts/test flash, scripts/bench flash)

Needs root, for it mounts; exit code 77 where that is not allowed. Each case has a file system of its own, so all of them run at once:
they mostly wait.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
# What mke2fs makes by default may differ from system to system.
FEATURES = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
COMMIT = 7  # seconds: the journal is committed every five
EVENTS, RATE = 100, 5
# Bytes written over the event's size, and flushes an event, at most: of pictures with so many bytes, for so many destinations.
BOUNDS = {(20_000, 1): (1.5, 0.5), (200_000, 1): (1.05, 0.5), (20_000, 3): (1.5, 0.6), (200_000, 3): (1.05, 0.6)}


class Device:
    """An ext4 in a file, and what reached the block device below it."""

    def __init__(self, folder):
        self.folder = tempfile.mkdtemp(dir=folder)
        self.path, image = os.path.join(self.folder, "mounted"), os.path.join(self.folder, "image")
        os.mkdir(self.path)
        with open(image, "wb") as file:
            file.truncate(512 << 20)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-O", FEATURES,
                        "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
        mounted = subprocess.run(["mount", "-o", "loop", image, self.path], capture_output=True, text=True)
        if mounted.returncode:
            print(f"SKIPPED: loop mounts are not allowed here: {mounted.stderr.strip()}")
            os._exit(SKIPPED)
        source = subprocess.check_output(["findmnt", "-no", "SOURCE", self.path], text=True)
        self.name = os.path.basename(source.strip())

    def counts(self):
        """Bytes, writes and flushes."""
        with open(f"/sys/block/{self.name}/stat") as file:
            fields = [int(field) for field in file.read().split()]
        return [fields[6] * 512, fields[4], fields[15]]

    def close(self):
        subprocess.run(["umount", self.path], check=True)
        shutil.rmtree(self.folder)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what, condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise SystemExit(f"{what}: did not come within a minute")


class Uplink:
    """One with its ring, and a recognizer for it."""

    def __init__(self, programs, spool, folder, urls):
        self.programs, self.folder = programs, folder
        # A ring is memory; the flash is the spool's alone.
        self.ring = tempfile.mktemp(prefix="flash-", dir="/dev/shm")
        self.api = free_port()
        config = {"rings": [self.ring], "event_server_url": urls, "spool": {"dir": spool, "min_free_bytes": 0, "max_bytes": 1 << 40},
                  "api": {"listen": f"127.0.0.1:{self.api}", "token_file": os.path.join(folder, "token")}}
        path = os.path.join(folder, "uplink.json")
        with open(path, "w") as file:
            json.dump(config, file)
        self.log = open(os.path.join(folder, "log"), "w")
        self.process = subprocess.Popen([f"{programs}/sophon-uplink", "run", "--config", path], stderr=self.log)

    def publish(self, count, rate, size):
        pictures = os.path.join(self.folder, "pictures")
        os.makedirs(pictures, exist_ok=True)
        with open(os.path.join(pictures, "one.jpg"), "wb") as file:
            file.write(b"\xff\xd8\xff\xe0" + os.urandom(size // 2 - 6) + b"\xff\xd9")
        subprocess.run([f"{self.programs}/fake-recognizer", "--ring", self.ring, "--pictures", pictures, "--rate", str(rate),
                        "--count", str(count)], stdout=subprocess.DEVNULL, check=True)

    def status(self):
        import urllib.request
        with urllib.request.urlopen(f"http://127.0.0.1:{self.api}/api/status", timeout=20) as answer:
            return json.load(answer)

    def processor(self):
        """Nanoseconds of all threads so far."""
        tasks = f"/proc/{self.process.pid}/task"
        return sum(int(open(f"{tasks}/{task}/schedstat").read().split()[0]) for task in os.listdir(tasks))

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        os.unlink(self.ring)
        pathlib.Path(self.ring + ".wake").unlink(missing_ok=True)  # builds before the FIFO make none


def stored_size(spool):
    """Bytes of the newest event as it is stored, and how many there are: by what the folders hold."""
    folders = os.path.join(spool, "to")
    folder = os.path.join(folders, sorted(os.listdir(folders))[0])
    files = {}
    names = [name for name in os.listdir(folder) if name.endswith(".event")]
    for name in names:
        found = os.stat(os.path.join(folder, name))
        files[found.st_ino] = found.st_size
    return sum(files.values()) / len(names), len(names)


def spooled(folder, programs, size, destinations):
    """Events at five a second for destinations that refuse connections."""
    device = Device(folder)
    spool = os.path.join(device.path, "spool")
    uplink = Uplink(programs, spool, device.folder, [f"http://127.0.0.1:{free_port()}/RealTimeEvent" for _ in range(destinations)])
    until("the ring", lambda: uplink.process.poll() is None and os.path.exists(os.path.join(spool, "to")))
    uplink.publish(5, RATE, size)
    until("the first events in the spool", lambda: stored_events(spool) == 5)
    time.sleep(COMMIT)
    before = device.counts()
    uplink.publish(EVENTS, RATE, size)
    until("all events in the spool", lambda: stored_events(spool) == EVENTS + 5)
    time.sleep(COMMIT)
    after = device.counts()
    result = [(one - other) / EVENTS for one, other in zip(after, before)]
    uplink.close()
    device.close()
    return result


def stored_events(spool):
    folders = [os.path.join(spool, "to", name) for name in os.listdir(os.path.join(spool, "to"))]
    return min((sum(name.endswith(".event") for name in os.listdir(folder)) for folder in folders), default=0)


def of_store(folder, prepare, store):
    """Events at five a second that `store` writes, after `prepare` with the mounted folder."""
    device = Device(folder)
    state = prepare(device.path)
    time.sleep(COMMIT)
    before = device.counts()
    for _ in range(EVENTS):
        store(state)
        time.sleep(1 / RATE)
    time.sleep(COMMIT)
    after = device.counts()
    state.close()
    device.close()
    return [(one - other) / EVENTS for one, other in zip(after, before)]


def appended(folder, size):
    event = os.urandom(size)

    def store(file):
        file.write(event)
        os.fdatasync(file.fileno())
    return of_store(folder, lambda path: open(os.path.join(path, "log"), "ab", buffering=0), store)


def in_sqlite(folder, size):
    event = os.urandom(size)

    def prepare(path):
        database = sqlite3.connect(os.path.join(path, "db"), isolation_level=None, check_same_thread=False)
        for text in ("pragma journal_mode=wal", "pragma synchronous=full", "create table e(id integer primary key, b blob)"):
            database.execute(text)
        return database
    return of_store(folder, prepare, lambda database: database.execute("insert into e(b) values(?)", (event,)))


def cost_of_refused(folder, programs, refused):
    """Microseconds of the processor for an event of 20 KB at 50 a second, to two destinations, the second refused or not."""
    device = Device(folder)
    ports = [free_port(), free_port()]
    servers = [subprocess.Popen([f"{programs}/event-receive-server", "--listen", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL) for port in ports[:1 if refused else 2]]
    uplink = Uplink(programs, os.path.join(device.path, "spool"), device.folder,
                    [f"http://127.0.0.1:{port}/RealTimeEvent" for port in ports])
    uplink.publish(100, 50, 20_000)
    before = uplink.processor()
    uplink.publish(1000, 50, 20_000)
    cost = (uplink.processor() - before) / 1000 / 1000
    uplink.close()
    for server in servers:
        server.terminate()
        server.wait()
    device.close()
    return cost


def table(folder, builds, cases):
    """Rows of figures, all cases at once."""
    jobs = {}
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for size, destinations in cases:
            for name, programs in builds.items():
                jobs[(size, f"{name}, destinations: {destinations}")] = pool.submit(spooled, folder, programs, size, destinations)
        for size in sorted({size for size, _ in cases}):
            jobs[(size, "one append-only file, fdatasync an event")] = pool.submit(appended, folder, size)
            jobs[(size, "SQLite, WAL, synchronous=FULL")] = pool.submit(in_sqlite, folder, size)
    return {case: job.result() for case, job in sorted(jobs.items())}


def say(rows):
    print("| pictures, KB | who | bytes written ÷ the event's size | writes an event | flushes an event |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for (size, who), (written, writes, flushes) in rows.items():
        print(f"| {size // 1000} | {who} | {written / size:.2f} | {writes:.1f} | {flushes:.2f} |", flush=True)


def check(rows):
    wrong = []
    for (size, destinations), (most_bytes, most_flushes) in BOUNDS.items():
        written, _, flushes = rows[(size, f"this build, destinations: {destinations}")]
        if written / size > most_bytes or flushes > most_flushes:
            wrong.append(f"{size} bytes, {destinations} destinations: {written / size:.2f} times, {flushes:.2f} flushes; "
                         f"at most {most_bytes} and {most_flushes}")
    ours, theirs = rows[(20_000, "this build, destinations: 1")], rows[(20_000, "one append-only file, fdatasync an event")]
    if ours[0] > 0.7 * theirs[0]:
        wrong.append(f"{ours[0] / theirs[0]:.2f} times the bytes of an append-only file, at most 0.7")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release"))
    parser.add_argument("--against", action="append", default=[])
    arguments = parser.parse_args()
    if os.geteuid():
        print("SKIPPED: loop mounts are not allowed here: they need root")
        sys.exit(SKIPPED)
    builds = {"this build": arguments.programs, **{f"the build in {other}": other for other in arguments.against}}
    folder = tempfile.mkdtemp(prefix="flash-")
    try:
        rows = table(folder, builds, list(BOUNDS))
        say(rows)
        wrong = check(rows)
        print("\n| CPU an event of 20 KB, 50 a second, two destinations | both take it, µs | one refuses connections, µs | ratio |")
        print("| --- | ---: | ---: | ---: |")
        for name, programs in builds.items():
            good, refused = (cost_of_refused(folder, programs, is_refused) for is_refused in (False, True))
            print(f"| {name} | {good:.0f} | {refused:.0f} | {refused / good:.2f} |", flush=True)
            if name == "this build" and refused > 2 * good:
                wrong.append(f"a destination that refuses connections costs {refused / good:.2f} times, at most 2")
    finally:
        for device in os.listdir(folder):  # of a case that failed
            subprocess.run(["umount", "-l", os.path.join(folder, device, "mounted")], stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
    for one in wrong:
        print(f"FAILED: {one}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
