"""Every row of the outcome table that one server can produce, and what a gateway looks at before it takes anything."""

import hashlib
import http.client
import json
import os
import random
import socket
from pathlib import Path

from scene import Gateway, check, event, event_id, get, sized
from servers import Node, operate

LIMIT = 12582912 - 8192  # the stream's max_msg_size without the room for headers


def with_stream(scene, *options, **changes):
    node = Node(scene).start()
    operate(node, lambda stream: stream.create(num_replicas=1, **changes))
    return node, Gateway(scene, node, *options)


def messages(node):
    return operate(node, lambda stream: stream.messages())


def refused(answer, status, *texts):
    check(answer.status == status and all(text in answer.text for text in texts), "expected", status, texts, "and it was", answer)
    if status == 503:
        check(1 <= int(answer.headers.get("Retry-After", "0")) <= 60, "no Retry-After:", dict(answer.headers))


def test_an_event_is_one_message_whatever_comes_twice(scene):
    node, gateway = with_stream(scene)
    body = json.dumps(event(ext_data={"dev_sno": "gate 1"})).encode()
    for turn in ("once", "twice"):
        answer = gateway.post(body, event_id(7))
        check(answer.status == 200 and "reg_pic" in answer.text, turn, answer)
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in event().items()}
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in form.items()]
    form = ("".join(parts) + "--edge--\r\n").encode()
    check(gateway.post(form, event_id(8), Content_Type="multipart/form-data; boundary=edge").status == 200, "a form")
    history = event(ext_data={"dev_sno": "gate 1", "grab_fiqa_info": {}, "box_fiqa_info": {}})
    check(gateway.post(history, event_id(7) + "-history", path="/HistoryEvent").status == 200, "history")
    report = {"gateway_ip": "10.0.0.2", "gateway_name": "East", "gateway_status": "online", "gateway_sn": "SN-1"}
    report |= {"dev_sno": "gate 1", "gateway_ext_data": {}, "sub_devices": []}
    for _ in range(2):
        check(gateway.post(report, path="/SophonFogStatus").status == 200, "a state report")

    found = messages(node)
    ring = event_id(0).split("-")[0]
    subjects = ["events.gate%201.realtime", f"events.{ring}.realtime", "events.gate%201.history"] + ["events.gate%201.status"] * 2
    check([subject for subject, _, _ in found] == subjects, "subjects:", [subject for subject, _, _ in found])
    (_, headers, data), (_, form_headers, form_data) = found[:2]
    check(data == body and form_data == form, "the bodies are as they came")
    check(form_headers["Content-Type"] == "multipart/form-data; boundary=edge", form_headers)
    check(headers["Nats-Msg-Id"] == f"gate%201:{event_id(7)}" and headers["Event-Id"] == event_id(7), headers)
    check((headers["Event-Score"], headers["Event-Time"]) == ("0.93", "1700000000000"), headers)
    fixture = (Path(__file__).parents[1] / "fixtures" / "chelsea-reg-15k.jpg").read_bytes()
    noted = f"reg_pic={hashlib.sha256(fixture).hexdigest()}:{len(fixture)}, ext_data/spot_pic="
    check(headers["Event-Pictures"].startswith(noted), headers)
    for path in ("/", "/api/events", "/boxes", "/api/stream", "/receiver.js"):
        check(get(gateway.url + path)[0] == 404, "a gateway shows nobody what came in:", path)
    counted = [gateway.metric(name) for name in ("published_total", "duplicates_total", "ack_seconds_count")]
    check(counted == [5, 1, 6], "metrics:", counted)
    check(gateway.metric('ack_seconds_bucket{le="+Inf"}') == 6 and gateway.metric("in_flight_bytes") == 0, "metrics")


def test_an_id_that_is_missing_empty_or_too_long_is_refused(scene):
    node, gateway = with_stream(scene)
    for bad in (None, "", "x" * 129, "a b"):
        refused(gateway.post(event(), bad), 400, "X-Event-Id")
    refused(gateway.post(event(), "not-a-rings-id"), 400, "box: came")
    check(gateway.post(event(ext_data={"dev_sno": "d"}), "x" * 128).status == 200, "an id of 128 characters")
    check(len(messages(node)) == 1, "only the good one is there")
    check(gateway.metric('refused_total{reason="bad_id"}') == 4, "counted by reason")


