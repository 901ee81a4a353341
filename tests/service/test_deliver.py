#!/usr/bin/env python3
"""The installer with the real uplink: a release is in force only if it delivers what the release before delivered."""

import json
import os
import re
import socket
import subprocess
import unittest
import urllib.request
from pathlib import Path

from releases import SCRIPTS, write_archive
from service import PROGRAMS, Service, under_both_shells, wait_for
from test_real import Receiver

# A release whose uploads to one server come to nothing: it runs, answers, and is healthy for as long as failures are forgiven.
BROKEN = """#!/bin/sh
[ "$1" = run ] || exec {real} "$@"
for config; do :; done
mkdir -p -m 700 {folder}
sed 's/:{port}\\//:{closed}\\//' "$config" >{folder}/c.json
exec {real} run --config {folder}/c.json
"""


class Delivers(Service):
    def setUp(self):
        super().setUp()
        self.root = Path(self.folder.name)
        self.receivers = [Receiver(), Receiver()]
        for each in self.receivers:
            self.addCleanup(each.server_close)
            self.addCleanup(each.shutdown)
        self.environment |= {"SOPHON_HEALTH_SECONDS": "24"}
        # What a proxy in root's shell would do to a release that is good.
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy"]:
            self.environment[name] = "http://127.0.0.1:9/"
        (self.gate / "user").write_text("root")
        (self.gate / "bin/sophon-uplink").unlink()
        self.config.mkdir(mode=0o700)
        with socket.create_server(("127.0.0.1", 0)) as free:
            listen = f"127.0.0.1:{free.getsockname()[1]}"
        urls = [f"http://127.0.0.1:{each.server_address[1]}/RealTimeEvent" for each in self.receivers]
        config = {"event_server_url": urls, "rings": [str(self.root / "events")], "api": {"listen": listen}}
        config["spool"] = {"dir": str(self.gate / "spool"), "min_free_bytes": 0}
        (self.config / "sophon-uplink.json").write_text(json.dumps(config))

    def service(self, command, **environment):
        script = self.gate / "init.d/S95sophon-uplink"
        if not script.exists():
            return 5, ""
        done = subprocess.run([*self.shell, script, command], env=self.environment | environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def install(self, version, program=None, code=0):
        archive = self.root / f"{version}.tar.gz"
        program = program or f"#!/bin/sh\nexec {PROGRAMS}/sophon-uplink \"$@\"\n"
        write_archive(archive, version, program=program.encode())
        done = subprocess.run([*self.shell, SCRIPTS / "install", archive], env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def broken(self, server):
        port = self.receivers[server].server_address[1]
        with socket.create_server(("127.0.0.1", 0)) as closed:
            return BROKEN.format(real=PROGRAMS / "sophon-uplink", folder=self.root / "other", port=port, closed=closed.getsockname()[1])

    def metrics(self):
        listen = json.loads((self.config / "sophon-uplink.json").read_text())["api"]["listen"]
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return direct.open(f"http://{listen}/metrics", timeout=60).read().decode()

    def recognize(self, number):
        subprocess.run([PROGRAMS / "fake-recognizer", "--ring", self.root / "events", "--count", str(number)], check=True, stdout=subprocess.DEVNULL, cwd=PROGRAMS)

    def publish(self, number=1):
        before = [each.count for each in self.receivers]
        self.recognize(number)
        wait_for("the events", lambda: all(now.count - then >= number for now, then in zip(self.receivers, before)))

    def in_force(self):
        return os.readlink(self.gate / "current").removeprefix("versions/")

    def test_a_release_that_delivers_nothing_gives_way_and_a_good_one_stays(self):
        self.install("1.0.0")
        self.publish()
        for version, program, in_force in [("2.0.0", self.broken(1), "1.0.0"), ("3.0.0", None, "3.0.0"), ("4.0.0", self.broken(0), "3.0.0")]:
            with self.subTest(version):
                said = self.install(version, program, code=3 if program else 0)
                self.assertEqual("accepts none from the new one" in said, program is not None, said)
                self.assertEqual(self.in_force(), in_force)
                self.publish()

    def test_servers_that_were_away_before_are_not_asked_of_the_new_release(self):
        self.install("1.0.0")
        self.publish()
        self.receivers[1].shutdown()
        self.receivers[1].server_close()
        self.recognize(1)
        wait_for("the second server to be down", lambda: re.search(r'_up\{destination="2".*\} 0\n', self.metrics()))
        self.install("2.0.0")
        self.assertEqual(self.in_force(), "2.0.0")


under_both_shells(globals(), Delivers)

if __name__ == "__main__":
    unittest.main()
