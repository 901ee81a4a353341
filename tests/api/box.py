"""A running uplink with a folder and a ring of its own, for tests that look at it from outside."""
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


class Box:
    """A running uplink with a folder and a ring of its own."""

    def __init__(self, programs, config=None, listen="127.0.0.1:0", environment=None):
        self.programs = Path(programs)
        self.folder = Path(tempfile.mkdtemp(prefix="sophon-page.", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.config = self.folder / "uplink.json"
        self.ring = self.folder / "events"
        self.config.write_text(json.dumps({
            "rings": [str(self.ring)], "event_server_url": [], "api": {"listen": listen, "token_file": "api.token"},
            "spool": {"dir": "spool", "min_free_bytes": 0}, **(config or {})}))
        self.log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen([self.programs / "sophon-uplink", "run", "--config", self.config], stderr=self.log,
                                        env={**os.environ, **(environment or {})})
        port = self.wait(lambda: re.search(r"the API listens on http://[^/]*:(\d+)/", self.said()), "the API listens").group(1)
        self.url = f"http://127.0.0.1:{port}"

    def said(self):
        return (self.folder / "log").read_text()

    def wait(self, condition, what, limit=60):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            assert self.process.poll() is None, f"the uplink ended: {self.said()}"
            time.sleep(0.02)
        raise AssertionError(f"waited in vain until {what}: {self.said()}")

    def publish(self, count, rate=50, pictures=None):
        """Events with photographs, as a recognizer would."""
        fixtures = pictures or Path(__file__).parents[1] / "fixtures"
        subprocess.run(
            [self.programs / "fake-recognizer", "--ring", self.ring, "--pictures", fixtures, "--rate", str(rate), "--count", str(count), "--seed", "7"],
            stdout=subprocess.DEVNULL, check=True)

    def stop(self):
        self.process.terminate()
        code = self.process.wait(10)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert code == 0, f"SIGTERM is a clean end, not {code}"
