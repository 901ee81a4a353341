#!/usr/bin/env python3
"""The init script with the real uplink: what a stand-in cannot show. SOPHON_PROGRAMS is the folder of the programs."""

import http.server
import json
import os
import socket
import subprocess
import threading
import unittest
from pathlib import Path

from service import PROGRAMS, Service, is_running, under_both_shells, wait_for


class Receiver(http.server.ThreadingHTTPServer):
    """Acknowledges everything; `count` is how much that was. No connection outlives its answer, nor the server its end."""

    def __init__(self):
        self.count = 0
        super().__init__(("127.0.0.1", 0), type("Handler", (http.server.BaseHTTPRequestHandler,), {
            "do_POST": Receiver.take, "log_message": lambda *_: None, "protocol_version": "HTTP/1.0"}))  # fmt: skip
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def take(handler):
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler.server.count += 1
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


class RealProgram(Service):
    def program(self, path):
        path.symlink_to(PROGRAMS / "sophon-uplink")

    def setUp(self):
        super().setUp()
        Path(self.folder.name).chmod(0o755)  # for the uplink's user
        if os.getuid() != 0:
            (self.gate / "user").write_text("root")  # nobody else can become another
        self.file = self.config / "sophon-uplink.json"
        self.ring = Path("/dev/shm") / f"{Path(self.folder.name).name}.events"
        for path in [self.ring, Path(f"{self.ring}.wake")]:
            self.addCleanup(path.unlink, missing_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.listen = f"127.0.0.1:{free.getsockname()[1]}"
        self.receiver = Receiver()
        self.addCleanup(self.receiver.server_close)
        self.addCleanup(self.receiver.shutdown)

    def configure(self, **more):
        self.config.mkdir(mode=0o700, exist_ok=True)
        url = f"http://127.0.0.1:{self.receiver.server_address[1]}/RealTimeEvent"
        spool = {"dir": str(self.gate / "spool"), "min_free_bytes": 0}
        config = {"event_server_url": [url], "rings": [str(self.ring)], "api": {"listen": self.listen}, "spool": spool, **more}
        self.file.write_text(json.dumps(config))

    def assert_delivers(self, number=3):
        before = self.receiver.count
        command = [PROGRAMS / "fake-recognizer", "--ring", self.ring, "--count", str(number)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=PROGRAMS)
        wait_for("the events", lambda: self.receiver.count - before >= number)

    def mount(self, *arguments):
        """A file system for the box's data, in place of it."""
        if os.getuid() != 0 or subprocess.run(["mount", *arguments, self.gate], capture_output=True).returncode != 0:
            self.skipTest("mounting is not allowed")
        self.addCleanup(lambda: subprocess.run(["umount", "-l", self.gate], check=True))
        self.addCleanup(self.service, "stop")
        (self.gate / "bin").mkdir(parents=True)
        self.program(self.gate / "bin/sophon-uplink")

    def test_a_first_config_with_faults_is_code_6_and_works_when_it_was_mended(self):
        for text in ["{", "", '{"event_server_url": 1}', '{"event_server_url": [], "colour": "red"}']:
            with self.subTest(text):
                self.config.mkdir(mode=0o700, exist_ok=True)
                self.file.write_text(text)
                code, said = self.service("start")
                self.assertEqual(code, 6, said)
                self.assertIn(f"{self.file}", said)
                self.assertEqual(self.service("reload")[0], 6)
                # It is tried again and again, and for the moment of a try it runs.
                wait_for("a pause between two tries", lambda: self.service("status")[0] == 1)
                self.configure()
                self.assertEqual(self.service("reload")[0], 0)
                self.assert_delivers()
                self.assertEqual(self.service("stop")[0], 0)
                for each in self.config.glob("sophon-uplink.json*"):
                    each.unlink()

    def test_a_config_that_got_faults_is_code_6_and_the_last_good_one_is_in_force(self):
        self.configure()
        self.assertEqual(self.service("start")[0], 0)
        wait_for("the last good one", lambda: (self.config / "sophon-uplink.json.bak").exists())
        self.file.write_text("{")
        self.assertEqual(self.service("restart")[0], 6)
        wait_for("that it runs", lambda: self.service("status")[0] == 0)
        self.assert_delivers()

    def test_a_missing_config_is_code_6_and_back_in_force_when_it_is_put_back_as_it_is_told(self):
        self.configure()
        self.assertEqual(self.service("start")[0], 0)
        wait_for("the last good one", lambda: (self.config / "sophon-uplink.json.bak").exists())
        self.service("stop")
        text = self.file.read_text()
        self.file.unlink()
        code, said = self.service("start")
        self.assertEqual(code, 6, said)
        self.assertEqual(((self.config / "sophon-uplink.json.bak").read_text(), self.file.exists()), (text, False))
        advice = said.split("The last good one is there: ")[1].split(";")[0]
        subprocess.run(advice.split(), check=True)
        self.assertEqual(self.service("reload")[0], 0)
        self.assert_delivers()

    def test_reload_and_force_reload_put_the_config_into_force_without_another_process(self):
        self.configure(event_server_url=[])
        self.assertEqual(self.service("start")[0], 0)
        before = self.pid("uplink")
        self.configure()
        for command in ["reload", "force-reload"]:
            self.assertEqual(self.service(command)[0], 0)
            self.assert_delivers()
        self.file.write_text('{"event_server_url": 1}')
        code, said = self.service("reload")
        self.assertEqual(code, 6)
        self.assertIn("event_server_url", said)
        self.assert_delivers()
        self.assertEqual((self.pid("uplink"), is_running(before)), (before, True))
        self.service("stop")
        self.assertEqual([self.service(command)[0] for command in ["reload", "force-reload"]], [7, 7])

    def test_a_read_only_file_system_stops_no_start(self):
        self.mount("-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs")
        self.configure()
        self.assertEqual(self.service("start")[0], 0)
        self.assert_delivers()
        self.service("stop")
        subprocess.run(["mount", "-o", "remount,ro", self.gate], check=True)
        for _ in range(2):
            code, said = self.service("start")
            self.assertEqual(code, 0, said)
            self.assert_delivers()
            self.assertEqual(self.service("reload")[0], 0)
            self.assertEqual([self.service(command)[0] for command in ["status", "stop"]], [0, 0])

    def test_a_read_only_file_system_on_which_nothing_was_made_yet_stops_no_start(self):
        self.mount("-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs")
        self.configure()
        os.chown(self.config, 65528, 65528)
        os.chown(self.file, 65528, 65528)
        subprocess.run(["mount", "-o", "remount,ro", self.gate], check=True)
        code, said = self.service("start")
        self.assertEqual(code, 0, said)
        self.assertIn("cannot be kept while a server is down", said)
        self.assert_delivers()

    def test_a_full_file_system_stops_no_start(self):
        self.mount("-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs")
        self.configure()
        with self.assertRaises(OSError), open(self.gate / "full", "wb", buffering=0) as full:
            while True:
                full.write(bytes(4096))
        code, said = self.service("start")
        self.assertEqual(code, 0, said)
        self.assert_delivers()
        self.assertEqual([each.name for each in self.gate.iterdir() if each.name.startswith(".")], [], "nothing half-written stays")


under_both_shells(globals(), RealProgram)

if __name__ == "__main__":
    unittest.main()
