#!/usr/bin/env python3
"""The promise: an installation that is refused, ended, killed, cut off or not alone leaves a release that was judged, and nothing else."""

import os
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from releases import SCRIPTS, Installation
from service import under_both_shells, wait_for


class Interrupted(Installation):
    def begin_install(self, archive):
        """An installer that waits for the health of a release that is silent, and whose uplink runs in place of the one before."""
        before = self.uplink()
        self.environment["SOPHON_HEALTH_SECONDS"] = "120"
        command = [*self.shell, SCRIPTS / "install", archive]
        installer = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.addCleanup(installer.stdout.close)
        self.addCleanup(lambda: installer.poll() is None and os.killpg(installer.pid, signal.SIGKILL))
        # The link is there before the uplink of the release before it is stopped.
        wait_for("the trial", lambda: (self.gate / "trial").is_symlink() and self.uplink_now() not in (None, before) and self.service("status")[0] == 0)
        return installer

    def test_a_second_installation_at_the_same_time_changes_nothing(self):
        self.install(self.archive("1.0.0"))
        first = self.begin_install(self.archive("2.0.0", "silent"))
        before = self.everything(), os.readlink(self.gate / "trial"), self.uplink()
        for arguments in [[self.archive("3.0.0")], ["--back"]]:
            self.assertIn("another installation is running", self.install(*arguments, code=1))
            self.assertEqual((self.everything(), os.readlink(self.gate / "trial"), self.uplink()), before)
        first.terminate()
        self.assertEqual(first.wait(60), 3)

    def test_an_installation_that_is_ended_during_the_trial_goes_back_and_leaves_nothing(self):
        self.install(self.archive("1.0.0"))
        first = self.begin_install(self.archive("2.0.0", "silent"))
        first.terminate()
        self.assertEqual(first.wait(60), 3)
        self.assertEqual((self.in_force(), self.everything()), ("1.0.0", ["1.0.0", "2.0.0"]))

    def test_a_way_back_that_cannot_be_written_is_said_and_left_to_the_next_boot(self):
        self.install(self.archive("1.0.0"))
        installer = self.begin_install(self.archive("2.0.0", "silent"))
        trial, current = os.readlink(self.gate / "trial"), self.gate / "current"
        current.unlink()
        shutil.copytree(self.gate / "versions/2.0.0", current)  # a link cannot replace a folder
        # By the time of the judgement the release would be healthy: its health must not be taken for that of the one before.
        (self.config.parent / "behaviour").write_text("well")
        installer.terminate()
        said = installer.communicate(timeout=120)[0]
        self.assertEqual(installer.returncode, 4, said)
        self.assertIn("2.0.0 was not judged", said)
        self.assertIn("current cannot be written", said)
        self.assertNotIn("in force again", said)
        self.assertEqual(os.readlink(self.gate / "trial"), trial)

    def test_after_an_installation_that_was_killed_the_next_one_goes_on_from_the_release_that_was_judged(self):
        for arguments, release in [([self.archive("3.0.0", "crashing")], "1.0.0"), (["--back"], "1.0.0"), ([self.archive("4.0.0")], "4.0.0")]:
            with self.subTest(arguments):
                shutil.rmtree(self.gate / "versions", ignore_errors=True)
                self.install(self.archive("1.0.0"))
                first = self.begin_install(self.archive("2.0.0", "silent"))
                os.killpg(first.pid, signal.SIGKILL)
                first.wait()
                (self.gate / "versions/.incoming/half").mkdir(parents=True)
                self.install(*arguments, code=3 if "3.0.0" in str(arguments) else 0)
                self.assertEqual(self.in_force(), release)
                self.assertEqual([name for name in self.everything() if name.startswith(".")], [])

    def test_what_a_killed_installation_left_a_start_takes_away(self):
        self.install(self.archive("1.0.0"))
        (self.gate / "versions/.incoming/half").mkdir(parents=True)
        (self.gate / "versions/.lock").symlink_to("1.1.another-boot")
        self.service("restart")
        self.assertEqual(self.everything(), ["1.0.0"])

    def test_a_box_whose_config_is_missing_although_there_was_one_changes_nothing(self):
        for name in ["sophon-uplink.json.bak", "../spool/to/4fb1c0e2a9d37761/00000000000000000012.event"]:
            kept = self.config.parent / name
            kept.parent.mkdir(parents=True, exist_ok=True)
            if self.config.exists():
                self.config.rename(kept)
            else:
                kept.write_text("an event")
            said = self.install(self.archive("1.0.0"), code=1)
            self.assertIn("put it back first", said)
            self.assertEqual((self.config.exists(), self.everything()), (False, []))
            kept.unlink()
        self.install(self.archive("1.0.0"), code=4)  # nobody listens where the first config says
        self.assertTrue(self.config.exists(), "a box that never had one gets an empty one")

    def test_an_upgrade_that_another_boot_interrupted_is_undone_at_the_start(self):
        self.install(self.archive("1.0.0"))
        self.install(self.archive("1.1.0"))
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        for trial_boot, release in [(boot, "1.1.0"), ("another", "1.0.0")]:
            with self.subTest(trial_boot):
                (self.gate / "trial").unlink(missing_ok=True)
                (self.gate / "trial").symlink_to(f"versions/1.0.0#{trial_boot}")
                self.service("restart")
                self.assertEqual(os.readlink(self.gate / "current"), f"versions/{release}")
                self.assertEqual((self.gate / "trial").is_symlink(), trial_boot == boot)

    def test_over_ssh_there_are_no_other_codes_than_the_table_has(self):
        ssh = self.tools / "ssh"
        for first, second, code, reason in [(255, 0, 1, "did not come"), (1, 0, 1, "did not come"), (0, 255, 5, "connection"), (0, 130, 5, "connection")]:
            with self.subTest((first, second)):
                (self.root / "calls").write_text("")
                ssh.write_text(f'#!{self.tools}/sh\necho >>{self.root}/calls\ncat >/dev/null\n[ $(wc -l <{self.root}/calls) = 1 ] && exit {first}\nexit {second}\n')
                ssh.chmod(0o755)
                self.assertIn(reason, self.install("--host", "root@box", self.archive("1.0.0"), code=code))
        ssh.unlink()
        self.install("--host", "root@box", self.archive("1.0.0"), code=1)
        self.install("--host", "root@box", self.root / "no-such-file", code=1)

    def test_over_ssh_half_an_archive_is_not_installed_and_not_kept(self):
        ssh = self.tools / "ssh"
        ssh.write_text(f'#!{self.tools}/sh\nhead -c 100 | sh -c "$2"\n')
        ssh.chmod(0o755)
        self.install("--host", "root@box", self.archive("1.0.0"), code=1)
        self.assertEqual(self.everything(), [])


under_both_shells(globals(), Interrupted)

if __name__ == "__main__":
    unittest.main()