def test_what_is_too_large_is_refused_before_it_is_sent(scene):
    node, gateway = with_stream(scene)
    check(gateway.post(sized(LIMIT), event_id(1)).status == 200, "the largest body")
    head = f"POST /RealTimeEvent HTTP/1.1\nHost: x\nX-Event-Id: {event_id(2)}\nContent-Type: application/json\nContent-Length: {LIMIT + 1}\n\n"
    answer = gateway.raw(head)
    check(answer.startswith("HTTP/1.1 413 ") and str(LIMIT) in answer, "not a byte of it was sent:", answer)
    refused(gateway.post(sized(LIMIT + 1), event_id(2)), 413, str(LIMIT))
    # The stream takes less now. Whether the gateway has seen it or the stream says it, the answer is the same.
    operate(node, lambda stream: stream.update(max_msg_size=100_000))
    refused(gateway.post(sized(200_000), event_id(3)), 413)
    check([len(data) for _, _, data in messages(node)] == [LIMIT], "one message")
    # A server with NATS' own max_payload, 1 MiB.
    small = Node(scene, "small")
    small.config.write_text(small.config.read_text().replace("max_payload: 16MB\n", ""))
    small.start()
    operate(small, lambda stream: stream.create(num_replicas=1))
    gateway = Gateway(scene, small, name="gateway-small")
    scene.wait(lambda: "max_payload is 1048576 bytes" in scene.log("gateway-small"), "it was warned of")
    refused(gateway.post(sized((1 << 20) - 8191), event_id(4)), 413, str((1 << 20) - 8192))
    check(gateway.post(sized((1 << 20) - 8192), event_id(4)).status == 200, "what fits is taken")


def test_a_full_stream_is_503_until_there_is_room(scene):
    node, gateway = with_stream(scene, max_bytes=280_000)
    stored = 0
    while (answer := gateway.post(event(), event_id(stored))).status == 200:
        stored += 1
        check(stored < 10, "it never was full")
    refused(answer, 503, "10077", "max_bytes")
    check(int(answer.headers["Retry-After"]) >= 15 and gateway.metric('alarms_total{reason="full"}') == 1, "later, and an alarm")
    scene.wait(lambda: "ALARM" in scene.log("gateway"), "an alarm was in the log")
    check(gateway.post(event(), event_id(0)).status == 200, "what is stored is acknowledged, full or not")
    scene.wait(lambda: gateway.metric("stream_fullness_ratio") >= 0.9, "the metrics said that it is nearly full")
    scene.wait(lambda: "% full" in scene.log("gateway"), "the log said it, too")
    operate(node, lambda stream: stream.update(max_bytes=1 << 30))
    check(gateway.post(event(), event_id(stored)).status == 200, "there is room")
    check(len(messages(node)) == stored + 1, "each once")


def test_a_stream_that_would_lose_or_double_events_is_refused(scene):
    node = Node(scene).start()
    gateway = Gateway(scene, node, ready=False)
    scene.wait(lambda: "there is no stream EVENTS" in gateway.fault(), "it said that there is no stream")
    refused(gateway.post(event(), event_id(1)), 503, "there is no stream EVENTS")
    for changes, words in (
        ({"discard": "old"}, 'discard is old: a full stream would lose its oldest events silently; set \\"discard\\":\\"new\\"'),
        ({"storage": "memory"}, "storage is memory"),
        ({"retention": "workqueue"}, "retention is workqueue"),
        ({"persist_mode": "async"}, "persist_mode is async"),
        ({"subjects": ["ev.>"]}, "subjects is ev.>"),
        ({"max_msgs_per_subject": 3}, "max_msgs_per_subject is 3"),
        ({"no_ack": True}, "no_ack is true"),
    ):
        operate(node, lambda stream: stream.create(num_replicas=1, **changes))
        scene.wait(lambda: words in gateway.fault(), f"it said {words!r}; it says {gateway.fault()!r}")
        refused(gateway.post(event(), event_id(1)), 503)
        check(get(f"{gateway.url}/metrics")[1].count("sophon_gateway_ready 0\n") == 1, "not ready in the metrics")
        operate(node, lambda stream: stream.api("STREAM.DELETE.EVENTS"))
    operate(node, lambda stream: stream.create(num_replicas=1))
    scene.wait(gateway.is_ready, "it was ready without a restart")
    check(gateway.post(event(), event_id(1)).status == 200 and len(messages(node)) == 1, "and takes events")
    scene.wait(lambda: "one copy" in scene.log("gateway"), "one copy was warned of")


