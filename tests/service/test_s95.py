#!/usr/bin/env python3
"""The promises of scripts/S95sophon-uplink, under busybox's shell and under dash, with no tool but busybox's.

    test_s95.py                 every test in both shells
"""

import os
import re
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

from service import Service, is_running, mode, processes, under_both_shells, wait_for


class Promises(Service):
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
        (self.gate / "spool/reasons").write_text("")
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

    def test_a_config_with_faults_is_code_6_and_tried_again(self):
        self.behave("misconfigured")
        self.assertEqual(self.service("start")[0], 6)
        wait_for("that it is tried", lambda: self.service("status")[0] == 0)

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

    def test_a_file_that_names_no_process_of_these_counts_as_none(self):
        self.run_folder.mkdir()
        with subprocess.Popen(["sleep", "600"]) as other:
            start = Path(f"/proc/{other.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
            for text in ["\n", "", " \n", "no number\n", "1\n", "-1 1\n", "self\n", "../1 1\n", "\0\0\n", f"{other.pid} {start}\n"]:
                with self.subTest(text):
                    for name in ["supervisor", "uplink"]:
                        (self.run_folder / name).write_text(text)
                    self.assertEqual(self.service("status")[0], 1, "dead, and was not stopped")
                    self.assertEqual(self.service("reload")[0], 7)
                    self.start()
                    self.assertEqual(self.service("stop")[0], 0)
                    self.assertTrue(is_running(other.pid))
            other.kill()

    def test_a_name_that_is_no_user_here_does_not_keep_it_from_starting(self):
        self.start()
        for name, words in [("no-such-user\n", b"65528"), ("nobody:no-such-group", b"65528"), ("a b", b"65528"), ("9:8\r\n", b"65528")]:
            (self.gate / "user").write_text(name)
            said = self.service("restart")[1]
            self.assertIn(f"{name.split()[0]}", said)
            self.assertIn("the uplink becomes 65528", said)
            command = wait_for("the uplink", lambda: Path(f"/proc/{self.pid('uplink')}/cmdline").read_bytes().split(b"\0"))
            self.assertEqual(command[command.index(b"--user") + 1], words)
            wait_for("a word of it", lambda: "is no user here" in self.log())
        (self.gate / "user").write_text("nobody")
        self.assertNotIn("no user", self.service("restart")[1])

    def test_an_uplink_that_was_killed_is_started_again_at_once_and_with_a_word(self):
        pid = self.start()
        os.kill(pid, signal.SIGKILL)
        wait_for("another uplink", lambda: self.running() - {pid})
        self.assertRegex(self.log(), r"ended with code 137 after \d+ s; again in 0 s")
        wait_for("its file", lambda: self.service("status")[0] == 0)

    def test_one_that_always_crashes_is_tried_ever_more_slowly_for_ever(self):
        self.behave("crashing")
        self.service("start")
        wait_for("a fifth run", lambda: len(self.runs()) >= 5)
        times = [began for _, began in self.runs()]
        pauses = [after - before for before, after in zip(times, times[1:])]
        for pause, least in zip(pauses, [0, 1, 2, 4]):
            self.assertGreaterEqual(pause, least, pauses)
        self.assertIn("a last word before the crash", self.log())
        wait_for("the announcement", lambda: "in 8 s" in self.log())
        self.assertEqual(re.findall(r"again in (\d+) s", self.log())[:5], ["0", "1", "2", "4", "8"])

    def test_a_stop_during_the_pause_does_not_wait_for_it(self):
        self.behave("crashing")
        busybox, endless = shutil.which("busybox"), f"36{os.getpid()}"
        sleep = Path(self.environment["PATH"]) / "sleep"
        sleep.unlink()
        sleep.write_text(f'#!{busybox} sh\n[ "$1" != 2 ] || set {endless}\nexec {busybox} sleep "$1"\n')
        sleep.chmod(0o755)
        self.service("start")
        pauses = lambda: {pid for pid, words in processes() if endless.encode() in words}  # noqa: E731
        wait_for("a pause without an end", pauses)
        self.assertEqual(self.service("status")[0], 1)
        self.assertEqual(self.service("stop")[0], 0)
        # A supervisor that had to be killed would have left it behind.
        wait_for("the end of the pause", lambda: not pauses())
        self.assertEqual(self.service("status")[0], 3)

    def test_one_that_ignores_sigterm_is_killed_after_its_two_seconds(self):
        self.behave("stubborn")
        pid = self.start()
        wait_for("its deafness", self.runs)
        began = time.monotonic()
        self.assertEqual(self.service("stop")[0], 0)
        self.assertGreaterEqual(time.monotonic() - began, 2, "it has its time")
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
        wait_for("another uplink", lambda: self.running() - {pid})


under_both_shells(globals(), Promises)

if __name__ == "__main__":
    unittest.main()
