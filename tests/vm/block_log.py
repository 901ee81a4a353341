"""Power cuts that lose what was not flushed.

Killing qemu loses nothing that the guest has written: this machine's page cache survives. So qemu logs the guest's writes and
flushes (blklogwrites), and from that log any disk is made that a cut could have left: all that was written before the last flush,
and of what came later nothing, some writes, or some sectors.
"""

import os
import struct
import subprocess
from collections import namedtuple

MAGIC, FLUSH, DISCARD = 0x6A736677736872, 1, 4
SECTOR = 512
MODES = ["drop", "write", "tear"]  # of the unflushed: nothing survives, random writes, random sectors

Entry = namedtuple("Entry", "offset length flags data end")  # `end`: the log's size once the entry was complete


def entries(log):
    """The log's writes and flushes, in order."""
    found, size = [], os.stat(log).st_size
    with open(log, "rb") as file:
        magic, _version, _count, sector = struct.unpack("<QQQI", file.read(28))
        if magic != MAGIC:
            raise ValueError(f"{log} is no log of qemu's")
        at = sector
        while at + 32 <= size:
            file.seek(at)
            first, count, flags, _ = struct.unpack("<QQQQ", file.read(32))
            if first == count == flags == 0:
                break
            data = at + sector
            at = data + (0 if flags & DISCARD else count * sector)
            if at > size:
                break
            found.append(Entry(first * sector, count * sector, flags, data, at))
    return found


def make_crash_image(log, log_entries, cut, mode, random, image):
    """Makes `image`, a copy of the disk before the log began, the disk that a cut after entry `cut` could leave."""
    reached = log_entries[: cut + 1]
    flushed = max((index for index, entry in enumerate(reached) if entry.flags & FLUSH), default=-1)
    with open(log, "rb") as source, open(image, "r+b") as disk:
        for index, entry in enumerate(reached):
            source.seek(entry.data)
            block = bytes(entry.length) if entry.flags & DISCARD else source.read(entry.length)
            if index <= flushed:
                pieces = [0] if block else []
                step = entry.length
            else:
                step = SECTOR if mode == "tear" else max(entry.length, 1)
                pieces = [at for at in range(0, len(block), step) if mode != "drop" and random.random() < 0.5]
            for at in pieces:
                disk.seek(entry.offset + at)
                disk.write(block[at : at + step])


# What the kernel writes lazily, and e2fsck calls wrong after every cut.
HARMLESS = ["e2fsck ", "Pass ", "Free blocks count wrong", "Free inodes count wrong", "Fix? no", "Padding at end of"]


def replay(image):
    """Replays the journal, as a mount would; returns what else is wrong with the file system."""
    subprocess.run(["e2fsck", "-E", "journal_only", "-y", image], capture_output=True, check=False)
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    if checked.returncode in (0, 1):
        return []
    lines = (checked.stdout + checked.stderr).splitlines()
    summary = f"{image}: "
    return [line for line in lines if line.strip() and not line.startswith((summary, *HARMLESS)) and line != f"{image}:"]


def read_folder(image, path, into):
    """Copies a folder out of an image."""
    into.mkdir(parents=True, exist_ok=True)
    subprocess.run(["debugfs", "-R", f"rdump {path} {into}", image], capture_output=True, check=True)
    return into / path.rsplit("/", 1)[-1]
