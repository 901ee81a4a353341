"""What every one of examples/receivers does on a full disk, and after a power cut.

    disks.py [--only TEXT]

Run by `run`. The store of an example is a small tmpfs that only its own processes see (`unshare --mount`), and strace writes down what
the example flushes. Each test says what a receiver must never do: keep parts of an event that it did not take, and acknowledge an event
that a power cut could still take away.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from driver import EXAMPLES, PEERS, TOOLS, Failure, Scene, event_with, free_port, multipart, post  # noqa: E402

SIZE = 1 << 20  # bytes of the disk
NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount", "sh", "-ec"]
MOUNT = f'mkdir -p "$STORE"; mount -t tmpfs -o size={SIZE} tmpfs "$STORE"; exec "$@"'
SMALL = event_with({"reg_pic": b"r" * 1000, "spot_pic": b"s" * 1000})
LARGE = event_with({"reg_pic": b"r" * (SIZE // 4), "spot_pic": b"s" * (2 * SIZE)})  # of which the first picture fits


def event_id(number):
    return "0123456789abcdef" * 2 + f"-{number}"


class Disk:
    """The store of a running example, seen from outside its namespace."""

    def __init__(self, scene, peer):
        scene.content_type = "json"
        self.flushed = scene.dir / "flushed"
        strace = ["strace", "-D", "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-o", self.flushed]
        scene.before = [*NAMESPACE, MOUNT, "sh", *strace]
        self.port = peer(scene)
        self.store = scene.store
        self.here = Path(f"/proc/{scene.running[-1].pid}/root{scene.store}")

    def post(self, event, number):
        return post(self.port, "json", event, event_id(number))

    def post_form(self, body, number):
        return post(self.port, "form-data", body, event_id(number))

    def entries(self):
        return sorted(entry.name for entry in self.here.iterdir())

    def free(self):
        """Bytes. A deleted file that is still open takes some."""
        state = os.statvfs(self.here)
        return state.f_bavail * state.f_frsize

    def flushes(self):
        """How often the folder of all events was flushed."""
        return len(re.findall(rf"sync\(\d+<{re.escape(str(self.store))}>", self.flushed.read_text()))


def check(condition, *what):
    if not condition:
        raise Failure(" ".join(str(one) for one in what))


def test_a_repeat_is_acknowledged_after_a_flush(disk):
    """The first try was cut off between the rename and the flush of the folder, so its event may still vanish."""
    (disk.here / event_id(1)).mkdir()
    (disk.here / event_id(1) / "event.json").write_text("{}")
    for number, what in ((1, "an event that is there"), (2, "a new event")):
        before = disk.flushes()
        status, text = disk.post(SMALL, number)
        check(status == 200 and disk.flushes() > before, what, "is answered", status, "without a flush of the folder:", text)
    check(disk.entries() == [event_id(1), event_id(2)], "the store has", disk.entries())


def test_what_does_not_fit_leaves_nothing(disk):
    before, free = disk.entries(), disk.free()
    for turn in range(3):
        status, text = disk.post(LARGE, 3)
        check(500 <= status < 600, "an event that does not fit is answered", status, text)
        check(disk.entries() == before, "an event that did not fit leaves", disk.entries())
        check(disk.free() == free, "an event that did not fit takes", free - disk.free(), "bytes, with nothing to see in the folder")
    check(disk.post(SMALL, 4)[0] == 200, "an event that fits is not taken")


def test_what_cannot_get_its_name_leaves_nothing(disk):
    (disk.here / event_id(5)).write_text("a file where the event's folder should be")
    before = disk.entries()
    status, text = disk.post(SMALL, 5)
    check(500 <= status < 600, "an event that is not stored is answered", status, text)
    check(disk.entries() == before, "an event that is not stored leaves", disk.entries())


def test_a_form_with_a_file_leaves_nothing_unless_it_is_taken(disk):
    """A box sends no files. A framework gives such a part as an object of its own, which an example may be unable to store."""
    before = disk.entries()
    form, _ = multipart({**SMALL, "ext_data": "{}", 'extra"; filename="a.txt': "text"})
    status, text = disk.post_form(form, 6)
    wanted = before + [event_id(6)] if status == 200 else before
    check(disk.entries() == wanted, "a form with a file is answered", status, text, "and the store has", disk.entries())


TESTS = [value for name, value in list(globals().items()) if name.startswith("test_")]


def php_without_settings(scene):
    """PHP without a php.ini shows its warnings, and then any answer is a 200: the example takes no event at all."""
    port = free_port()
    scene.start("php", ["php", "-n", "-S", f"127.0.0.1:{port}", EXAMPLES / "php" / "receive.php"], STORE=str(scene.dir / "store"))
    scene.wait_for_port(port, "PHP")
    status, text = post(port, "json", SMALL, event_id(1))
    check(status == 500 and b"display_errors" in text, "warnings would be shown, and an event is answered", status, text)


def run(name, test):
    """Whether it passed."""
    with Scene(None) as scene:
        try:
            test(scene)
            print(f"ok    {name}", flush=True)
            return True
        except (Failure, subprocess.SubprocessError, OSError, ValueError, KeyError) as failure:
            print(f"FAIL  {name}: {failure}", flush=True)
            for line in scene.logs():
                print(f"      {line}", flush=True)
            return False


def run_all(peer):
    def in_order(scene):
        disk = Disk(scene, peer)
        for test in TESTS:
            test(disk)

    return in_order


def missing():
    """What the tests cannot do without, or none."""
    if not shutil.which("strace"):
        return "no strace"
    command = [*NAMESPACE, MOUNT, "sh", "strace", "-qq", "-o", os.devnull, "true"]
    probe = subprocess.run(command, env={**os.environ, "STORE": "/tmp"}, capture_output=True)
    return f"no tmpfs of our own, or no strace: {probe.stderr.decode(errors='replace').strip()}" if probe.returncode else None


def main():
    parser = argparse.ArgumentParser(prog="disks.py")
    parser.add_argument("--only", default="", metavar="TEXT", help="examples whose name contains TEXT")
    arguments = parser.parse_args()
    if why := missing():
        print(f"SKIPPED  the disks of the examples: {why}")
        return 0
    failed = 0
    for name, peer in PEERS.items():
        if not name.startswith("examples/") or arguments.only not in name:
            continue
        tool = TOOLS.get(name)
        if tool and not shutil.which(tool):
            print(f"SKIPPED  {name}, disks: no {tool} here", flush=True)
            continue
        failed += not run(f"{name}, disks", run_all(peer))
        if name.endswith("/php"):
            failed += not run(f"{name} without settings", php_without_settings)
    return 1 if failed else 0


if __name__ == "__main__":
    # SIGTERM unwinds like Ctrl-C, so that no process is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