def test_a_gateway_waits_for_its_servers_and_outlives_them(scene):
    node = Node(scene)
    gateway = Gateway(scene, node, ready=False)
    check("not connected" in gateway.fault(), gateway.fault())
    refused(gateway.post(event(), event_id(1)), 503, "not connected")
    node.start()
    operate(node, lambda stream: stream.create(num_replicas=1))
    scene.wait(gateway.is_ready, "it was ready")
    check(gateway.post(event(), event_id(1)).status == 200, "taken")
    node.kill()
    refused(gateway.post(event(), event_id(2)), 503)
    scene.wait(gateway.fault, "it said that the server is gone")
    node.start()
    scene.wait(gateway.is_ready, "it was ready again")
    for number in (1, 2):
        check(gateway.post(event(), event_id(number)).status == 200, "taken after the restart")
    check(len(messages(node)) == 2, "the id of before the restart is known")


def test_a_server_that_is_too_old_is_refused_by_its_version(scene):
    program = Path(os.environ.get("NATS_SERVER_OLD", ""))
    if not program.is_file():
        return "SKIPPED: no nats-server 2.9.10 here (Debian's)"
    node = Node(scene, program=program, sync="")
    node.start()
    gateway = Gateway(scene, node, ready=False)
    scene.wait(lambda: "nats-server 2.9.10 is too old" in gateway.fault(), "it named the version")
    refused(gateway.post(event(), event_id(1)), 503, "2.9.10")


def test_a_box_writes_its_own_subject_alone(scene):
    boxes = scene.dir / "boxes"
    boxes.write_text("gate-1 0123456789abcdef-1\ngate-2 0123456789abcdef-2\n")
    boxes.chmod(0o644)
    unsafe = scene.start("unsafe", [scene.programs / "gateway", "--jetstream", "nats://127.0.0.1:1", "--boxes", boxes])
    check(unsafe.wait(60) == 1 and "chmod 600" in scene.log("unsafe"), "a file that others can read")
    scene.running.remove(unsafe)
    boxes.chmod(0o600)
    node, gateway = with_stream(scene, "--boxes", boxes)

    def post(token, number, **ext_data):
        return gateway.post(event(ext_data=ext_data), event_id(number), Authorization=f"Bearer {token}")

    refused(gateway.post(event(), event_id(1)), 401, "Authorization: missing")
    for token in ("0123456789abcdef-3", "0123456789abcdef-", "", "gate-1"):
        refused(post(token, 1), 401)
    check(gateway.raw(f"POST /RealTimeEvent HTTP/1.1\nHost: x\nContent-Length: {LIMIT}\n\n").startswith("HTTP/1.1 401 "), "by its head alone")
    refused(post("0123456789abcdef-1", 1, dev_sno="gate-2"), 403, "gate-2")
    check(post("0123456789abcdef-1", 1, dev_sno="gate-1").status == 200 and post("0123456789abcdef-2", 1).status == 200, "its own")
    check([subject for subject, _, _ in messages(node)] == ["events.gate-1.realtime", "events.gate-2.realtime"], "by their tokens")
    check(gateway.metric('refused_total{reason="unknown_box"}') == 6, "counted")


def test_bodies_in_memory_have_a_budget(scene):
    node, gateway = with_stream(scene)
    head = f"POST /RealTimeEvent HTTP/1.1\nHost: x\nX-Event-Id: {event_id(1)}\nContent-Type: application/json\nContent-Length: {LIMIT}\n\n"
    slow = []
    budget = gateway.metric("in_flight_limit_bytes")
    while (len(slow) + 1) * LIMIT <= budget:
        client = socket.create_connection(("127.0.0.1", gateway.port))
        client.sendall(head.replace("\n", "\r\n").encode() + b"{")
        slow.append(client)
        scene.wait(lambda: gateway.metric("in_flight_bytes") >= len(slow) * LIMIT, "its part of the budget was taken")
    answer = gateway.raw(head)
    check(answer.startswith("HTTP/1.1 503 ") and "retry-after: " in answer, "no room:", answer)
    check(gateway.metric("in_flight_bytes") <= budget, "not more than the budget")
    for client in slow:
        client.close()
    scene.wait(lambda: gateway.metric("in_flight_bytes") == 0, "the budget was free again")
    check(gateway.post(sized(LIMIT), event_id(2)).status == 200, "and there is room")
    check(gateway.metric('refused_total{reason="no_room"}') == 1, "counted")


