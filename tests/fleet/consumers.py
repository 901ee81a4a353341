"""The consumer of examples/fleet into a PostgreSQL that is started here: each event once, killed or not, window or not."""

import hashlib
import json
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from scene import FIXTURES, PATIENCE, Gateway, check, event, event_id, free_port, get, picture
from servers import EXAMPLES, Cluster, Node, acknowledged, operate


def postgres():
    """The folder of PostgreSQL's programs, or none."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return folders[-1].parent if folders else None


class Database:
    """A PostgreSQL of the test's own; as root it runs as its usual user, for it refuses root."""

    def __init__(self, scene, programs):
        folder, port = scene.dir / "postgres", free_port()
        folder.mkdir()
        user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        before = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"] if os.geteuid() == 0 else []
        if before:
            scene.dir.chmod(0o711)
            shutil.chown(folder, user, user)
        command = [*before, programs / "initdb", "--auth", "trust", "--username", "fleet", "--no-sync", "--pgdata", folder / "data"]
        subprocess.run(command, check=True, capture_output=True, cwd="/")
        settings = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        scene.start("postgres", [*before, programs / "postgres", "-D", folder / "data", *settings])
        self.url = f"postgresql://fleet@127.0.0.1:{port}/postgres"
        scene.wait(self.answers, "PostgreSQL answered")
        self.run((EXAMPLES / "schema.sql").read_text())

    def answers(self):
        try:
            return self.run("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    def run(self, text, *values):
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(text, values or None)
            return found.fetchall() if found.description else []

    def ids(self):
        return [one for (one,) in self.run("SELECT message_id FROM events ORDER BY message_id")]


def node_with_consumer(scene, stream_options=None, **consumer_options):
    """A server alone, with a stream and the durable consumer; the options are those that differ from the documented ones."""
    node = Node(scene).start()
    operate(node, lambda stream: stream.create(num_replicas=1, **(stream_options or {})))
    operate(node, lambda stream: stream.add_consumer(**consumer_options))
    return node


def consumer(scene, engine, database, *more, name="consumer"):
    command = [sys.executable, "-B", EXAMPLES / "consumer.py", "--servers", engine.url, "--database", database.url, *more]
    return scene.start(name, command)


def test_beyond_the_window_the_key_keeps_each_event_once(scene):
    if not (programs := postgres()):
        return "SKIPPED: no PostgreSQL here"
    database = Database(scene, programs)
    second = 1_000_000_000
    node = node_with_consumer(scene, {"duplicate_window": second // 5})
    gateway = Gateway(scene, node)
    process = consumer(scene, node, database)
    for number in range(3):
        check(gateway.post(event(ext_data={"dev_sno": "gate 1"}), event_id(number)).status == 200, "taken")

    # The box sends again until the stream has forgotten the id: then the event is there twice.
    def forgotten():
        check(gateway.post(event(ext_data={"dev_sno": "gate 1"}), event_id(1)).status == 200, "taken again")
        return operate(node, lambda stream: stream.info())["state"]["messages"] == 4

    scene.wait(forgotten, "the window passed")
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in event(identity_name="a\0b").items()}
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in form.items()]
    form = ("".join(parts) + "--edge--\r\n").encode()
    check(gateway.post(form, event_id(5), Content_Type="multipart/form-data; boundary=edge").status == 200, "a form")
    report = {"gateway_ip": "10.0.0.2", "gateway_name": "East", "gateway_status": "online", "gateway_sn": "SN"}
    for version in ("1", "2"):
        body = {**report, "gateway_ext_data": {"sw_version": version}, "sub_devices": []}
        check(gateway.post(body, path="/SophonFogStatus").status == 200, "a state report")
    scene.wait(lambda: acknowledged(node), "the consumer had everything")
    check(scene.kill(process, 15) == 0, "the consumer ends when it is told to")
    ring = event_id(0).split("-")[0]
    wanted = [f"{ring}:{event_id(5)}"] + [f"gate%201:{event_id(number)}" for number in range(3)]
    check(database.ids() == wanted, "each is there once:", database.ids())
    # Eight mentions of two pictures, each picture kept once, byte for byte.
    mentions = database.run("SELECT name, sha256 FROM event_pictures")
    kept = dict(database.run("SELECT sha256, jpeg FROM pictures"))
    check(len(mentions) == 8 and len(kept) == 2, len(mentions), "mentions of", len(kept))
    check(all(hashlib.sha256(jpeg).hexdigest() == digest for digest, jpeg in kept.items()), "digests")
    check(kept[mentions[0][1]] in {(FIXTURES / name).read_bytes() for name in ("chelsea-reg-15k.jpg", "chelsea-spot-50k.jpg")}, "bytes")
    check(database.run("SELECT report->'gateway_ext_data'->>'sw_version' FROM boxes") == [("2",)], "the last report of a box")


def test_consumers_that_are_killed_leave_nothing_out_and_nothing_twice(scene):
    if not (programs := postgres()):
        return "SKIPPED: no PostgreSQL here"
    database = Database(scene, programs)
    cluster = Cluster(scene).start()
    operate(cluster, lambda stream: stream.create())
    operate(cluster, lambda stream: stream.add_consumer())
    operate(cluster, lambda stream: stream.shorten("store"))
    gateway = Gateway(scene, cluster, *cluster.gateway_login())
    login = ["--seed", scene.dir / "CONSUMER.seed", "--tls-ca", scene.dir / "ca.crt"]
    total, large = 40, picture("rocket-500k.jpg")
    process = consumer(scene, cluster, database, *login)
    for number in range(total):
        body = event(ext_data={"spot_pic": large})
        scene.wait(lambda: gateway.post(body, event_id(number)).status == 200, "taken")
        if number % 10 == 9:
            scene.wait(lambda: database.ids(), "some were stored")
            scene.kill(process)
            process = consumer(scene, cluster, database, *login)
    scene.wait(lambda: acknowledged(cluster), "the consumer had everything")
    check("send: Batch Completed" not in scene.log("consumer"), "the end of one batch was taken for a refusal of the next one")
    ring = event_id(0).split("-")[0]
    check(database.ids() == sorted(f"{ring}:{event_id(number)}" for number in range(total)), "each once:", len(database.ids()))
    check(database.run("SELECT count(*), count(DISTINCT sha256) FROM event_pictures") == [(2 * total, 2)], "two pictures each")


def test_a_consumer_leaves_a_server_that_is_cut_off(scene):
    """A server that is stopped answers nothing and closes nothing, as one behind a cable that was pulled."""
    if not (programs := postgres()):
        return "SKIPPED: no PostgreSQL here"
    database = Database(scene, programs)
    cluster = Cluster(scene).start()
    operate(cluster, lambda stream: stream.create())
    operate(cluster, lambda stream: stream.add_consumer())
    gateway = Gateway(scene, cluster, *cluster.gateway_login())
    consumer(scene, cluster, database, "--seed", scene.dir / "CONSUMER.seed", "--tls-ca", scene.dir / "ca.crt")

    def server_of_the_consumer():
        return next((node for node in cluster.nodes if "python" in get(f"http://127.0.0.1:{node.monitor}/connz")[1]), None)

    os.kill(scene.wait(server_of_the_consumer, "the consumer had a server").process.pid, signal.SIGSTOP)
    scene.wait(lambda: gateway.post(event(), event_id(1)).status == 200, "an event was taken")
    scene.wait(database.ids, "the consumer had found another server")


def test_a_refused_pull_is_logged_and_tried_again(scene):
    if not (programs := postgres()):
        return "SKIPPED: no PostgreSQL here"
    database = Database(scene, programs)
    node = node_with_consumer(scene, max_batch=2)
    gateway = Gateway(scene, node)
    check(gateway.post(event(ext_data={"dev_sno": "gate 1"}), event_id(0)).status == 200, "taken")
    consumer(scene, node, database)
    scene.wait(lambda: "refuses to send: Exceeded MaxRequestBatch" in scene.log("consumer"), "the refusal was logged")
    check(database.ids() == [], "nothing came")
    operate(node, lambda stream: stream.add_consumer())
    scene.wait(lambda: database.ids() == [f"gate%201:{event_id(0)}"], "the event came once the limit was raised")


def test_a_message_that_cannot_be_stored_is_set_aside_and_the_others_go_on(scene):
    if not (programs := postgres()):
        return "SKIPPED: no PostgreSQL here"
    database = Database(scene, programs)
    node = node_with_consumer(scene)
    # What a gateway takes: "\ud800" is half a character, and no double is as large as 1e999.
    gateway = Gateway(scene, node)
    plain = event(ext_data={"dev_sno": "gate 1", "note": "NOTE"})
    taken = [json.dumps(plain).replace('"NOTE"', note).encode() for note in (r'"\ud800"', "1e999")]
    taken += [json.dumps({**plain, "identity_id": random.Random(1).randbytes(4000).hex()}).encode()]  # an index takes 2704 bytes
    for number, body in enumerate(taken):
        check((answer := gateway.post(body, event_id(number))).status == 200, "taken:", body[-100:], answer)
    # What none made, each with one fault.
    good = {"Content-Type": "application/json", "Event-Time": "1700000000000", "Event-Score": "0.5"}
    form = {**good, "Content-Type": "multipart/form-data; boundary=edge"}
    nested = b"--edge\r\nContent-Type: multipart/mixed; boundary=inner\r\n\r\n--inner\r\n\r\nx\r\n--inner--\r\n--edge--\r\n"
    bare = {"identity_id": "1", "identity_name": "", "ext_data": {}}
    made = [(None, bare), (good, []), (good, {**bare, "identity_id": 7}), (good, {**bare, "identity_name": "\ud800"})]
    made += [({**good, "Event-Pictures": f"ext_data/spot_pic={'0' * 64}:3"}, bare)]
    made += [({**good, "Event-Pictures": "reg_pic=x"}, {**bare, "reg_pic": 7}), ({**good, "Event-Time": "9" * 400}, bare)]
    made += [({**good, "Event-Time": "9" * 18}, bare), (form, bare)]
    made = [(headers, json.dumps(body).encode()) for headers, body in made] + [(good, b"[" * 100_000), (good, b"{"), (form, nested)]
    for number, (headers, body) in enumerate(made):
        headers = headers and {**headers, "Nats-Msg-Id": f"made {number}"}
        operate(node, lambda stream: stream.client.request("events.gate.realtime", body, timeout=20, headers=headers))
    check(gateway.post(plain, event_id(100)).status == 200, "a good one")
    process = consumer(scene, node, database)
    scene.wait(lambda: acknowledged(node), "the consumer was through")
    check(database.ids() == [f"gate%201:{event_id(100)}"], "the good one is there:", database.ids())
    check(database.run("SELECT count(*) FROM event_pictures") == [(2,)], "and nothing of the others")
    lines = [line for line in scene.log("consumer").splitlines() if "cannot be stored and is left out" in line]
    numbers = [int(line.partition(" message ")[2].partition(",")[0]) for line in lines]
    check(numbers == list(range(1, len(taken) + len(made) + 1)), "each is named once:", *lines)
    check(scene.kill(process, 15) == 0, "the consumer ends when it is told to")


def test_a_database_without_utf_8_is_refused(scene):
    """It has no characters for most names: all of their events would be set aside."""
    if not (programs := postgres()):
        return "SKIPPED: no PostgreSQL here"
    database = Database(scene, programs)
    database.run("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    node = Node(scene).start()
    database.url = database.url.replace("/postgres", "/latin")
    process = consumer(scene, node, database)
    scene.running.remove(process)
    scene.ending.append(process)
    check(process.wait(PATIENCE) == 1 and "encoding is LATIN1" in scene.log("consumer"), "refused:", scene.log("consumer"))


TESTS = [value for name, value in list(globals().items()) if name.startswith("test_")]
