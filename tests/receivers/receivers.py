"""What `sophon-uplink try` finds of real servers, compared with the table that docs/receivers.md has.

    receivers.py PROGRAMS slice|all [--only TEXT]

Each server runs as its quick start has it, with its own limits, and answers with what it has received. The test says for each format
whose limit it is, how a larger event is let go, and how large the limit is; `try` has to find the same, and the row of the table.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))
import driver  # noqa: E402
from driver import Failure  # noqa: E402

ROOT = HERE.parents[1]
DOCUMENTS = [ROOT / "docs" / name for name in ("receivers.md", "receivers.zh-CN.md")]
FORMATS = ("json", "form-data")
LIMIT = 120  # seconds, for what hangs
KIB, MIB = 1024, 1024 * 1024


@dataclass
class Limit:
    """A server's own limit, and how it lets go of what is larger."""

    row: str  # the server's name in the table
    way: int | str  # a status, or the code of a failure
    body: int = 0  # bytes of a request, or
    field: int = 0  # bytes of a picture in base64
    loses: bool = False  # larger ones still are lost behind a 2xx


ALL = None


@dataclass
class Stack:
    """A server, how it is started, and what is known of it in each format; a format that it cannot read is left out."""

    name: str
    start: object
    expected: dict
    in_slice: bool = False
    tool: str = ""


def python(name):
    return lambda scene: scene.start(name, [sys.executable, "-B", HERE / "python" / "stacks.py", name, scene.port])


def node(name):
    modules = str(ROOT / "target" / "receivers-node" / "node_modules")
    return lambda scene: scene.start(name, ["node", HERE / "node" / "stacks.js", name, scene.port], NODE_PATH=modules)


def php(scene):
    scene.start("php", ["php", "-S", f"127.0.0.1:{scene.port}", HERE / "stack.php"])


def go(scene):
    scene.start("go", [driver.build_go(scene)], STORE=str(scene.dir / "store"), PORT=str(scene.port))
    scene.path = "RealTimeEvent"


def tomcat(scene):
    scene.start("tomcat", ["java", "-cp", os.environ["SERVLET_CLASSPATH"], "Tomcat10", "Parameters", scene.port], BASE=str(scene.dir))
    scene.path = "RealTimeEvent"