def test_the_budget_is_held_by_what_the_servers_have_not_taken(scene):
    """A server that takes nothing: what was published to it is still in memory after the box has been told 503."""
    node, gateway = with_stream(scene)
    os.kill(node.process.pid, 19)  # SIGSTOP
    refused(gateway.post(sized(LIMIT), event_id(1)), 503)
    held = gateway.metric("in_flight_bytes")
    check(held >= LIMIT, "it is counted as long as it is there:", held)
    os.kill(node.process.pid, 18)
    scene.wait(lambda: gateway.metric("in_flight_bytes") == 0, "it was written, or dropped with its connection")
    scene.wait(gateway.is_ready, "it was ready again")
    check(gateway.post(sized(LIMIT), event_id(1)).status == 200 and len(messages(node)) == 1, "the same id settles it")


def hostile():
    """What tests/receiver sends of the kind that is no event: (content type, body)."""
    json_type, form = "application/json", "multipart/form-data; boundary=between"
    deep = "[" * 100_000 + "]" * 100_000
    good = json.dumps(event())
    yield from [(json_type, body) for body in (b"", b"[]", b'{"score":1', b"{} {}", b"\xff", b"\0" * 1000, deep.encode())]
    yield json_type, ("{" + '"a":1,' * 100_000 + '"a":1}').encode()
    yield json_type, good.replace('"ext_data": {', '"ext_data": {"x":' + deep + ",").encode()
    for key in json.loads(good):
        yield json_type, json.dumps({name: value for name, value in event().items() if name != key}).encode()
        yield json_type, json.dumps(event(**{key: None})).encode() if key != "ext_data" else good.replace('{"spot', '["spot').encode()
    for picture in ("/9j/4A", "_9j_4A==", "data:image/jpeg;base64,/9j/4A==", "iVBORw0KGgo=", "\ud800", "x" * (1 << 20)):
        yield json_type, json.dumps(event(reg_pic=picture)).encode()
    yield form, b"--between\r\nContent-Disposition: form-data; name=\"reg_pic\"\r\n\r\n\xff\xd8\xff\xe0\r\n--between--"
    yield form, b"--between\r\n" * 1000
    yield form, b"".join(b'--between\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' for _ in range(200)) + b"--between--\r\n"
    for other in ("multipart/form-data", "text/plain", "application/json; charset=gbk", "", "application/json\tx"):
        yield other, good.encode()


def test_hostile_bodies_get_an_answer_and_store_nothing(scene):
    node, gateway = with_stream(scene)
    for number, (kind, body) in enumerate(hostile()):
        answer = gateway.post(body, event_id(number), Content_Type=kind)
        check(answer.status in (400, 415) and json.loads(answer.text)["errors"], number, kind, body[:60], "was answered", answer)
    # A header must not reach the protocol behind: line breaks of any kind, in ids and names.
    for bad in ("a\x0bb", "a\x85b", "a\tb"):
        try:
            refused(gateway.post(event(), bad), 400)
        except (http.client.HTTPException, ValueError):
            continue
    check(gateway.post(event(ext_data={"dev_sno": "a\r\nPUB events.x 0\r\n\r\n.*>"}), event_id(500)).status == 200, "a name with line breaks")
    seed = random.randrange(1 << 32)
    scene.notes.append(f"seed {seed}")
    chance, good, stored = random.Random(seed), json.dumps(event(reg_pic="")).encode(), 0
    for number in range(1000, 1300):
        body = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(body))
            body[place:place + chance.choice([0, 1, 1, 50])] = chance.choice([b"", b"\0", b'"', b"}", b"\\", b"\xff", b"9", b"[", b"\r\n"])
        answer = gateway.post(bytes(body), event_id(number))
        check(answer.status in (200, 400), number, "was answered", answer)
        stored += answer.status == 200
    found = messages(node)
    check(len(found) == stored + 1, stored, "were answered with 200, and there are", len(found) - 1)
    check(found[0][0] == "events.a%0D%0APUB%20events%2Ex%200%0D%0A%0D%0A%2E%2A%3E.realtime", found[0][0])
    check(gateway.process.poll() is None and gateway.post(event(), event_id(9)).status == 200, "and it serves on")


TESTS = [value for name, value in list(globals().items()) if name.startswith("test_")]
