#!/usr/bin/env python3
"""The promise: where systemd has the unit, scripts/S95sophon-uplink passes its commands on and starts nothing itself.

The `systemctl` of these tests is a stand-in: systemd itself takes a machine that it has booted. The stand-in says what the test
sets, and notes what it is asked to do. That the unit itself is correct, `unit` asks systemd-analyze.
"""

import unittest
from pathlib import Path

from service import Service, is_running, under_both_shells

# As systemctl answers: is-active prints the state, and is true only while the unit is up.
SYSTEMCTL = """#!{tools}/sh
echo "$*" >>{folder}/asked
state=$(cat {folder}/state)
case $1 in
cat) exit "$(cat {folder}/unit)" ;;
is-active)
    [ "$2" = -q ] || echo "$state"
    case $state in active | reloading) exit 0 ;; *) exit 3 ;; esac
    ;;
*) exit "$(cat {folder}/result)" ;;
esac
"""


class UnderSystemd(Service):
    def setUp(self):
        super().setUp()
        self.root = Path(self.folder.name)
        tools = Path(self.environment["PATH"])
        (tools / "systemctl").write_text(SYSTEMCTL.format(tools=tools, folder=self.root))
        (tools / "systemctl").chmod(0o755)
        (self.root / "systemd").mkdir()
        self.config.mkdir(mode=0o700)  # `prepare`, which the unit runs, has made it
        self.environment["SOPHON_SYSTEMD"] = str(self.root / "systemd")
        self.answer()

    def answer(self, state="active", unit=0, result=0):
        """What systemctl says of the unit's state, and its exit codes: of `cat`, and of a command."""
        for name, value in [("state", state), ("unit", unit), ("result", result)]:
            (self.root / name).write_text(str(value))
        (self.root / "asked").write_text("")

    def changes(self):
        """What systemctl was asked to do, without what it was only asked."""
        asked = (self.root / "asked").read_text().splitlines()
        return [line for line in asked if line.split()[0] not in ("cat", "is-active")]

    def assert_nothing_started(self):
        self.assertEqual((self.running(), self.run_folder.exists(), self.runs()), (set(), False, []))

    def test_each_command_is_passed_on_and_starts_nothing_else(self):
        for command in ["start", "restart", "reload", "force-reload", "stop"]:
            with self.subTest(command):
                self.answer()
                code, said = self.service(command)
                self.assertEqual(code, 0, said)
                self.assertEqual(self.changes(), [f"{command.removeprefix('force-')} sophon-uplink"])
                self.assert_nothing_started()

    def test_status_has_the_codes_of_the_lsb(self):
        for state, expected in [("active", 0), ("reloading", 0), ("inactive", 3), ("failed", 1), ("activating", 1), ("deactivating", 1)]:
            with self.subTest(state):
                self.answer(state)
                code, said = self.service("status")
                self.assertEqual((code, state in said, self.changes()), (expected, True, []))

    def test_what_systemd_cannot_do_is_code_1(self):
        for command in ["start", "restart", "reload", "stop"]:
            with self.subTest(command):
                self.answer(result=4)
                self.assertEqual(self.service(command)[0], 1)

    def test_a_reload_of_a_unit_that_is_not_up_is_code_7(self):
        for state in ["inactive", "failed", "activating"]:
            with self.subTest(state):
                self.answer(state)
                self.assertEqual((self.service("reload")[0], self.changes()), (7, []))

    def test_a_config_with_faults_is_code_6_and_is_not_read_again(self):
        self.behave("misconfigured")
        for command, changes in [("start", ["start sophon-uplink"]), ("restart", ["restart sophon-uplink"]), ("reload", [])]:
            with self.subTest(command):
                self.answer()
                self.assertEqual((self.service(command)[0], self.changes()), (6, changes))

    def test_a_program_that_is_not_there_is_code_5(self):
        (self.gate / "bin/sophon-uplink").unlink()
        for command in ["start", "restart"]:
            with self.subTest(command):
                self.assertEqual((self.service(command)[0], self.changes()), (5, []))

    def test_without_the_unit_or_without_systemd_it_works_by_itself(self):
        for unit, folder in [(1, "systemd"), (0, "no-such-folder")]:
            with self.subTest(folder):
                self.answer(unit=unit)
                self.environment["SOPHON_SYSTEMD"] = str(self.root / folder)
                self.start()
                self.assertEqual([self.service(command)[0] for command in ["status", "reload", "stop", "status"]], [0, 0, 0, 3])
                self.assertEqual(self.changes(), [])

    def test_an_uplink_from_before_the_unit_gives_way_to_it(self):
        for command, changes in [("stop", ["stop sophon-uplink"]), ("start", ["start sophon-uplink"]), ("restart", ["restart sophon-uplink"])]:
            with self.subTest(command):
                self.answer(unit=1)
                pid = self.start()
                self.answer()
                self.assertEqual([self.service(asked)[0] for asked in ["status", "reload"]], [0, 0])
                self.assertEqual(self.changes(), [], "they ask for the one that runs")
                code, said = self.service(command)
                self.assertEqual((code, is_running(pid), self.running()), (0, False, set()), said)
                self.assertEqual(self.changes(), changes)

    def test_what_the_unit_itself_calls_is_done_and_not_passed_on(self):
        self.assertEqual((self.service("prepare")[0], self.changes()), (0, []))
        self.assertTrue((self.config / "sophon-uplink.json").exists())


under_both_shells(globals(), UnderSystemd)

if __name__ == "__main__":
    unittest.main()