def nginx(scene):
    """nginx with no more than what it needs to pass requests on, before a server that takes everything."""
    front, scene.port = scene.port, driver.free_port()
    python("tornado")(scene)
    scene.wait_until_it_listens()
    user = "user root;" if os.geteuid() == 0 else ""
    places = " ".join(f"{name}_temp_path {scene.dir}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = f"""{user} daemon off; pid {scene.dir}/pid; error_log stderr; events {{}}
        http {{ access_log off; {places} server {{ listen 127.0.0.1:{front}; location / {{ proxy_pass http://127.0.0.1:{scene.port}; }} }} }}"""
    (scene.dir / "nginx.conf").write_text(config)
    scene.port = front
    scene.start("nginx", ["nginx", "-e", "stderr", "-p", scene.dir, "-c", scene.dir / "nginx.conf"])


LOST = "picture_lost"
STACKS = [
    Stack("Flask", python("flask"), {"json": ALL, "form-data": Limit("Flask", 413, field=500_000)}, True),
    Stack("Quart", python("quart"), {"json": ALL, "form-data": Limit("Quart", 413, field=500_000)}),
    Stack("Django", python("django"), {name: Limit("Django", 400, body=5 * MIB // 2) for name in FORMATS}, True),
    Stack("FastAPI", python("fastapi"), {"json": ALL, "form-data": Limit("FastAPI", 400, field=MIB)}, True),
    Stack("aiohttp", python("aiohttp"), {name: Limit("aiohttp", 413, body=MIB) for name in FORMATS}, True),
    Stack("Litestar", python("litestar"), {name: Limit("Litestar", 413, body=10_000_000) for name in FORMATS}),
    Stack("Falcon", python("falcon"), {"json": ALL, "form-data": Limit("Falcon", 400, field=MIB)}),
    Stack("Bottle", python("bottle"), {"json": Limit("Bottle", 413, body=100 * KIB), "form-data": Limit("Bottle", 400, body=100 * KIB, loses=True)}, True),
    Stack("Tornado", python("tornado"), {"json": ALL, "form-data": ALL}),
    Stack("CherryPy", python("cherrypy"), {"json": ALL, "form-data": ALL}),
    Stack("Express", node("express"), {"json": Limit("Express", 413, body=100 * KIB)}, True, "node"),
    Stack("multer", node("multer"), {"form-data": Limit("multer", 500, field=MIB)}, True, "node"),
    Stack("busboy", node("busboy"), {"form-data": Limit("busboy", LOST, field=MIB)}, True, "node"),
    Stack("Fastify", node("fastify"), {"json": Limit("Fastify", 413, body=MIB), "form-data": Limit("Fastify", LOST, field=MIB)}, True, "node 20"),
    Stack("Koa", node("koa"), {"json": Limit("Koa", 413, body=MIB), "form-data": ALL}, False, "node"),
    Stack("hapi", node("hapi"), {name: Limit("hapi", 413, body=MIB) for name in FORMATS}, True, "node"),
    Stack("multiparty", node("multiparty"), {"form-data": Limit("multiparty", 413, body=2 * MIB)}, False, "node"),
    Stack("formidable", node("formidable"), {"json": ALL, "form-data": ALL}, False, "node"),
    Stack("Hono", node("hono"), {"json": ALL, "form-data": ALL}, False, "node 20"),
    Stack("nginx", nginx, {name: Limit("nginx", 413, body=MIB) for name in FORMATS}, True, "nginx"),
    Stack("PHP", php, {"json": ALL, "form-data": Limit("PHP", LOST, body=8 * MIB)}, True, "php"),
    Stack("Tomcat", tomcat, {"json": ALL, "form-data": Limit("Tomcat", LOST, body=2 * MIB)}, True, "java"),
    Stack("Go net/http", go, {"json": ALL, "form-data": ALL}, True, "go"),
]


class Scene(driver.Scene):
    """A server's folder, port, log and processes; leaving it ends them all."""

    def __enter__(self):
        super().__enter__()
        self.port, self.path, self.environment = driver.free_port(), "", {}
        return self

    def start(self, name, command, **environment):
        return super().start(name, command, **environment, **self.environment)

    def wait_until_it_listens(self):
        self.wait_for_port(self.port, "the server")

    def tried(self, programs, formats):
        """What `try` finds, for programs."""
        formats = ["--format", formats[0]] if len(formats) == 1 else []
        command = [programs / "sophon-uplink", "try", f"http://127.0.0.1:{self.port}/{self.path}", "--json", "--idle", "0", *formats]
        tried = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT)
        if not tried.stdout:
            raise Failure(f"try: {tried.stderr.decode(errors='replace')}")
        return json.loads(tried.stdout)


def compare(found, expected):
    """What `try` found in one format against what is known; what to say of it."""
    if expected is ALL:
        if found["refuses_picture_bytes"] is not None or not found["proven"]:
            raise Failure(f"not every size arrives whole: {found}")
        return "every size"
    bytes_of = lambda key: found[key] and (found[key + "_body_bytes"] if expected.body else -(-found[key + "_picture_bytes"] // 3) * 4)
    found = {**found, "takes": found["takes_picture_bytes"], "refuses": found["refuses_picture_bytes"]}
    way = found["status"] if isinstance(expected.way, int) else found["error_code"]
    if way != expected.way:
        raise Failure(f"{way} instead of {expected.way}: {found}")
    limit, slack = expected.body or expected.field, (expected.body or expected.field) // 20
    if not (bytes_of("takes") or 0) <= limit + slack or not limit - slack <= (bytes_of("refuses") or 0):
        raise Failure(f"the limit of {limit} bytes is not between what is taken and what is not: {found}")
    if (found["loses_picture_bytes"] is None) != (expected.way != LOST and not expected.loses):
        raise Failure(f"pictures that are lost: {found}")
    likely = [one for one in found["likely"] if one["server"] == expected.row]
    if not likely:
        raise Failure(f"{expected.row} is not named: {found}")
    for document in DOCUMENTS:
        lines = [line for line in document.read_text().splitlines() if line.startswith("| ") and expected.row in line]
        if not any(likely[0]["setting"] in line for line in lines):
            raise Failure(f"{document.name} has another setting than {likely[0]['setting']}")
    others = [one["server"] for one in found["likely"] if one["server"] != expected.row]
    sure = f", or {', '.join(others)}" if others else ""
    return f"{expected.way} above {limit} bytes: {expected.row}{sure}: {likely[0]['setting']}"


def run(stack, programs):
    formats = list(stack.expected)
    with Scene(programs) as scene:
        try:
            stack.start(scene)
            scene.wait_until_it_listens()
            found = {one["format"]: one for one in scene.tried(programs, formats)["formats"]}
            for name in formats:
                print(f"  {stack.name}, {name}: {compare(found[name], stack.expected[name])} | ok", flush=True)
        except Failure as failure:
            raise Failure("\n".join([str(failure), *scene.logs()])) from None


def is_there(stack):
    """Whether all that a server needs is here; some of Node's need Node 20."""
    if stack.name == "Tomcat" and "SERVLET_CLASSPATH" not in os.environ:
        return False
    tool, _, version = stack.tool.partition(" ")
    if tool and not shutil.which(tool):
        return False
    return not version or int(subprocess.check_output([tool, "--version"], text=True).strip("v").split(".")[0]) >= int(version)


def mend_flask(programs):
    """A new integrator's first hour: a form that Flask refuses, and the setting that `try` prints for it, taken as it stands."""
    setting = None
    for turn in ("refused", "mended"):
        with Scene(programs) as scene:
            scene.environment = {"SETTING": setting} if setting else {}
            python("flask")(scene)
            scene.wait_until_it_listens()
            found = scene.tried(programs, ["form-data"])["formats"][0]
            if (found["refuses_picture_bytes"] is None) != (turn == "mended"):
                raise Failure(f"{turn}: {found}")
            setting = setting or found["likely"][0]["setting"]
    print(f"  Flask, form-data: with {setting}, every size | ok", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="tests/receivers/run")
    parser.add_argument("programs", type=Path)
    parser.add_argument("which", choices=("slice", "all"))
    parser.add_argument("--only", default="", metavar="TEXT", help="servers whose name contains TEXT")
    arguments = parser.parse_args()
    tests = {stack.name: (lambda stack=stack: run(stack, arguments.programs)) for stack in STACKS if stack.in_slice or arguments.which == "all"}
    tests["Flask mended"] = lambda: mend_flask(arguments.programs)
    stacks = {stack.name: stack for stack in STACKS}
    passed, failed = 0, 0
    for name, test in tests.items():
        if arguments.only not in name:
            continue
        stack = stacks.get(name)
        if stack and not is_there(stack):
            print(f"  SKIPPED {name}: no {stack.tool} here, or not all that it needs", flush=True)
            continue
        try:
            test()
            passed += 1
        except Failure as failure:
            failed += 1
            print(f"  {name} | FAILED: {failure}", flush=True)
    print(f"{passed} servers as the table says, {failed} not")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
