"""Boxes: each is an uplink with a ring, a spool and a token of its own. A few recognizers publish into all rings in turn: a thousand
recognizers would show nothing more."""

import json
import secrets
import signal
import subprocess
import tempfile
from pathlib import Path

from scene import FIXTURES, PATIENCE, check

OF_ONE_RECOGNIZER = 200  # rings; a process can map 256
RING_BYTES = 1 << 20  # half of it is the largest event: two pictures of 200 KB
# How often each photograph is among a hundred: mostly the small ones, so that the events of a whole campaign have room on a disk.
SMALL = {"astronaut-8k.jpg": 80, "chelsea-reg-15k.jpg": 11, "cameraman-reg-30k.jpg": 4, "chelsea-spot-50k.jpg": 3,
         "cameraman-spot-100k.jpg": 1, "astronaut-spot-200k.jpg": 1}
EVEN = {name: 1 for name in (*SMALL, "astronaut-reg-60k.jpg", "coffee-120k.jpg")}


class Boxes:
    """`count` boxes, not started yet."""

    def __init__(self, scene, count):
        self.scene = scene
        self.names = [f"box-{number:04}" for number in range(1, count + 1)]
        self.tokens = {name: secrets.token_hex(16) for name in self.names}
        self.running = {}  # by name
        self.allowed = scene.dir / "boxes"
        self.allowed.touch(mode=0o600)
        self.allowed.write_text("".join(f"{name} {token}\n" for name, token in self.tokens.items()))
        self.recognizers = []
        self.published = []  # files, one of each recognizer

    def ring(self, name):
        return self.scene.ring_dir / f"{name}.ring"

    def start_all(self, url):
        """Starts them all; they send to this URL of a gateway or of a load balancer."""
        for name in self.names:
            folder = self.scene.dir / name
            folder.mkdir()
            config = {"rings": [str(self.ring(name))], "event_server_url": [f"{url}/RealTimeEvent"]}
            config |= {"spool": {"dir": str(folder / "spool")}, "tls": {"ca_file": str(self.scene.dir / "ca.crt")}}
            config |= {"headers": {"Authorization": f"Bearer {self.tokens[name]}"}}
            config |= {"api": {"listen": "127.0.0.1:0", "token_file": str(folder / "api.token")}}
            (folder / "uplink.json").write_text(json.dumps(config))
            self.start(name)

    def start(self, name):
        config = self.scene.dir / name / "uplink.json"
        command = [self.scene.programs / "sophon-uplink", "run", "--config", config]
        self.running[name] = self.scene.start(f"{name}/uplink", command)

    def kill(self, name):
        self.scene.kill(self.running.pop(name))

    def publish(self, events, rate, pictures, seed):
        """Publishes so many events, `rate` a second over all boxes (None: as fast as the rings have room)."""
        folder = Path(tempfile.mkdtemp(prefix="pictures.", dir=self.scene.dir))
        for name, often in pictures.items():
            for turn in range(often):
                (folder / f"{turn:03}-{name}").symlink_to(FIXTURES / name)
        groups = [self.names[first:first + OF_ONE_RECOGNIZER] for first in range(0, len(self.names), OF_ONE_RECOGNIZER)]
        for number, names in enumerate(groups):
            left = events * sum(map(len, groups[:number])) // len(self.names)
            count = events * sum(map(len, groups[:number + 1])) // len(self.names) - left
            self.recognize(number, names, count, rate and rate * len(names) / len(self.names), folder, seed + number)

    def recognize(self, number, names, count, rate, folder, seed):
        command = [self.scene.programs / "fake-recognizer", "--pictures", folder, "--marked", "--count", count, "--seed", seed]
        command += [*(["--rate", rate] if rate else []), "--capacity", RING_BYTES]
        command += [word for name in names for word in ("--ring", self.ring(name))]
        self.published.append(self.scene.dir / f"published-{len(self.published)}.jsonl")
        process = self.scene.start(f"recognizer-{number}", command, output=self.published[-1])
        self.scene.running.remove(process)  # it ends by itself: `is_publishing`
        self.scene.ending.append(process)
        self.recognizers.append(process)

    def is_publishing(self):
        codes = [process.poll() for process in self.recognizers]
        check(set(codes) <= {None, 0}, "recognizers ended with exit codes", codes)
        return None in codes

    def stop_all(self):
        """SIGTERM to all of them, which end by themselves, having nothing left to send."""
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for name, process in self.running.items():
            try:
                code = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                code = "none: it goes on"
            check(code == 0, f"the uplink of {name} was told to end, and its exit code is", code)
            self.scene.running.remove(process)
        self.running.clear()
