"""What the tests of scripts/S95sophon-uplink share: a box's folders, no tool but busybox's, and the script under one of two shells."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parent.parent / "scripts/S95sophon-uplink"
# Where the real programs are.
PROGRAMS = Path(os.environ.get("SOPHON_PROGRAMS", HERE.parent.parent / "target/debug"))


def wait_for(what, condition, timeout=60):
    """Waits until the condition gives something true, and returns that."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it never came to this: {what}")
        time.sleep(0.02)
    return value


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def processes():
    """(pid, words of the command) of each process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield int(folder.name), (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            pass  # it has ended meanwhile


def under_both_shells(module, *promises):
    """Makes the classes of tests that the module runs: each of `promises` under each shell."""
    for shell, command in [("Busybox", [shutil.which("busybox"), "sh"]), ("Dash", [shutil.which("dash")])]:
        for each in promises:
            name = f"{each.__name__}Under{shell}"
            module[name] = type(name, (each, unittest.TestCase), {"shell": command, "__module__": module["__name__"]})


class Service:
    """A box whose uplink is a stand-in; a subclass is made of it for each shell."""

    shell = []

    def program(self, path):
        """Puts the uplink there."""
        path.write_text((HERE / "fake-uplink.py").read_text().replace("PYTHON", sys.executable, 1))
        path.chmod(0o755)

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        root = Path(self.folder.name)
        self.gate, self.run_folder, self.config = root / "gate", root / "run", root / "gate/config"
        (self.gate / "bin").mkdir(parents=True)
        self.program(self.gate / "bin/sophon-uplink")
        tools = root / "tools"
        tools.mkdir()
        subprocess.run(["busybox", "--install", "-s", tools], check=True)
        self.environment = {"PATH": str(tools), "SOPHON_GATE": str(self.gate), "SOPHON_RUN": str(self.run_folder)}
        # Where the script keeps its files if the test takes the run folder away.
        other = Path("/dev/shm") / f"sophon-uplink{self.gate}".replace("/", "_")
        self.addCleanup(shutil.rmtree, other, ignore_errors=True)
        self.addCleanup(self.service, "stop")

    def begin(self, command, **environment):
        return subprocess.Popen(
            [*self.shell, SCRIPT, command], env=self.environment | environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def service(self, command, **environment):
        """(exit code, what it said)"""
        process = self.begin(command, **environment)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def start(self, **environment):
        code, said = self.service("start", **environment)
        self.assertEqual(code, 0, said)
        return self.pid("uplink")

    def pid(self, name):
        return int((self.run_folder / name).read_text().split()[0])

    def kill(self, name):
        """Ends it, and waits for its end: the signal is only sent when kill(2) returns."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        wait_for(f"the end of the {name}", lambda: not is_running(pid))

    def behave(self, words):
        self.config.mkdir(exist_ok=True)
        (self.config / "behaviour").write_text(words)

    def runs(self):
        """(pid, time) of each run of the uplink."""
        try:
            lines = (self.config / "runs").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(int(pid), float(began)) for pid, began in (line.split() for line in lines)]

    def running(self):
        """The pids of the uplinks that run, seen from outside."""
        program = str(self.gate / "bin/sophon-uplink").encode()
        return {pid for pid, words in processes() if program in words and b"run" in words}

    def log(self):
        try:
            return (self.run_folder / "log").read_text()
        except FileNotFoundError:
            return ""  # just being turned over
