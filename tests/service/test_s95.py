#!/usr/bin/env python3
"""The promises of scripts/S95sophon-uplink, under busybox's shell and under dash, with no tool but busybox's.

    test_s95.py                 every test in both shells
"""

import os
import re
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


def wait_for(what, condition, timeout=10):
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


class Promises:
    """The tests; a subclass names the shell."""

    shell = []

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        root = Path(self.folder.name)
        self.gate, self.run_folder, self.config = root / "gate", root / "run", root / "gate/config"
        (self.gate / "bin").mkdir(parents=True)
        fake = (HERE / "fake-uplink.py").read_text().replace("PYTHON", sys.executable, 1)
        (self.gate / "bin/sophon-uplink").write_text(fake)
        (self.gate / "bin/sophon-uplink").chmod(0o755)
        tools = root / "tools"
        tools.mkdir()
        subprocess.run(["busybox", "--install", "-s", tools], check=True)
        self.environment = {"PATH": str(tools), "SOPHON_GATE": str(self.gate), "SOPHON_RUN": str(self.run_folder)}
        self.addCleanup(self.service, "stop")

    def begin(self, command, **environment):
        return subprocess.Popen(
            [*self.shell, SCRIPT, command], env=self.environment | environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def service(self, command, **environment):
        """(exit code, what it said)"""
        process = self.begin(command, **environment)
        said, _ = process.communicate(timeout=30)
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

    def test_the_first_start_makes_folders_config_and_token_for_root_alone(self):
        self.start()
        for folder in [self.config, self.gate / "spool", self.run_folder]:
            self.assertEqual(mode(folder), 0o700, folder)
        for file in ["sophon-uplink.json", "api.token"]:
            self.assertEqual(mode(self.config / file), 0o600, file)
        self.assertRegex((self.config / "api.token").read_text(), r"^[0-9a-f]{32}\n?$")
        wait_for("what the uplink itself writes", self.runs)
        self.assertEqual(mode(self.config / "runs"), 0o600)

    def test_a_later_start_keeps_config_and_token_and_mends_their_modes(self):
        self.start()
        token, config = self.config / "api.token", self.config / "sophon-uplink.json"
        config.write_text('{"event_server_url": ["http://a/"]}')
        before = token.read_text(), config.read_text()
        token.chmod(0o644)
        for folder in [self.config, self.gate / "spool"]:
            folder.chmod(0o755)
        self.service("restart")
        self.assertEqual((token.read_text(), config.read_text()), before)
        self.assertEqual([mode(each) for each in [token, self.config, self.gate / "spool"]], [0o600, 0o700, 0o700])

    def test_the_uplink_is_told_to_become_the_user_that_root_names(self):
        for file, words in [(None, [b"--user", b"65528"]), ("9:8\n", [b"--user", b"9:8"]), ("root", []), ("\n", [b"--user", b"65528"]), ("", [b"--user", b"65528"])]:
            if file is not None:
                (self.gate / "user").write_text(file)
            self.service("restart")
            command = Path(f"/proc/{self.pid('uplink')}/cmdline").read_bytes().split(b"\0")
            told = command[command.index(b"run") + 1 : command.index(b"--config")]
            self.assertEqual(told, words)
            self.assertEqual((self.config / "checked").read_text().splitlines()[-1].split(), [word.decode() for word in words])

    @unittest.skipUnless(os.getuid() == 0, "only root can give folders away")
    def test_in_a_spool_of_the_uplinks_user_root_makes_nothing(self):
        self.start()
        spool = self.gate / "spool"
        self.assertTrue((spool / "new").is_dir())
        (spool / "new").rmdir()
        os.chown(spool, 65528, 65528)
        self.gate.chmod(0o700)
        self.service("restart")
        self.assertEqual(list(spool.iterdir()), [])
        self.assertEqual(mode(self.gate) & 0o111, 0o111, "the user comes through")

    @unittest.skipUnless(os.getuid() == 0, "only root can give folders away")
    def test_in_a_folder_of_the_uplinks_user_root_follows_no_name(self):
        self.start()
        secret = Path(self.folder.name) / "secret"
        secret.write_text("as it was")
        secret.chmod(0o644)
        os.chown(self.config, 65528, 65528)
        for name in ["sophon-uplink.json", "api.token"]:
            (self.config / name).unlink()
        (self.config / "sophon-uplink.json").symlink_to(secret)
        (self.config / "api.token").symlink_to(Path(self.folder.name) / "nowhere")
        self.service("restart")
        self.assertEqual((secret.read_text(), mode(secret)), ("as it was", 0o644))
        self.assertFalse((Path(self.folder.name) / "nowhere").exists())
        token = self.config / "api.token"
        self.assertEqual((token.is_symlink(), mode(token)), (False, 0o600))

    def test_start_status_and_stop_have_the_codes_of_the_lsb(self):
        self.assertEqual(self.service("status")[0], 3)
        pid = self.start()
        code, said = self.service("status")
        self.assertEqual((code, str(pid) in said), (0, True))
        self.assertEqual(self.service("stop")[0], 0)
        self.assertFalse(is_running(pid))
        self.assertEqual(self.service("status")[0], 3)
        self.assertEqual(self.service("stop")[0], 0)
        self.assertEqual(self.service("reverse")[0], 2)

    def test_a_program_that_is_not_there_is_code_5(self):
        (self.gate / "bin/sophon-uplink").unlink()
        self.assertEqual(self.service("start")[0], 5)

    def test_folders_that_cannot_be_made_are_code_4(self):
        (self.gate / "spool").write_text("a file")
        self.assertEqual(self.service("start")[0], 4)

    def test_a_config_with_faults_is_code_6_and_tried_again(self):
        self.behave("misconfigured")
        self.assertEqual(self.service("start")[0], 6)
        self.assertEqual(self.service("status")[0], 0)

    def test_a_second_start_starts_nothing(self):
        pid = self.start()
        self.assertIn("already", self.service("start")[1])
        wait_for("the one uplink", lambda: self.running() == {pid})

    def test_starts_at_the_same_moment_start_one(self):
        self.run_folder.mkdir()
        (self.run_folder / "supervisor").write_text("1 1\n")  # stale: all of them will want to take it away
        starts = [self.begin("start") for _ in range(8)]
        for start in starts:
            said, _ = start.communicate(timeout=30)
            self.assertEqual(start.returncode, 0, said)
        wait_for("the one uplink", lambda: self.running() == {self.pid("uplink")})

    def test_a_stale_file_with_the_pid_of_another_process_harms_nobody(self):
        with subprocess.Popen(["sleep", "60"]) as other:
            self.run_folder.mkdir()
            for name in ["supervisor", "uplink"]:
                (self.run_folder / name).write_text(f"{other.pid} 1\n")
            self.assertEqual(self.service("status")[0], 1)
            self.start()
            self.assertEqual(self.service("stop")[0], 0)
            self.assertTrue(is_running(other.pid))
            other.kill()

    def test_an_uplink_that_was_killed_is_started_again_at_once_and_with_a_word(self):
        pid = self.start()
        os.kill(pid, signal.SIGKILL)
        wait_for("another uplink", lambda: self.running() - {pid}, timeout=2)
        self.assertRegex(self.log(), r"ended with code 137 after \d+ s; again in 0 s")
        wait_for("its file", lambda: self.service("status")[0] == 0)

    def test_one_that_always_crashes_is_tried_ever_more_slowly_for_ever(self):
        self.behave("crashing")
        self.service("start")
        wait_for("a fifth run", lambda: len(self.runs()) >= 5, timeout=20)
        times = [began for _, began in self.runs()]
        pauses = [after - before for before, after in zip(times, times[1:])]
        for pause, least in zip(pauses, [0, 1, 2, 4]):
            self.assertTrue(least <= pause < least + 1, pauses)
        self.assertIn("a last word before the crash", self.log())
        self.assertIn("again in 8 s", wait_for("the announcement", lambda: "in 8 s" in self.log() and self.log()))

    def test_a_stop_during_the_pause_does_not_wait_for_it(self):
        self.behave("crashing")
        self.service("start")
        wait_for("a pause of 4 s", lambda: "again in 4 s" in self.log(), timeout=20)
        self.assertEqual(self.service("status")[0], 1)
        began = time.monotonic()
        self.assertEqual(self.service("stop")[0], 0)
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(self.service("status")[0], 3)

    def test_one_that_ignores_sigterm_is_killed_after_its_two_seconds(self):
        self.behave("stubborn")
        pid = self.start()
        wait_for("its deafness", self.runs)
        began = time.monotonic()
        self.assertEqual(self.service("stop")[0], 0)
        self.assertTrue(2 <= time.monotonic() - began < 6, time.monotonic() - began)
        self.assertFalse(is_running(pid))

    def test_an_uplink_without_its_supervisor_is_noticed_ended_and_replaced(self):
        pid = self.start()
        wait_for("the run", lambda: pid in self.running())
        self.kill("supervisor")
        code, said = self.service("status")
        self.assertEqual((code, "nobody" in said), (1, True))
        self.start()
        wait_for("one uplink", lambda: self.running() == {self.pid("uplink")})
        self.assertFalse(is_running(pid))
        self.kill("supervisor")
        self.assertEqual(self.service("stop")[0], 0)
        self.assertEqual(self.running(), set())

    def test_the_log_file_is_bounded_and_ends_with_the_last_line(self):
        self.behave("chatty 3000")
        self.start(SOPHON_LOG_LIMIT="8192")
        wait_for("the last line", lambda: "line 2999\n" in self.log())
        sizes = [(self.run_folder / name).stat().st_size for name in ["log", "log.old"]]
        self.assertTrue(max(sizes) <= 8192, sizes)
        numbers = [int(number) for number in re.findall(r"line (\d+)", (self.run_folder / "log.old").read_text() + self.log())]
        self.assertEqual(numbers, list(range(numbers[0], 3000)))

    def test_a_login_that_ends_does_not_end_the_uplink(self):
        pid = self.start()
        os.kill(self.pid("supervisor"), signal.SIGHUP)
        os.kill(pid, signal.SIGKILL)
        wait_for("another uplink", lambda: self.running() - {pid}, timeout=2)


class UnderBusybox(Promises, unittest.TestCase):
    shell = [shutil.which("busybox"), "sh"]


class UnderDash(Promises, unittest.TestCase):
    shell = [shutil.which("dash")]


if __name__ == "__main__":
    unittest.main()
