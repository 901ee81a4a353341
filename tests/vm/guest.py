"""A real arm64 kernel under emulation, with busybox's init, our data image and a shell on its serial console."""

import os
import queue
import re
import signal
import subprocess
import threading
import time

HOST = "10.0.2.2"  # this machine's loopback, as the guest sees it


class GuestError(Exception):
    """The guest did not do what it was told."""


class Guest:
    """A running guest. `with` it; leaving cuts its power."""

    def __init__(self, kit, initrd, image, words="", block_log=None, transcript=None, more=()):
        drive = f"driver=file,node-name=f0,filename={image}"
        if block_log is None:
            blocks = ["-blockdev", drive, "-blockdev", "driver=raw,node-name=d0,file=f0"]
        else:
            block_log.write_bytes(b"")
            blocks = ["-blockdev", drive, "-blockdev", f"driver=file,node-name=l0,filename={block_log}", "-blockdev"]
            blocks += ["driver=blklogwrites,node-name=d0,file=f0,log=l0,log-sector-size=512,log-super-update-interval=1"]
        command = [kit / "qemu", "-M", "virt", "-cpu", "cortex-a53", "-m", "256M", "-smp", "1", "-nographic"]
        command += ["-nodefaults", "-no-reboot", "-serial", "stdio", "-monitor", "none"]
        command += ["-kernel", kit / "vmlinuz", "-initrd", initrd]
        command += ["-append", f"console=ttyAMA0 quiet panic=-1 rdinit=/init {words}", *blocks]
        command += ["-device", "virtio-blk-device,drive=d0"]
        command += ["-netdev", "user,id=n0,ipv6=off", "-device", "virtio-net-device,netdev=n0", *more]
        self.began = time.monotonic()
        self._lines = queue.Queue()
        self._transcript = transcript
        self._number = 0
        self.console = []  # every line, for when something fails
        self._qemu = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cut()

    def _read(self):
        for line in self._qemu.stdout:
            self._lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self._lines.put(None)

    def line(self, timeout):
        """The console's next line."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise GuestError(f"nothing on the console for {timeout} s; {self.tail()}") from None
        if line is None:
            raise GuestError(f"the guest has ended; {self.tail()}")
        self.console.append(line)
        if self._transcript:
            self._transcript.write(f"{time.monotonic() - self.began:8.3f} {line}\n")
        return line

    def tail(self):
        """The last of the console, for messages."""
        return "the console's last lines:\n" + "\n".join(self.console[-30:])

    def wait_ready(self, timeout=300):
        """Waits for the shell; returns what was said on the way."""
        return self.wait_for("guest: ready", timeout)

    def wait_for(self, text, timeout):
        """The lines up to the one with `text`."""
        deadline, lines = time.monotonic() + timeout, []
        while not lines or text not in lines[-1]:
            lines.append(self.line(max(0.1, deadline - time.monotonic())))
        return lines

    def send(self, command):
        """Gives the shell a command; its end is marked on the console with the number returned."""
        self._number += 1
        text = f"{{ {command}\n}} </dev/null 2>&1; echo \"@@{self._number} $?\"\n"
        self._qemu.stdin.write(text.encode())
        self._qemu.stdin.flush()
        return self._number

    def result(self, number, timeout=300):
        """(exit code, output) of the command that `send` numbered."""
        lines = self.wait_for(f"@@{number} ", timeout)
        last, code = re.fullmatch(rf"(.*)@@{number} (\d+)", lines[-1]).groups()
        return int(code), "\n".join(lines[:-1] + ([last] if last else []))

    def try_run(self, command, timeout=300):
        """(exit code, output) of a command."""
        return self.result(self.send(command), timeout)

    def run(self, command, timeout=300):
        """The output of a command that must succeed."""
        code, output = self.try_run(command, timeout)
        if code != 0:
            raise GuestError(f"exit code {code} of: {command}\n{output}")
        return output

    def wait_until(self, command, timeout=120):
        """Waits until a command succeeds; it is tried again every 100 ms inside the guest."""
        tries = f"n=0; until {command}; do n=$((n + 1)); [ $n -lt {timeout * 5} ] || exit 1; sleep 0.1; done"
        code, output = self.try_run(f"( {tries} )", timeout * 3)
        if code != 0:
            raise GuestError(f"it never came to this: {command}\n{output}\n{self.tail()}")
        return output

    def uptime(self):
        """Seconds since the kernel began, by the guest's clock."""
        return float(self.run("cat /proc/uptime").split()[0])

    def cut(self):
        """Cuts the power."""
        if self._qemu.poll() is None:
            os.kill(self._qemu.pid, signal.SIGKILL)
        self._qemu.wait()
        self._reader.join()
        self._qemu.stdin.close()
        self._qemu.stdout.close()
