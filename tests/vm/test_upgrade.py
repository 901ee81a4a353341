"""The promise: an upgrade that is cut at any point leaves the old release or the new one, whole, and the box starts; a release that
is not healthy gives way by itself."""

import hashlib
import os
import subprocess
import unittest

import block_log
from world import GATE, S95, SEED, WORK, BoxTest, count

NEW = "99.0.0"
INSTALL = f"{GATE}/current/install"


class Upgrade(BoxTest):
    def setUp(self):
        super().setUp()
        print(f"\nSEED={SEED}")
        for folder in ["next", "broken"]:
            (archive,) = (WORK / folder).glob("*.tar.gz")
            request = f"write {archive} {folder}.tar.gz"
            subprocess.run(["debugfs", "-w", "-R", request, self.image], capture_output=True, check=True)
        guest = self.boot()
        self.configure(guest)
        self.old = guest.run(f"readlink {GATE}/current")
        guest.run(f"{S95} stop; sync; umount /system/data")
        guest.cut()

    def whole_release(self, guest):
        """The release in force; it must be whole and running, and deliver."""
        guest.run(f"{S95} status")
        guest.run(f"cd {GATE}/current/ && sha256sum -c MANIFEST")
        self.assert_delivered(self.publish(guest, 1, 2000), guest)
        return guest.run(f"readlink {GATE}/current")

    def whole_release_of(self, image):
        """The same of an image that is not booted."""
        self.assertEqual(block_log.replay(image), [])
        tree = block_log.read_folder(image, "/sophon_gate", self.folder / f"tree-{self.random.random()}")
        release = os.readlink(tree / "current")
        for line in (tree / release / "MANIFEST").read_text().splitlines():
            expected, name = line.split("  ", 1)
            found = hashlib.sha256((tree / release / name).read_bytes()).hexdigest()
            self.assertEqual(found, expected, f"{release}/{name}")
        subprocess.run(["rm", "-rf", tree], check=True)
        return release

    def test_a_release_that_does_not_become_healthy_gives_way_by_itself(self):
        guest = self.boot()
        code, said = guest.try_run(f"SOPHON_HEALTH_SECONDS=12 {INSTALL} /system/data/broken.tar.gz", timeout=120)
        self.assertEqual(code, 3, said)
        self.assertIn("going back", said)
        self.assertEqual(self.whole_release(guest), self.old)

    def test_an_upgrade_that_is_cut_leaves_the_old_release_or_the_new_one(self):
        base, log = self.copy_of(self.image, "base.ext4"), self.folder / "log"
        guest = self.boot(block_log=log)
        began = os.stat(log).st_size
        said = guest.run(f"{INSTALL} /system/data/next.tar.gz", timeout=120)
        confirmed = os.stat(log).st_size
        self.assertIn(f"{NEW} is in force", said)
        self.assertEqual(self.whole_release(guest), f"versions/{NEW}")
        guest.cut()

        entries = block_log.entries(log)
        within = [index for index, entry in enumerate(entries) if began < entry.end]
        boots, images = count("UPGRADES", 2), count("UPGRADE_IMAGES", 15)
        found = {}
        for number in range(images):
            cut, mode = self.random.choice(within), self.random.choice(block_log.MODES)
            description = f"cut {cut} of {len(entries)}, {mode}, seed {SEED}"
            image = self.copy_of(base, "crash.ext4")
            block_log.make_crash_image(log, entries, cut, mode, self.random, image)
            with self.subTest(description):
                release = self.whole_release_of(image)
                self.assertIn(release, [self.old, f"versions/{NEW}"])
                if number < boots:
                    release = self.start_after_cut(image, description)
                if entries[cut].end >= confirmed:
                    self.assertEqual(release, f"versions/{NEW}")
                found[release] = found.get(release, 0) + 1
        print(f"an upgrade cut {images} times, {boots} of them booted: {found}")

    def start_after_cut(self, image, description):
        guest = self.boot(image)
        self.assertIn("with code 0", "\n".join(guest.console), description)
        release = self.whole_release(guest)
        guest.cut()
        return release


if __name__ == "__main__":
    unittest.main()
