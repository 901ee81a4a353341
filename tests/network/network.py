"""A network of our own: links with rate, delay and loss on a TUN device, and a DNS server. Runs in `unshare --mount --net`.

What goes to 10.L.x.y leaves on link L at its rate, out of a queue without an end, and comes back as if 10.0.0.1 had been asked by
10.L.x.y: a server on 10.0.0.1 is thus on every address, each of them as far away as its link.
"""
import fcntl
import heapq
import os
import random
import socket
import struct
import subprocess
import threading
import time

SERVER = "10.0.0.1"


class Link:
    """`rate`: bytes a second to the server; `rtt`: seconds there and back; `loss`: of packets, each way."""

    def __init__(self, rate=1e9, rtt=0.0, loss=0.0):
        self.rate, self.rtt, self.loss = rate, rtt, loss
        self.free_at, self.lost, self.most_queued = 0.0, 0, 0.0


class Network:
    def __init__(self, links, seed=1):
        self.links, self.random = links, random.Random(seed)
        self.dead, self.syns = set(), []
        self.packets, self.count, self.changed = [], 0, threading.Condition()
        self.device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.device, 0x400454CA, struct.pack("16sH", b"links", 0x0001 | 0x1000))
        for command in ("ip link set lo up", f"ip addr add {SERVER}/8 dev links", "ip link set links up"):
            subprocess.run(command.split(), check=True)
        for run in (self.take, self.give):
            threading.Thread(target=run, daemon=True).start()

    def take(self):
        while True:
            packet = os.read(self.device, 65536)
            if packet[0] >> 4 != 4:
                continue
            source, target = packet[12:16], packet[16:20]
            is_out = source == socket.inet_aton(SERVER) and target[1] != 0 and self.is_to_server(packet)
            name = socket.inet_ntoa(target)
            header = (packet[0] & 15) * 4
            if is_out and packet[9] == 6 and packet[header + 13] & 0x12 == 0x02:
                self.syns.append(name)
            if name in self.dead or socket.inet_ntoa(source) in self.dead:
                continue
            link = self.links[target[1]]
            now = time.monotonic()
            if self.random.random() < link.loss:
                link.lost += 1
                continue
            due = now
            if is_out:
                link.most_queued = max(link.most_queued, (link.free_at - now) * link.rate)
                link.free_at = max(link.free_at, now) + len(packet) / link.rate
                due = link.free_at
            turned = packet[:12] + target + source + packet[20:]
            with self.changed:
                self.count += 1
                heapq.heappush(self.packets, (due + link.rtt / 2, self.count, turned))
                self.changed.notify()

    @staticmethod
    def is_to_server(packet):
        """Servers have the ports below 20000, clients the others."""
        header = (packet[0] & 15) * 4
        return struct.unpack(">H", packet[header + 2 : header + 4])[0] < 20000

    def give(self):
        while True:
            with self.changed:
                while not self.packets or self.packets[0][0] > time.monotonic():
                    self.changed.wait(self.packets[0][0] - time.monotonic() if self.packets else None)
                packet = heapq.heappop(self.packets)[2]
            os.write(self.device, packet)


class Dns:
    """Answers on 127.0.0.1:53 from `zone`: name to addresses. `silent`: types that get no answer, 1 for A and 28 for AAAA."""

    def __init__(self, zone, delay=0.0, silent=()):
        self.zone, self.delay, self.silent = zone, delay, silent
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            query, client = self.socket.recvfrom(4096)
            threading.Thread(target=self.answer, args=(query, client), daemon=True).start()

    def answer(self, query, client):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
        if kind in self.silent:
            return
        family = socket.AF_INET6 if kind == 28 else socket.AF_INET
        known = self.zone.get(".".join(labels).lower(), [])
        found = [socket.inet_pton(family, one) for one in known if kind in (1, 28) and (":" in one) == (kind == 28)]
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 1, len(one)) + one for one in found)
        time.sleep(self.delay)
        head = query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, len(found), 0, 0)
        self.socket.sendto(head + query[12 : at + 5] + records, client)


class Server:
    """Keeps what it gets, by event and by the address that it was sent to."""

    ports = iter(range(9000, 20000))

    def __init__(self, keeps_alive=True):
        self.keeps_alive, self.got, self.lock = keeps_alive, [], threading.Lock()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("0.0.0.0", next(Server.ports)))
        self.listener.listen(128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def close(self):
        """From now on its port refuses connections."""
        self.listener.shutdown(socket.SHUT_RDWR)

    def run(self):
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return self.listener.close()
            threading.Thread(target=self.serve, args=(connection, peer[0]), daemon=True).start()

    def serve(self, connection, address):
        try:
            reader = connection.makefile("rb")
            while True:
                headers = {}
                line = reader.readline()
                while line.strip():
                    name, _, value = line.decode().partition(":")
                    headers[name.lower()] = value.strip()
                    line = reader.readline()
                if not headers:
                    return
                length = int(headers["content-length"])
                if len(reader.read(length)) < length:
                    return
                with self.lock:
                    self.got.append((address, headers["x-event-id"]))
                close = "" if self.keeps_alive else "Connection: close\r\n"
                connection.sendall(f"HTTP/1.1 200 OK\r\n{close}Content-Length: 0\r\n\r\n".encode())
                if not self.keeps_alive:
                    return
        except OSError:
            pass
        finally:
            connection.close()
