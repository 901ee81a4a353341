#!/usr/bin/env python3
"""The box's documented call with HTTP clients of several languages, each as its library writes it.

    target/venv-clients/bin/python3 tests/api/real_clients.py target/debug [FOLDER OF NODE MODULES]

What every call means is the same; it must be in force then. A client whose runtime is missing is SKIPPED, by name. Exits 0 if everything
that ran holds, and at least ten did.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parent))
from box import Box  # noqa: E402

PATH = "/SophonFogSys/api/EventServerUrl"
HERE = Path(__file__).parent / "clients"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def works(*command):
    """Whether this program, or this module of its, is there."""
    try:
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def libraries(modules, built):
    """Name, whether it is there, the command without its last arguments (the kind, the API, two URLs), the kinds."""
    python, node = [sys.executable, HERE / "client.py"], ["node", HERE / "client.mjs"]
    for library, kinds in (("requests", "json form multipart untyped"), ("httpx", "json form multipart untyped"), ("aiohttp", "json form multipart"), ("urllib", "json form")):
        yield f"Python {library}", works(sys.executable, "-c", f"import {library}"), [*python, library], kinds
    yield "Node fetch", works("node", "-e", "fetch"), [*node, "fetch"], "json form multipart"
    for library in ("axios", "undici"):
        yield f"Node {library}", works("node", "-e", f"require('{modules}/node_modules/{library}')"), [*node, library], "json form multipart"
    jar = works("javac", "-d", built, HERE / "Client.java")
    yield "Java HttpClient", jar, ["java", "-cp", built, "Client"], "json form"
    yield "PHP streams", works("php", "--version"), ["php", HERE / "client.php", "streams"], "json form"
    yield "PHP curl", works("php", "-r", "exit(function_exists('curl_init') ? 0 : 1);"), ["php", HERE / "client.php", "curl"], "json form multipart"
    yield "Perl HTTP::Tiny", works("perl", "-MHTTP::Tiny", "-e", "1"), ["perl", HERE / "client.pl", "HTTP::Tiny"], "json form"
    yield "Perl LWP", works("perl", "-MLWP::UserAgent", "-e", "1"), ["perl", HERE / "client.pl", "LWP"], "form multipart"
    yield "Ruby net/http", works("ruby", "-rnet/http", "-e", "1"), ["ruby", HERE / "client.rb"], "json form multipart"
    go = works("go", "build", "-o", f"{built}/client-go", HERE / "client.go")
    yield "Go net/http", go, [f"{built}/client-go"], "json form multipart"
    yield "curl", works("curl", "--version"), ["curl"], "json form multipart"
    yield "wget", works("wget", "--version"), ["wget"], "json form"


def command_line(command, kind, url, pair):
    """curl and wget are told everything by options."""
    call = json.dumps({"event_server_url": pair, "real_need_reg_pic": False, "content-type": "json"})
    fields = [("event_server_url", pair[0]), ("event_server_url", pair[1]), ("real_need_reg_pic", "false"), ("content-type", "json")]
    if command == ["curl"]:
        given = {"json": ["-d", call], "form": ["-d", urlencode(fields)], "multipart": [part for field in fields for part in ("-F", "=".join(field))]}
        return ["curl", "-sS", "--fail", *given[kind], url]
    if command == ["wget"]:
        body = ["--post-data", call, "--header", "Content-Type: application/json"] if kind == "json" else ["--post-data", urlencode(fields)]
        return ["wget", "-q", "-O", "-", *body, url]
    return [*command, kind, url, *pair]


def main():
    modules = sys.argv[2] if len(sys.argv) > 2 else "/nonexistent"
    ENVIRONMENT["MODULES"] = modules
    built = tempfile.mkdtemp(prefix="sophon-clients.")
    box, ran, failed, number = Box(sys.argv[1]), 0, 0, 0
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        for name, is_there, command, kinds in libraries(modules, built):
            if not is_there:
                print(f"{name}: SKIPPED, it is not installed here")
                continue
            ran += 1
            for kind in kinds.split():
                number, began = number + 1, time.monotonic()
                pair = [f"http://127.0.0.1:9/{number}/{letter}" for letter in "ab"]
                done = subprocess.run(command_line(command, kind, box.url + PATH, pair), env=ENVIRONMENT, capture_output=True, text=True)
                wanted = {"event_server_url": pair, "real_need_reg_pic": False, "content-type": "json"}
                found = json.load(ask.open(box.url + PATH))["data"]
                good = done.returncode == 0 and found == wanted
                failed += not good
                why = "" if good else f"\n  in force: {found}\n  {done.stdout}{done.stderr}"
                print(f"{name}, {kind}: {'ok' if good else 'FAILED'} ({time.monotonic() - began:.1f} s){why}")
    finally:
        box.stop()
        shutil.rmtree(built)
    print(f"{ran} libraries, {number} calls, {failed} failed")
    sys.exit(1 if failed or ran < 10 else 0)


if __name__ == "__main__":
    main()
