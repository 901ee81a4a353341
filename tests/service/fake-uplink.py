#!PYTHON
"""A stand-in for sophon-uplink. What it does stands in the file `behaviour` beside the config or else beside the folder that it
lies in; it notes each run in `runs` and whom it was to check the config for in `checked` beside the config."""
import http.server
import json
import os
import signal
import sys
import time

config = os.path.realpath(sys.argv[-1])
folder = os.path.dirname(config)
release = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def behaviour():
    for place in [folder, release]:
        if os.path.exists(os.path.join(place, "behaviour")):
            with open(os.path.join(place, "behaviour")) as file:
                return file.read().split()
    return ["well"]


def serve_health(address, status):
    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if word == "hanging":
                time.sleep(3600)
            is_metrics = self.path == "/metrics"
            self.send_response(200 if is_metrics else status)
            self.end_headers()
            if is_metrics and word == "waiting":
                self.wfile.write(f"sophon_uplink_{values[0]} 0\n".encode())

        def log_message(self, *_):
            pass

    host, port = address.rsplit(":", 1)
    http.server.HTTPServer((host, int(port)), Health).serve_forever()


word, *values = behaviour()
if sys.argv[1] == "check-config":
    with open(os.path.join(folder, "checked"), "a") as checked:
        checked.write(" ".join(sys.argv[2:-1]) + "\n")
    sys.exit(78 if word == "misconfigured" else 0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if word == "stubborn" else lambda *_: os._exit(0))
with open(os.path.join(folder, "runs"), "a") as runs:
    runs.write(f"{os.getpid()} {time.monotonic()}\n")
if word == "crashing":
    sys.exit("a last word before the crash")
if word == "chatty":
    for number in range(int(values[0])):
        print(f"line {number}", file=sys.stderr)
with open(config) as file:
    listen = json.load(file).get("api", {}).get("listen")
if listen and word != "silent":
    serve_health(listen, 503 if word in ["unwell", "waiting"] else 200)
while True:
    time.sleep(3600)
