"""The promise: destinations are reached through an HTTP proxy, with and without a login, and what a proxy refuses is said.

    proxies.py PROGRAMS

Squid and tinyproxy as Debian has them, with http and https destinations.
"""
import base64
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "api"))
sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from box import Box  # noqa: E402
from driver import free_port  # noqa: E402

PROGRAMS = sys.argv[1]
USER, PASSWORD = "box", "pa55word"
LIMIT = 60  # seconds, for what hangs


def own_address():
    """An address of this machine that is not loopback: the box reaches itself without a proxy."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


def wait(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain until {what}")
        time.sleep(0.02)


class Server(http.server.ThreadingHTTPServer):
    """Keeps the ids of what it gets, and how the requests were written."""

    daemon_threads = True

    def __init__(self, folder, is_tls):
        server, self.got, self.requests = self, [], []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                server.got.append(self.headers["X-Event-Id"])
                server.requests.append((self.path, dict(self.headers)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.send_header("Connection", "close")  # a tunnel that stands leads to a server that is gone
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("0.0.0.0", 0), Handler)
        if is_tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"{'https' if is_tls else 'http'}://{ADDRESS}:{self.server_port}/RealTimeEvent"


class Proxy:
    """A running proxy; `login` says whether it wants one."""

    def __init__(self, folder, kind, login):
        self.port, self.folder = free_port(), folder
        self.config = folder / f"{kind}-{self.port}.conf"
        self.config.write_text(getattr(self, kind)(login))
        # Squid's name for its shared memory, which another Squid's must not be. SIGKILL leaves it behind.
        self.name = f"sophon{self.port}"
        self.command = {
            "squid": ["squid", "-N", "-n", self.name, "-f", self.config],
            "tinyproxy": ["tinyproxy", "-d", "-c", self.config],
        }[kind]
        self.start()

    def squid(self, login):
        users = self.folder / "users"
        digest = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, check=True).stdout.decode().strip()
        users.write_text(f"{USER}:{digest}\n")
        users.chmod(0o644)
        rules = f"auth_param basic program /usr/lib/squid/basic_ncsa_auth {users}\nacl known proxy_auth REQUIRED\nhttp_access allow known\n"
        return f"""http_port 127.0.0.1:{self.port}
{rules if login else 'http_access allow all'}
cache deny all
access_log none
cache_log /dev/null
pid_filename none
shutdown_lifetime 0 seconds
pinger_enable off
netdb_filename none
max_filedescriptors 256
visible_hostname proxy.test
"""

    def tinyproxy(self, login):
        return f"Port {self.port}\nListen 127.0.0.1\nTimeout 600\nLogLevel Critical\n" + (f"BasicAuth {USER} {PASSWORD}\n" if login else "")

    def start(self):
        self.process = subprocess.Popen([str(word) for word in self.command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

        def listens():
            with socket.socket() as client:
                assert self.process.poll() is None, f"{self.command} ended"
                return client.connect_ex(("127.0.0.1", self.port)) == 0

        wait(listens, f"{self.command[0]} listens")

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def stop(self):
        self.signal(signal.SIGKILL)
        self.process.wait()
        for left in Path("/dev/shm").glob(f"{self.name}-*"):
            left.unlink()

    def url(self, login=""):
        return f"http://{login}127.0.0.1:{self.port}"


class Case:
    """A box with one destination behind one proxy."""

    def __init__(self, kind, is_tls, login, folder):
        self.server, self.proxy = Server(folder, is_tls), Proxy(folder, kind, login)
        self.folder, self.sent = folder, 0
        self.box = None

    def configure(self, proxy):
        config = {"event_server_url": [self.server.url], "tls": {"ca_file": str(self.folder / "cert.pem")}, "proxy": proxy,
                  "timeouts_ms": {"connect": 1000, "progress": 1000, "response": 1000}}
        if self.box is None:
            self.box = Box(PROGRAMS, config)
        else:
            old = json.loads(self.box.config.read_text())
            self.box.config.write_text(json.dumps({**old, **config}))
            self.box.process.send_signal(signal.SIGHUP)

    def publish(self):
        self.box.publish(1, rate=1000)
        self.sent += 1

    def told(self):
        with urllib.request.urlopen(f"{self.box.url}/api/status", timeout=10) as answer:
            return json.load(answer)["destinations"][0]

    def delivers(self):
        self.box.wait(lambda: len(set(self.server.got)) >= self.sent, f"{self.sent} events have come")

    def fails(self, code, words):
        """Waits until that is told."""
        told = lambda one: one["last_error_code"] == code and words in one["last_error"]
        self.box.wait(lambda: told(self.told()), f"{code} is told, with {words!r}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.check_secrets()
                self.box.stop()
        finally:
            if self.box:
                self.box.process.kill()
            self.proxy.stop()
            self.server.shutdown()
            self.server.server_close()

    def check_secrets(self):
        said = self.box.said() + json.dumps(self.told())
        for secret in (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()):
            assert secret not in said, f"a password is told: {said}"


def test_an_event_goes_through_the_proxy_and_not_past_it(case, is_tls):
    case.configure({"url": case.proxy.url()})
    case.publish()
    case.delivers()
    path, headers = case.server.requests[0]
    assert path == "/RealTimeEvent" and "Proxy-Authorization" not in headers, case.server.requests
    case.proxy.stop()
    case.publish()
    case.fails("proxy_failed", "is not reached")
    assert len(set(case.server.got)) == 1
    case.proxy.start()
    case.delivers()
    # A destination that is an exception needs none.
    case.proxy.signal(signal.SIGSTOP)
    case.configure({"url": case.proxy.url(), "no_proxy": [ADDRESS]})
    case.publish()
    case.delivers()
    case.proxy.signal(signal.SIGCONT)


def test_a_proxy_that_wants_a_login_gets_it_and_says_where_it_is_wrong(case, is_tls):
    case.configure({"url": case.proxy.url()})
    case.publish()
    case.fails("proxy_login", "proxy.url")
    case.configure({"url": case.proxy.url(f"{USER}:wrong@")})
    # tinyproxy answers 401 to a wrong password, as if the server did.
    is_401 = case.proxy.command[0] == "tinyproxy" and not is_tls
    case.fails("answered_unauthorized" if is_401 else "proxy_login", "does not take the user" if is_tls else "proxy.url")
    case.configure({"url": case.proxy.url(f"{USER}:{PASSWORD}@")})
    case.delivers()
    assert all("Proxy-Authorization" not in headers for _, headers in case.server.requests), "the login is the proxy's alone"


def test_a_proxy_that_hangs_or_has_no_way_is_named_and_nothing_is_lost(case, is_tls):
    case.configure({"url": case.proxy.url()})
    case.publish()
    case.delivers()
    case.proxy.signal(signal.SIGSTOP)
    case.publish()
    case.fails(*(("proxy_failed", "does not answer within 1000 ms") if is_tls else ("no_answer", "within 1000 ms")))
    case.proxy.signal(signal.SIGCONT)
    case.delivers()
    case.server.shutdown()
    case.server.server_close()
    case.publish()
    case.fails("proxy_failed" if is_tls else "answered_server_error", "answers 50" if is_tls else "answered 50")


def main():
    global ADDRESS
    ADDRESS = own_address()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="sophon-proxies.") as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key.pem", "-out", folder / "cert.pem",
                        "-days", "2", "-subj", "/CN=proxied", "-addext", f"subjectAltName=IP:{ADDRESS}",
                        "-addext", "basicConstraints=critical,CA:FALSE"], check=True, capture_output=True)
        for test in (test_an_event_goes_through_the_proxy_and_not_past_it, test_a_proxy_that_wants_a_login_gets_it_and_says_where_it_is_wrong,
                     test_a_proxy_that_hangs_or_has_no_way_is_named_and_nothing_is_lost):
            for kind in ("squid", "tinyproxy"):
                for is_tls in (False, True):
                    what = f"{test.__name__.removeprefix('test_').replace('_', ' ')}: {kind}, {'https' if is_tls else 'http'}"
                    try:
                        with Case(kind, is_tls, "login" in test.__name__, folder) as case:
                            test(case, is_tls)
                        print(f"  {what} | ok", flush=True)
                    except (AssertionError, OSError, KeyError) as error:
                        failed += 1
                        print(f"  {what} | FAILED: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
