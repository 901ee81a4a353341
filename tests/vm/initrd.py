"""The guest's root folder, as the archive that the kernel unpacks (cpio's "newc" format)."""

import re
import stat
from pathlib import Path

HERE = Path(__file__).parent
# Debian's cloud kernel has these as modules.
DRIVERS = ["virtio_mmio", "virtio_blk", "virtio_net"]
FOLDERS = ["bin", "dev", "etc", "etc/init.d", "modules", "proc", "run", "sys", "system", "system/data", "tmp"]


def entry(number, name, mode, content=b""):
    """One file of the archive, owned by root."""
    path = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def modules(kit):
    """The drivers' files and those of what they depend on, in the order of their loading."""
    files = {path.stem: path for path in (kit / "modules").rglob("*.ko")}
    ordered = []

    def add(name):
        if files[name] not in ordered:
            needed = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())[1].decode()
            for each in filter(None, needed.split(",")):
                add(each.replace("-", "_"))
            ordered.append(files[name])

    for driver in DRIVERS:
        add(driver)
    return ordered


def make_initrd(kit, out, programs):
    """busybox, the modules, our rcS, and `programs` in /bin."""
    files = {"bin/busybox": kit / "busybox", "etc/init.d/rcS": HERE / "guest/rcS", "etc/inittab": HERE / "guest/inittab"}
    files |= {f"modules/{number:02}-{path.name}": path for number, path in enumerate(modules(kit))}
    files |= {f"bin/{program.name}": program for program in programs}
    members = [(name, stat.S_IFDIR | 0o755, b"") for name in FOLDERS]
    members += [(name, stat.S_IFREG | 0o755, path.read_bytes()) for name, path in files.items()]
    members += [(name, stat.S_IFLNK | 0o777, target) for name, target in [("init", b"bin/busybox"), ("bin/sh", b"busybox")]]
    archive = b"".join(entry(number, *member) for number, member in enumerate(members, 1))
    out.write_bytes(archive + entry(0, "TRAILER!!!", 0))
