"""The server on this machine that guests send their events to; it checks every byte of every event."""

import base64
import http.server
import json
import threading


def picture(number, size, more):
    """What tests/c/producer.c draws: byte j is (131 n + 7 j + j / 256 + more) mod 256."""
    return bytes((131 * number + 7 * j + j // 256 + more) % 256 for j in range(size))


class Receiver:
    """Listens on a port of the system's choice; `down` refuses connections, `up` takes them again on the same port."""

    def __init__(self):
        self.events = {}  # event id -> what `stamp` said when it first came
        self.stamp = lambda: 0
        self.faults = []
        self.pause = threading.Event()  # while it is set, no request is read
        self._changed = threading.Condition()
        self._server = None
        self.port = 0
        self.up()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pause.clear()
        self.down()

    def up(self):
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                while receiver.pause.is_set():
                    receiver.pause.wait(0.05)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if len(body) < int(self.headers["Content-Length"]):
                    return  # cut off: never received
                receiver.take(self.headers["X-Event-Id"], json.loads(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a guest whose power is cut resets its connections

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def take(self, event_id, event):
        """Counts an event; what is wrong with it is kept for the test to see."""
        if event["ext_data"].get("test"):
            return  # of an installer that looks whether a release delivers
        number = int(event["identity_id"].removeprefix("many-"))
        for name, text, more in [("reg_pic", event["reg_pic"], 0), ("spot_pic", event["ext_data"]["spot_pic"], 1)]:
            content = base64.b64decode(text, validate=True)
            if content != picture(number, len(content), more):
                self.faults.append(f"{event_id}: {name}")
        with self._changed:
            self.events.setdefault(event_id, self.stamp())
            self._changed.notify_all()

    def wait(self, event_ids, timeout=300):
        """Waits for all of these; returns those that did not come."""
        with self._changed:
            self._changed.wait_for(lambda: event_ids <= self.events.keys(), timeout)
            return event_ids - self.events.keys()
