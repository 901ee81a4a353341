"""Where the three servers of a campaign run, so that one can be cut off, and another's disk can be full.

A campaign in namespaces of its own (see `campaign`) has its network and mounts to itself. There nats-3 runs in a further network
namespace, with one cable to the others, and nats-2 has its store on a tmpfs of its own."""

import errno
import os
import subprocess

from scene import check

HERE, THERE = "10.77.0.1", "10.77.0.2"  # the two ends of the cable


class Places:
    """Addresses, commands and folders for `Cluster`; `can_part` and `can_fill` say what this machine allows."""

    def __init__(self, scene, gigabytes):
        self.scene, self.apart = scene, os.environ.get("FLEET_APART") == "yes"
        self.stores = [scene.dir / f"nats-{number}" for number in (1, 2, 3)]
        if not self.apart:
            return
        self.holder = scene.start("namespace", ["unshare", "--net", "sleep", "infinity"])
        scene.wait(self.is_apart, "nats-3 had a network of its own")
        self.enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--"]
        run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "socket")
        run("ip", "link", "set", "socket", "netns", str(self.holder.pid))
        run("ip", "address", "add", f"{HERE}/30", "dev", "cable")
        run("ip", "link", "set", "cable", "up")
        run(*self.enter, "ip", "address", "add", f"{THERE}/30", "dev", "socket")
        run(*self.enter, "ip", "link", "set", "lo", "up")
        self.join()
        self.stores[1].mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={gigabytes}g,mode=700", "nats-2", self.stores[1])
        scene.undo.append(lambda: run("umount", self.stores[1]))

    def is_apart(self):
        return os.readlink(f"/proc/{self.holder.pid}/ns/net") != os.readlink("/proc/self/ns/net")

    def of_the_servers(self):
        if not self.apart:
            return [("127.0.0.1", [], store) for store in self.stores]
        return [(HERE, [], self.stores[0]), (HERE, [], self.stores[1]), (THERE, self.enter, self.stores[2])]

    def part(self):
        """Pulls the plug: what is sent is lost without a word."""
        run(*self.enter, "ip", "link", "set", "socket", "down")

    def join(self):
        run(*self.enter, "ip", "link", "set", "socket", "up")

    def fill(self):
        """Takes what the disk of nats-2 has left, in smaller and smaller pieces: the server writes meanwhile."""
        piece = 64 << 20
        with open(self.stores[1] / "ballast", "wb") as ballast:
            while piece >= 4096:
                try:
                    os.posix_fallocate(ballast.fileno(), os.fstat(ballast.fileno()).st_size, piece)
                except OSError as error:
                    check(error.errno == errno.ENOSPC, "the disk was not filled:", error)
                    piece //= 2

    def empty(self):
        (self.stores[1] / "ballast").unlink()


def run(*command):
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    check(ended.returncode == 0, *command, "ended with", ended.returncode, ended.stderr)
