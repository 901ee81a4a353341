"""The promise: a power cut loses no event whose spooling was reported, and leaves a box that boots.

An event counts as reported when the ring has released it while no server was there.
"""

import os
import unittest

import block_log
from spool_files import event_ids
from world import GATE, RING, S95, SEED, UPLINK, BoxTest, copy, count


class Cuts(BoxTest):
    def setUp(self):
        super().setUp()
        self.reported = set()
        print(f"\nSEED={SEED}")

    def spool(self, guest, number):
        """Publishes events and waits for the report that all of this boot's are spooled."""
        ids = self.publish(guest, number, self.random.randrange(500, 60000))
        last = max(int(each.rsplit("-")[1]) for each in ids)
        guest.wait_until(f"{UPLINK} ring {RING} --json | grep -q '\"consumed\":{last},'")
        self.reported |= ids

    def configured_image(self):
        guest = self.boot()
        self.configure(guest)
        guest.run(f"{S95} stop; sync; umount /system/data")
        guest.cut()
        self.receiver.down()

    def test_cuts_in_the_middle_of_an_outage(self):
        self.configured_image()
        rounds = count("CUTS", 2)
        for number in range(rounds):
            # In some rounds the server is there, so that the cut comes in the middle of the backlog's delivery.
            if number % 2 == 1:
                self.receiver.up()
            guest = self.boot()
            self.assertIn("with code 0", "\n".join(guest.console), guest.tail())
            for _ in range(self.random.randrange(1, 4)):
                self.spool(guest, self.random.randrange(1, 8))
            # Of these nobody says that they are safe.
            guest.send(f"printf 'open {RING} 16777216\\nmany 20 30000\\n' | recognizer")
            cut_off = self.random.random()
            with self.assertRaises(Exception, msg="the power stays on"):
                guest.wait_for("this never comes", cut_off)
            guest.cut()
            self.receiver.down()
        self.receiver.up()
        guest = self.boot()
        self.assert_delivered(self.reported, guest)
        print(f"{rounds} cuts: {len(self.reported)} events reported as spooled, 0 lost")

    def record(self, words=""):
        """A guest's outage, with its log and the sizes that the log had when events were reported: [(size, ids)]."""
        self.configured_image()
        base, log = self.copy_of(self.image, "base.ext4"), self.folder / "log"
        guest = self.boot(words=words, block_log=log)
        marks = []
        for _ in range(12):
            self.spool(guest, self.random.randrange(1, 6))
            marks.append((os.stat(log).st_size, set(self.reported)))
        # The backlog's delivery: its files go. An event is looked for until it came.
        self.receiver.stamp = lambda: os.stat(log).st_size
        self.receiver.up()
        self.assert_delivered(self.reported, guest)
        guest.cut()
        return base, log, marks

    def images(self, base, log, marks, number):
        """Crash images as (description, image, ids that must be in it)."""
        entries = block_log.entries(log)
        first = next(index for index, entry in enumerate(entries) if entry.end >= marks[0][0])  # nothing was reported before
        delivered = dict(self.receiver.events)
        for _ in range(number):
            cut, mode = self.random.randrange(first, len(entries)), self.random.choice(block_log.MODES)
            image = self.copy_of(base, "crash.ext4")
            block_log.make_crash_image(log, entries, cut, mode, self.random, image)
            now = entries[cut].end
            reported = max((ids for size, ids in marks if size <= now), key=len)
            required = {each for each in reported if delivered[each] > now}
            yield f"cut {cut} of {len(entries)}, {mode}, seed {SEED}", image, required

    def lost(self, image, required):
        """What an image lacks, without booting it."""
        faults = block_log.replay(image)
        self.assertEqual(faults, [])
        into = self.folder / "dump"
        found = event_ids(block_log.read_folder(image, "/sophon_gate/spool", into))
        for path in sorted(into.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        return required - found

    def test_what_a_cut_can_leave_of_the_disk_has_every_reported_event(self):
        base, log, marks = self.record()
        number, required_in_all = count("IMAGES", 20), 0
        for description, image, required in self.images(base, log, marks, number):
            self.assertEqual(self.lost(image, required), set(), description)
            required_in_all += len(required)
        self.assertGreater(required_in_all, number)
        print(f"{number} crash images: {required_in_all} events looked for, 0 missing")
        for description, image, required in self.images(base, log, marks, count("BOOTS", 2)):
            self.receiver.events.clear()
            guest = self.boot(image)
            self.assertIn("with code 0", "\n".join(guest.console), description)
            self.assert_delivered(required, guest)
            guest.cut()

    def test_a_disk_that_is_not_flushed_is_noticed(self):
        base, log, marks = self.record(words="data_options=nobarrier")
        flagged = [description for description, image, required in self.images(base, log, marks, 10) if self.flagged(image, required)]
        self.assertGreater(len(flagged), 0)
        print(f"the control without flushes: {len(flagged)} of 10 crash images flagged")

    def flagged(self, image, required):
        try:
            return bool(self.lost(image, required))
        except AssertionError:
            return True  # not even the file system is whole


if __name__ == "__main__":
    unittest.main()
