#!/usr/bin/env python3
"""The promise: nothing of the owner's is replaced, nothing of others' is changed, and what the uplink can live without stops no start."""

import os
import shutil
import subprocess
import unittest
from pathlib import Path

from service import Service, is_running, mode, under_both_shells, wait_for

EMPTY = '{"event_server_url": []}\n'


class NothingIsReplaced(Service):
    def setUp(self):
        super().setUp()
        self.file = self.config / "sophon-uplink.json"
        self.spooled = self.gate / "spool/to/4fb1c0e2a9d37761/00000000000000000012.event"

    def lose(self, *kept):
        """A box whose config is gone and that has these files."""
        self.start()
        self.service("stop")
        self.file.unlink()
        for path in kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("the owner's")

    def test_a_missing_config_is_not_made_where_there_was_one(self):
        beside = {each: self.config / f"sophon-uplink.json.{each}" for each in ["bak", "bad", "new"]}
        dead = self.gate / "spool/dead/4fb1c0e2a9d37761/00000000000000000009.event"
        for path, advice in [(beside["bak"], f"cp -p {beside['bak']} {self.file}"), (beside["bad"], "put it back"), (beside["new"], "put it back"), (self.spooled, "put it back"), (dead, "put it back")]:
            with self.subTest(path):
                self.lose(path)
                self.behave("misconfigured")
                for command, code in [("start", 6), ("prepare", 0)]:
                    found, said = self.service(command)
                    self.assertEqual(found, code, said)
                    self.assertIn(f"{self.file} is missing, and nothing is made in its place", said)
                    self.assertIn(advice, said)
                self.service("stop")
                self.assertFalse(self.file.exists())
                self.assertEqual(path.read_text(), "the owner's")
                path.unlink()
                self.behave("well")

    def test_a_link_to_a_config_that_is_missing_stays(self):
        self.lose()
        self.file.symlink_to("/mnt/not-mounted-yet/config.json")
        self.assertIn("put that back", self.service("prepare")[1])
        self.assertEqual(os.readlink(self.file), "/mnt/not-mounted-yet/config.json")

    def test_an_empty_config_is_made_where_there_was_none(self):
        for folder in ["to/4fb1c0e2a9d37761", "dead", "bad"]:
            (self.gate / "spool" / folder).mkdir(parents=True)
        self.start()
        self.assertEqual(self.file.read_text(), EMPTY)

    def test_a_folder_that_holds_other_things_keeps_its_rights_and_what_is_in_it(self):
        maildir = self.gate / "spool"
        (maildir / "new").mkdir(parents=True)
        (maildir / "new/1700000000.M1.host").write_text("a letter")
        for name, others in [("cur", maildir), ("notes.txt", self.run_folder), (".profile", self.config)]:
            others.mkdir(exist_ok=True)
            (others / name).write_text("")
            others.chmod(0o755)
        self.start()
        self.assertEqual([mode(each) for each in [maildir, self.run_folder, self.config]], [0o755] * 3)
        self.assertEqual((maildir / "new/1700000000.M1.host").read_text(), "a letter")
        self.assertEqual(sorted(each.name for each in maildir.iterdir()), ["cur", "new"])

    def test_a_folder_that_a_name_leads_to_keeps_its_rights(self):
        elsewhere = Path(self.folder.name) / "elsewhere"
        for name in ["spool", "config"]:
            (elsewhere / name).mkdir(parents=True)
            (elsewhere / name).chmod(0o755)
            (self.gate / name).symlink_to(elsewhere / name)
        self.start()
        for name in ["spool", "config"]:
            self.assertEqual(mode(elsewhere / name), 0o755)
        self.assertEqual(list((elsewhere / "spool").iterdir()), [])

    @unittest.skipUnless(os.getuid() == 0, "only root can give folders away")
    def test_where_anybody_may_make_folders_anothers_is_not_used(self):
        self.run_folder.mkdir()
        os.chown(self.run_folder, 65528, 65528)
        # Whose words are the uplink's: anybody can choose his own.
        victim = subprocess.Popen(["sophon-uplink run ", "600"], executable=shutil.which("sleep"))
        self.addCleanup(victim.wait)
        self.addCleanup(victim.kill)
        start = Path(f"/proc/{victim.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        for name in ["supervisor", "uplink"]:
            (self.run_folder / name).write_text(f"{victim.pid} {start}\n")
        self.assertEqual(self.service("status")[0], 3)
        self.assertEqual(self.service("start")[0], 0)
        self.assertEqual(self.service("status")[0], 0)
        self.assertEqual(self.service("stop")[0], 0)
        self.assertTrue(is_running(victim.pid))
        self.assertEqual(sorted(each.name for each in self.run_folder.iterdir()), ["supervisor", "uplink"])


class NoStartIsRefused(Service):
    def test_a_spool_that_cannot_be_made_is_said_and_stops_no_start(self):
        (self.gate / "spool").write_text("a file")
        code, said = self.service("start")
        self.assertEqual(code, 0, said)
        self.assertIn("events are delivered, and cannot be kept while a server is down", said)

    def test_a_folder_for_its_own_files_that_cannot_be_written_is_replaced_by_another(self):
        self.run_folder.write_text("a file")
        code, said = self.service("start")
        self.assertEqual(code, 0, said)
        self.assertEqual(self.service("status")[0], 0)
        self.assertIn("already", self.service("start")[1])
        wait_for("the one uplink", lambda: len(self.running()) == 1)
        self.assertEqual(self.service("stop")[0], 0)
        self.assertEqual((self.running(), self.service("status")[0]), (set(), 3))

    def test_a_folder_of_its_own_files_that_is_taken_away_is_made_again(self):
        self.start()
        pid = self.pid("uplink")
        subprocess.run(["rm", "-r", self.run_folder], check=True)
        os.kill(pid, 9)
        wait_for("another uplink", lambda: self.running() - {pid})
        wait_for("its files", lambda: self.service("status")[0] == 0)
        self.assertEqual(self.service("stop")[0], 0)
        self.assertEqual(self.running(), set())


under_both_shells(globals(), NothingIsReplaced, NoStartIsRefused)

if __name__ == "__main__":
    unittest.main()
