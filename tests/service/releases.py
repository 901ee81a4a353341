"""What the tests of scripts/install share: archives of releases, and a box to install them on, with no tool but busybox's."""

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent.parent / "scripts"
HEALTH_SECONDS = 24
SHORT = 8  # where nothing healthy is to be waited for


def files_of(behaviour, program=None):
    fake = (HERE / "fake-uplink.py").read_text().replace("PYTHON", sys.executable, 1)
    files = {
        "bin/sophon-uplink": program or fake.encode(),
        "script/event-receive-server": b"#!/bin/sh\n",
        "init.d/S95sophon-uplink": (SCRIPTS / "S95sophon-uplink").read_bytes(),
        "behaviour": behaviour.encode(),
    }
    sums = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    return files | {"MANIFEST": "".join(sums).encode()}


def write_archive(path, version, behaviour="well", damaged=None, program=None):
    """A release as scripts/package would make it, of the stand-in or of `program`; with `damaged`, that file has other content than the
    manifest says."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files_of(behaviour, program).items():
            member = tarfile.TarInfo(f"sophon_gate/versions/{version}/{name}")
            content = content + b" " if name == damaged else content
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))


class Installation:
    """A box whose releases are a stand-in that is healthy or not; a subclass is made of it for each shell."""

    shell = []

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = Path(self.folder.name)
        self.gate, self.tools = self.root / "gate", self.root / "tools"
        self.tools.mkdir()
        subprocess.run(["busybox", "--install", "-s", self.tools], check=True)
        self.environment = {
            "PATH": str(self.tools),
            "SOPHON_GATE": str(self.gate),
            "SOPHON_RUN": str(self.root / "run"),
        }
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config = self.gate / "config/sophon-uplink.json"
        self.config.parent.mkdir(parents=True)
        self.config.write_text(json.dumps({"event_server_url": [], "api": {"listen": f"127.0.0.1:{self.port}"}}))
        self.addCleanup(lambda: self.gate.exists() and self.service("stop"))

    def command(self, *command, stdin=subprocess.DEVNULL):
        process = subprocess.run(
            command, env=self.environment, stdin=stdin, timeout=300, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return process.returncode, process.stdout

    def service(self, word):
        script = self.gate / "init.d/S95sophon-uplink"
        return self.command(*self.shell, script, word) if script.exists() else (5, "")

    def archive(self, version, *arguments, **options):
        path = self.root / f"{version}.tar.gz"
        write_archive(path, version, *arguments, **options)
        return path

    def install(self, *arguments, code=0):
        self.environment["SOPHON_HEALTH_SECONDS"] = str(SHORT if code else HEALTH_SECONDS)
        found, said = self.command(*self.shell, SCRIPTS / "install", *arguments)
        self.assertEqual(found, code, said)
        return said

    def in_force(self):
        """What the link says, when an uplink of that very release runs; which else is a failure."""
        release = os.readlink(self.gate / "current").removeprefix("versions/")
        self.assertEqual(self.service("status")[0], 0)
        self.assertFalse((self.gate / "trial").is_symlink())
        return release

    def uplink(self):
        return (self.root / "run/uplink").read_text()

    def uplink_now(self):
        """What `uplink` gives, or None while none runs."""
        try:
            return self.uplink() or None
        except FileNotFoundError:
            return None

    def versions(self):
        return sorted(path.name for path in (self.gate / "versions").iterdir())

    def everything(self):
        """What is in versions/, and in the place of other releases and of what installers leave."""
        versions = self.gate / "versions"
        return sorted(os.listdir(versions)) if versions.exists() else []
