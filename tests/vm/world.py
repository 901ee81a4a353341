"""What the tests in this folder share: the kit, the image that was packaged, and a box with a receiver."""

import json
import os
import random
import subprocess
import tempfile
import unittest
from pathlib import Path

from guest import HOST, Guest
from initrd import make_initrd
from receiver import Receiver

WORK = Path(os.environ["SOPHON_VM"])
SEED = int(os.environ.get("SEED", random.randrange(1 << 32)))
GATE = "/system/data/sophon_gate"
S95 = f"{GATE}/init.d/S95sophon-uplink"
UPLINK = f"{GATE}/bin/sophon-uplink"
CONFIG = f"{GATE}/config/sophon-uplink.json"
RING = "/dev/shm/sophonfog.events"


def count(name, default):
    """A count that a long campaign sets."""
    return int(os.environ.get(f"SOPHON_VM_{name}", default))


def copy(source, target):
    """Copies an image, holes as holes."""
    subprocess.run(["cp", "--sparse=always", source, target], check=True)


class BoxTest(unittest.TestCase):
    """A test with an image of its own, a receiver, and guests."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir=WORK)
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.initrd = self.folder / "initrd"
        make_initrd(WORK / "kit", self.initrd, [WORK / "recognizer", WORK / "fake-recognizer", WORK / "make_call"])
        (self.image,) = [self.copy_of(path) for path in (WORK / "dist").glob("*.ext4")]
        self.receiver = self.enterContext(Receiver())
        self.random = random.Random(SEED)

    def copy_of(self, image, name="data.ext4"):
        copy(image, self.folder / name)
        return self.folder / name

    def boot(self, image=None, words="", **options):
        """A guest whose shell is ready; what was said on the way is its `console`."""
        guest = Guest(WORK / "kit", self.initrd, image or self.image, words, **options)
        self.addCleanup(guest.cut)
        guest.wait_ready()
        return guest

    def configure(self, guest, **more):
        """Sends the guest's events to the receiver, from the uplink's next start on."""
        config = {"event_server_url": [f"http://{HOST}:{self.receiver.port}/RealTimeEvent"], **more}
        guest.run(f"mkdir -p {GATE}/config && cat >{CONFIG} <<'END'\n{json.dumps(config)}\nEND\nsync")

    def publish(self, guest, number, size, capacity=16 << 20):
        """Publishes events with two pictures of `size` bytes each; returns their ids."""
        said = guest.run(f"printf 'open {RING} {capacity}\\nmany {number} {size}\\nid\\nclose\\n' | recognizer")
        opened, published, ring = said.splitlines()[:3]
        self.assertEqual(opened, "ok", said)
        last = int(published.split()[1])
        return {f"{ring.split()[1]}-{sequence}" for sequence in range(last - number + 1, last + 1)}

    def assert_delivered(self, event_ids, guest):
        missing = self.receiver.wait(event_ids)
        self.assertEqual((missing, self.receiver.faults), (set(), []), f"seed {SEED}; {guest.tail()}")


def ring(guest):
    """The ring's state, as `sophon-uplink ring` shows it inside the guest."""
    return json.loads(guest.run(f"{UPLINK} ring {RING} --json"))


def pid(guest):
    """The uplink's; not that of the process that opens rings for it."""
    return int(guest.run("cat /run/sophon-uplink/uplink").split()[0])


def of_process(guest, number):
    """The guest's /proc/NUMBER/status as {name: value}."""
    lines = guest.run(f"cat /proc/{number}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def memory(guest):
    """RssAnon of the uplink in KiB."""
    return int(of_process(guest, pid(guest))["RssAnon"].removesuffix(" kB"))
