#!/usr/bin/env python3
"""The promises of scripts/install, under busybox's shell and under dash, with no tool but busybox's.

Releases of a stand-in that is healthy or not; test_deliver.py and tests/vm install the real one.
"""

import os
import shutil
import unittest
from pathlib import Path

from releases import Installation
from service import under_both_shells


class Promises(Installation):
    def test_a_first_install_starts_and_links_what_the_box_looks_for(self):
        self.install(self.archive("1.0.0"))
        self.assertEqual(self.in_force(), "1.0.0")
        for name in ["bin/sophon-uplink", "script/event-receive-server", "init.d/S95sophon-uplink"]:
            self.assertEqual((self.gate / name).resolve(), (self.gate / "versions/1.0.0" / name).resolve())

    def test_an_upgrade_keeps_config_and_spool_and_the_release_before(self):
        self.install(self.archive("1.0.0"))
        (self.gate / "spool/kept").write_text("an event")
        before = self.config.read_bytes()
        (self.gate / "user").write_text("9:8\n")
        (self.config.parent / "checked").unlink()
        self.install(self.archive("1.1.0"))
        self.assertEqual((self.config.parent / "checked").read_text(), "--user 9:8\n" * 2, "before and after")
        self.assertEqual(self.in_force(), "1.1.0")
        self.assertEqual((self.config.read_bytes(), (self.gate / "spool/kept").read_text()), (before, "an event"))
        self.install(self.archive("1.2.0"))
        self.assertEqual((self.in_force(), self.versions()), ("1.2.0", ["1.1.0", "1.2.0"]))
        self.install("--back")
        self.assertEqual(self.in_force(), "1.1.0")

    def test_a_release_that_is_not_healthy_gives_way_to_the_one_before(self):
        self.install(self.archive("1.0.0"))
        for behaviour in ["crashing", "silent", "unwell"]:
            with self.subTest(behaviour):
                said = self.install(self.archive(f"2.0.0-{behaviour}", behaviour), code=3)
                self.assertIn("going back to 1.0.0", said)
                self.assertEqual(self.in_force(), "1.0.0")

    def test_a_first_release_that_is_not_healthy_is_code_4(self):
        self.assertIn("no release to go back to", self.install(self.archive("1.0.0", "crashing"), code=4))

    def test_a_release_whose_links_cannot_be_made_gives_way_to_the_one_before(self):
        self.install(self.archive("1.0.0"))
        shutil.rmtree(self.gate / "script")
        (self.gate / "script").write_text("a file where the folder of a link would be")
        said = self.install(self.archive("2.0.0"), code=3)
        self.assertIn("2.0.0 cannot be linked", said)
        self.assertIn("going back to 1.0.0", said)
        self.assertEqual(self.in_force(), "1.0.0")

    def test_a_first_release_whose_links_cannot_be_made_is_code_4_and_not_called_unhealthy(self):
        (self.gate / "script").write_text("a file where the folder of a link would be")
        said = self.install(self.archive("1.0.0"), code=4)
        self.assertIn("1.0.0 cannot be linked", said)
        self.assertNotIn("healthy", said)

    def test_a_switch_that_cannot_be_written_changes_nothing(self):
        self.install(self.archive("1.0.0"))
        before = self.uplink()
        for link in ["trial", "current"]:
            with self.subTest(link):
                (self.gate / link).unlink(missing_ok=True)
                shutil.copytree(self.gate / "versions/1.0.0", self.gate / link)  # a link cannot replace a folder
                said = self.install(self.archive("2.0.0"), code=1)
                self.assertIn(f"{link} cannot be written: nothing was changed", said)
                shutil.rmtree(self.gate / link)
                if link == "current":
                    (self.gate / link).symlink_to("versions/1.0.0")
                self.assertEqual((self.in_force(), self.uplink()), ("1.0.0", before))

    def test_servers_that_are_down_are_no_reason_to_go_back(self):
        self.install(self.archive("1.0.0"))
        (self.config.parent / "behaviour").write_text("unwell")
        self.service("restart")
        self.install(self.archive("1.1.0"))
        self.assertEqual(self.in_force(), "1.1.0")

    def test_a_box_that_waits_for_its_clock_or_for_random_numbers_is_no_reason_to_go_back(self):
        self.install(self.archive("1.0.0", "silent"), code=4)  # as a release before these states is, whose event loop waits
        for number, lacks in enumerate(["randomness_is_ready", "clock_is_set"]):
            self.install(self.archive(f"1.1.{number}", f"waiting {lacks}"))
            self.assertEqual(self.in_force(), f"1.1.{number}")
        self.install(self.archive("1.2.0", "waiting nothing_that_is_known"), code=3)

    def test_what_cannot_run_here_changes_nothing(self):
        self.install(self.archive("1.0.0"))
        before = self.uplink()
        cut = self.archive("cut")
        cut.write_bytes(cut.read_bytes()[:-200])
        refused = [
            ("cannot be unpacked", cut),
            ("is damaged", self.archive("damaged", damaged="bin/sophon-uplink")),
            ("cannot run here", self.archive("misconfigured", "misconfigured")),
        ]
        for reason, archive in refused:
            with self.subTest(reason):
                self.assertIn(reason, self.install(archive, code=1))
                self.assertEqual((self.in_force(), self.uplink(), self.everything()), ("1.0.0", before, ["1.0.0"]))

    def test_going_back_to_a_release_that_cannot_run_here_changes_nothing(self):
        self.install(self.archive("1.0.0"))
        self.install(self.archive("1.1.0"))
        before = self.uplink()
        (self.gate / "versions/1.0.0/behaviour").write_text("misconfigured")
        self.assertIn("cannot run here", self.install("--back", code=1))
        self.assertEqual((self.in_force(), self.uplink()), ("1.1.0", before))

    def test_a_box_that_cannot_switch_in_one_step_is_told_so(self):
        (self.tools / "mv").unlink()
        (self.tools / "mv").write_text(f'#!{self.tools}/sh\n[ "$1" != -T ] && exec busybox mv "$@"\n')
        (self.tools / "mv").chmod(0o755)
        self.assertIn("lacks: mv with -T", self.install(self.archive("1.0.0"), code=1))
        self.assertFalse((self.gate / "current").is_symlink())

    def test_the_same_version_with_other_content_never_overwrites_what_runs(self):
        self.install(self.archive("1.0.0"))
        self.install(self.archive("1.0.0"))
        self.assertEqual((self.in_force(), self.versions()), ("1.0.0", ["1.0.0"]))
        before = (self.gate / "versions/1.0.0/MANIFEST").read_bytes()
        self.install(self.archive("1.0.0", "well indeed"))
        self.assertEqual((self.in_force(), self.versions()), ("1.0.0.2", ["1.0.0", "1.0.0.2"]))
        self.assertEqual((self.gate / "versions/1.0.0/MANIFEST").read_bytes(), before)

    def test_a_server_that_never_answers_does_not_hold_up_the_judgement(self):
        self.install(self.archive("1.0.0"))
        self.install(self.archive("2.0.0", "hanging"), code=3)  # which ends at all: the server answers after an hour

    def test_over_ssh_the_archive_and_the_script_go_to_the_box(self):
        (self.tools / "ssh").write_text(f'#!{self.tools}/sh\necho "$1" >>{self.root}/hosts\nexec sh -c "$2"\n')
        (self.tools / "ssh").chmod(0o755)
        self.install("--host", "root@box", self.archive("1.0.0"))
        self.assertEqual(self.in_force(), "1.0.0")
        self.assertEqual((self.root / "hosts").read_text(), "root@box\n" * 2)
        self.assertFalse((self.gate / "versions/.upload").exists())
        self.install("--host", "root@box", self.archive("2.0.0", "crashing"), code=3)

    def test_wrong_usage_is_code_2(self):
        for arguments in [[], ["--sideways"], ["one", "two"], ["--host", "box"]]:
            self.install(*arguments, code=2)


under_both_shells(globals(), Promises)

if __name__ == "__main__":
    unittest.main()
