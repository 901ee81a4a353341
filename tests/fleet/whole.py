"""The whole way: boxes, a load balancer, two gateways, three servers and a consumer; progress, and the comparison at the end."""

import json
import os
import resource
import signal
import sqlite3
import sys
import time
from pathlib import Path

from balancer import Balancer
from boxes import Boxes
from scene import ROOT, Failure, Gateway, Scene, check, free_port
from servers import Cluster, acknowledged, operate

sys.path.insert(0, str(ROOT / "scripts" / "lib"))
from compare import compare, read_lines  # noqa: E402

EVERY = 5  # seconds between two lines of progress
STALLED = 240  # seconds without a single event: a bound for what never comes
SHOWN = 50  # differences


class Whole:
    """Starts everything but the boxes' recognizer."""

    def __init__(self, scene, boxes, gigabytes=2, places=None, balancer=None, talks=True):
        self.scene, self.talks, self.began = scene, talks, time.monotonic()
        self.cluster = Cluster(scene, gigabytes, places).start()
        operate(self.cluster, lambda stream: stream.create(max_bytes=(gigabytes << 30) * 9 // 10))
        operate(self.cluster, lambda stream: stream.add_consumer())
        self.boxes = Boxes(scene, boxes)
        self.ports = [free_port(), free_port()]
        self.gateways = [self.gateway(number) for number in range(2)]
        self.balancer = Balancer(scene, [f"127.0.0.1:{port}" for port in self.ports], balancer)
        self.database = scene.dir / "consumed.sqlite"
        self.consumer = self.start_consumer()
        balanced = f"two gateways behind {self.balancer.program} with TLS"
        self.say(f"three nats-servers, {balanced}, a consumer; starting {boxes} uplinks")
        self.boxes.start_all(self.balancer.url)
        self.lines, self.read_to, self.shown = 0, {}, 0.0

    def gateway(self, number):
        """The gateway of that number, started, or started again at the same address."""
        options = [*self.cluster.gateway_login(), "--boxes", self.boxes.allowed]
        return Gateway(self.scene, self.cluster, *options, name=f"gateway-{number + 1}", listen=f"127.0.0.1:{self.ports[number]}")

    def start_consumer(self):
        program = Path(__file__).with_name("exact_consumer.py")
        folder = self.scene.dir
        command = [sys.executable, "-B", program, self.cluster.url, folder / "CONSUMER.seed", folder / "ca.crt", self.database]
        return self.scene.start("consumer", command)

    def say(self, text):
        if self.talks:
            print(f"{time.monotonic() - self.began:6.0f} s  {text}", flush=True)

    def published(self):
        """How many events the recognizers have published."""
        for path in self.boxes.published:
            with open(path, "rb") as lines:
                lines.seek(self.read_to.get(path, 0))
                self.lines += lines.read().count(b"\n")
                self.read_to[path] = lines.tell()
        return self.lines

    def ask(self, question):
        """What the consumer's store answers; empty while it has none."""
        try:
            with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30) as database:
                return database.execute(question).fetchall()
        except sqlite3.OperationalError:
            return []

    def consumed(self):
        rows = self.ask("SELECT max(rowid) FROM events")
        return rows[0][0] or 0 if rows else 0

    def show(self, now=False):
        if now or time.monotonic() - self.shown >= EVERY:
            self.shown = time.monotonic()
            self.say(f"published {self.published()}, consumed {self.consumed()}")

    def is_over(self):
        return not self.boxes.is_publishing() and self.consumed() >= self.published()

    def wait(self, condition, what):
        """As a scene waits, with lines of progress, and for as long as events arrive. Looks ten times a second at most."""
        last, changed = None, time.monotonic()
        while not (value := condition()):
            self.scene.all_live(what)
            self.show()
            if (now := (self.published(), self.consumed())) != last:
                last, changed = now, time.monotonic()
            check(time.monotonic() - changed < STALLED, "nothing arrived for", STALLED, "s before", what)
            time.sleep(0.1)
        return value

    def run_out(self, at_the_end=lambda: None):
        """Ends everything once all events have arrived, and compares; the report. What never arrives is in it."""
        try:
            self.wait(self.is_over, "every event was consumed")
            self.show(now=True)
            at_the_end()
            self.boxes.stop_all()
            self.say("the uplinks have ended")
            self.wait(lambda: acknowledged(self.cluster), "the consumer had acknowledged everything")
            self.say("the consumer has acknowledged everything")
            check(self.scene.kill(self.consumer, signal.SIGTERM) == 0, "the consumer ends when it is told to")
        except Failure as failure:
            self.say(str(failure))
            return self.report(), failure
        return self.report(), None

    def report(self):
        received = []
        for event_id, pictures in self.ask("SELECT id, pictures FROM events UNION ALL SELECT id, '{}' FROM again"):
            received.append({"id": event_id, "reg_pic": None, "spot_pic": None, **json.loads(pictures)})
        found = compare([line for path in self.boxes.published for line in read_lines(path)], received)
        boxes = self.ask("SELECT substr(id, 1, 32), count(DISTINCT box) FROM events GROUP BY 1 HAVING count(DISTINCT box) > 1")
        found.wrong += [f"{ring}: its events came as those of {count} boxes" for ring, count in boxes]
        return found


def conclude(whole, least, at_the_end=lambda: None):
    """Runs everything out, at least so many events, and says whether all is well. `at_the_end` is called while everything still runs."""
    report, failure = whole.run_out(at_the_end)
    for line in [*whole.scene.logs(), str(failure)] if failure else []:
        print(line)
    for line in list(report.details())[:SHOWN]:
        print(line)
    pictures = 2 * report.delivered - len(report.wrong)
    print(f"published {report.expected}, consumed {report.delivered}, {len(report.lost)} lost, {len(report.duplicated)} twice,"
          f" {len(report.wrong)} wrong; {pictures} pictures compared by SHA-256")
    is_good = report.agrees and not failure and report.expected >= least
    if is_good:
        print("published = consumed, 0 lost, 0 twice", flush=True)
    return is_good


def cpu_seconds(process):
    """Of a process that lives, as the kernel has counted it."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process):
    """What of a process' memory is its own, in MB: RssAnon."""
    line = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def costs(whole):
    """What each kind of process takes of a core and of memory, for lines of a table."""
    kinds = {"gateway": [gateway.process for gateway in whole.gateways]}
    kinds |= {"nats-server": [node.process for node in whole.cluster.nodes]}
    kinds |= {whole.balancer.program: [whole.balancer.process], "consumer": [whole.consumer]}
    kinds |= {"uplink": list(whole.boxes.running.values())}
    return {kind: (len(all_), sum(map(cpu_seconds, all_)), max(map(memory_mb, all_))) for kind, all_ in kinds.items()}


def in_a_scene(programs, run, failed):
    """Runs run(scene) with as many open files as the system allows. Returns the exit code: 1 unless it returns true. After a Failure,
    prints the logs and what `failed` says of it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Scene(Path(programs).resolve()) as scene:
        try:
            return 0 if run(scene) else 1
        except Failure as failure:
            print("\n".join([*scene.logs(), failed(failure)]))
            return 1
        finally:
            # From here on signals are ignored, so that every process is ended and every folder removed.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def unwind_on_signals():
    """Turns SIGTERM and SIGINT into SystemExit, so that every process is ended and every folder removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
