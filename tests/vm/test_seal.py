"""The promise: the raw flash of a box whose spool is sealed shows neither faces nor names, and its events are delivered all the same."""

import os
import unittest

from receiver import picture
from world import RING, S95, UPLINK, BoxTest

EVENTS, SIZE = 4, 20000
KEY = "/run/spool.key"  # on tmpfs: gone with the power


def content(image):
    """What was ever written to a disk: the holes of its file are left out."""
    with open(image, "rb") as disk:
        end, parts, size = 0, [], os.fstat(disk.fileno()).st_size
        while end < size:
            try:
                start = os.lseek(disk.fileno(), end, os.SEEK_DATA)
            except OSError:
                break  # nothing but a hole
            end = os.lseek(disk.fileno(), start, os.SEEK_HOLE)
            parts.append(os.pread(disk.fileno(), end - start, start))
    return b"".join(parts)


def found(image):
    """What of the events that `many` publishes can be found on the raw disk."""
    written = content(image)
    wanted = {f"many-{n}": f"many-{n}".encode() for n in range(1, EVENTS + 1)}
    wanted |= {f"the face of {n}": picture(n, SIZE, 0)[SIZE // 2 :][:64] for n in range(1, EVENTS + 1)}
    return {name for name, part in wanted.items() if part in written}


class Seal(BoxTest):
    def test_the_raw_disk_shows_nothing_of_sealed_events_and_they_are_delivered(self):
        guest = self.boot()
        self.receiver.down()
        guest.run(f"(umask 077; head -c 32 /dev/urandom >{KEY}); chown 65528 {KEY}")
        published = set()
        for sealed in True, False:
            self.configure(guest, spool={"key_file": KEY if sealed else None})
            guest.run(f"{S95} restart")
            published |= self.publish(guest, EVENTS, SIZE)
            last = max(int(each.rsplit("-")[1]) for each in published)
            guest.wait_until(f"{UPLINK} ring {RING} --json | grep -q '\"consumed\":{last},'")
            guest.run("sync")
            if sealed:
                self.assertEqual(found(self.image), set())
        self.assertEqual(len(found(self.image)), 2 * EVENTS, "the control, in clear")
        self.receiver.up()
        self.configure(guest, spool={"key_file": KEY})
        guest.run(f"{S95} restart")
        self.assert_delivered(published, guest)


if __name__ == "__main__":
    unittest.main()
