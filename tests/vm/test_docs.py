"""docs/install.md, followed word for word on a box that has nothing yet."""

import re
import subprocess
import unittest
from pathlib import Path

from world import GATE, WORK, BoxTest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(name):
    """[(heading, commands)] of all blocks of commands."""
    found, heading = [], ""
    for part in re.split(r"^(## .*|```sh\n(?:.*\n)*?```)$", (DOCS / name).read_text(), flags=re.MULTILINE):
        if part.startswith("## "):
            heading = part[3:]
        elif part.startswith("```sh"):
            found.append((heading, part.removeprefix("```sh\n").removesuffix("```")))
    return found


class Documentation(BoxTest):
    def follow(self, guest, heading):
        """Runs the section's blocks that are for the box; returns what they said."""
        commands = [text for at, text in blocks("install.md") if at == heading and text.startswith("# on the box\n")]
        self.assertTrue(commands, heading)
        return "\n".join(guest.run(f"( set -e\n{text}\n)", timeout=120) for text in commands)

    def test_both_languages_have_the_same_commands(self):
        english, chinese = (["".join(text) for _, text in blocks(name)] for name in ["install.md", "install.zh-CN.md"])
        self.assertEqual(chinese, english)

    def test_a_box_that_has_nothing_is_installed_configured_upgraded_and_taken_back(self):
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", self.image, "512M"], check=True)
        names = []
        for folder in ["dist", "next"]:
            (archive,) = (WORK / folder).glob("*.tar.gz")
            names.append(archive.name)
            subprocess.run(["debugfs", "-w", "-R", f"write {archive} {folder}", self.image], capture_output=True, check=True)
        guest = self.boot(words="uplink=no")

        guest.run(f"mv /system/data/dist /system/data/{names[0]}")
        self.assertIn("is in force", self.follow(guest, "Install on a running box"))
        said = self.follow(guest, "Configure")
        self.assertIn("http://127.0.0.1:9528/RealTimeEvent", said)
        said = self.follow(guest, "See it work")
        self.assertIn("is running", said)
        self.assertRegex(said, r'"events":\s*\[\s*\{', "the test event came in, and the receiver shows it")

        guest.run(f"mv /system/data/next /system/data/{names[1]}")
        self.follow(guest, "Upgrade")
        self.assertEqual(guest.run("ls /system/data/*.tar.gz 2>/dev/null || echo none").strip(), "none", "the next pattern would name two")
        self.assertEqual(guest.run(f"readlink {GATE}/current"), "versions/99.0.0")
        self.assertIn("9528", guest.run(f"cat {GATE}/config/sophon-uplink.json"))
        self.follow(guest, "Go back")
        self.assertNotEqual(guest.run(f"readlink {GATE}/current"), "versions/99.0.0")


if __name__ == "__main__":
    unittest.main()
