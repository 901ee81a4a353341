"""Three servers as examples/fleet sets them up, killed one by one and together; then the whole way, from shared memory to a consumer."""

import asyncio
import base64
import hashlib
import json
import signal
import statistics
import sys
import threading
import time
from types import SimpleNamespace

from scene import ROOT, Gateway, check, event, event_id, picture
from servers import Cluster, Stream, connected, operate

sys.path.insert(0, str(ROOT / "scripts" / "lib"))
from compare import compare, read_lines  # noqa: E402


def with_stream(scene):
    cluster = Cluster(scene).start()
    operate(cluster, lambda stream: stream.create())
    return cluster, Gateway(scene, cluster, *cluster.gateway_login())


def ids(cluster):
    return [headers["Event-Id"] for _, headers, _ in operate(cluster, lambda stream: stream.messages())]


def reached(gateway):
    """How often the servers, and not their absence, were the reason of a 503."""
    return sum(gateway.metric(f'refused_total{{reason="{reason}"}}') for reason in ("timeout", "in_process", "no_responders"))


def until_taken(scene, gateway, number):
    """Sends an event as a box does: again until it is acknowledged. Every other answer must be 503."""
    answers = []

    def taken():
        answers.append(gateway.post(event(), event_id(number)))
        check(answers[-1].status in (200, 503), "neither 200 nor 503:", answers[-1])
        return answers[-1].status == 200

    scene.wait(taken, f"event {number} was taken")
    return [answer for answer in answers if answer.status == 503]


def test_without_a_quorum_nothing_is_acknowledged_and_nothing_is_lost(scene):
    cluster, gateway = with_stream(scene)
    check(gateway.post(event(), event_id(1)).status == 200, "taken")
    leader = cluster.leader()

    # The leader alone, by kill -9: another takes over.
    leader.kill()
    late = until_taken(scene, gateway, 2)
    check(all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in late), "Retry-After")

    # Both of those that follow: no quorum. No new event may be acknowledged, not when it comes again while it is "in process" either.
    # What had a quorum before may be: a leader remembers its id.
    leader.start(wait=False)
    scene.wait(lambda: all(node.is_healthy() for node in cluster.nodes), "all were healthy")
    leader = cluster.leader()
    others = [node for node in cluster.nodes if node is not leader]
    for node in others:
        node.kill()
    asked = reached(gateway)

    def not_taken():
        answer = gateway.post(event(), event_id(3))
        check(answer.status == 503 and int(answer.headers["Retry-After"]) >= 1, "without a quorum:", answer)
        return reached(gateway) >= asked + 3

    scene.wait(not_taken, "the event was asked for three times")
    check(gateway.post(event(), event_id(2)).status in (200, 503), "a duplicate")
    scene.wait(lambda: "the stream EVENTS" in gateway.fault(), "/healthz said that there is no quorum")
    for node in others:
        node.start(wait=False)
    for number in (1, 2, 3, 4):
        until_taken(scene, gateway, number)
    check(ids(cluster) == [event_id(number) for number in (1, 2, 3, 4)], "each is there once, in order:", ids(cluster))

    # All three at once.
    for node in cluster.nodes:
        node.kill()
    check(gateway.post(event(), event_id(5)).status == 503, "nobody is there")
    for node in cluster.nodes:
        node.start(wait=False)
    for number in (5, 1, 4):
        until_taken(scene, gateway, number)
    check(ids(cluster) == [event_id(number) for number in (1, 2, 3, 4, 5)], "kill -9 of all three loses nothing that was acknowledged")

    # The gateway's user may publish events and look at the stream, and nothing else.
    operator, cluster.nodes[0].login["user"] = cluster.nodes[0].login["user"], str(scene.dir / "GATEWAY.seed")
    try:
        operate_once(cluster, "STREAM.DELETE.EVENTS")
        check(False, "a gateway's user deleted the stream")
    except (asyncio.TimeoutError, TimeoutError):
        pass
    cluster.nodes[0].login["user"] = operator
    check(len(ids(cluster)) == 5, "the stream is there")


def operate_once(cluster, what):
    async def run():
        client = await connected(cluster)
        try:
            await client.request(f"$JS.API.{what}", b"", timeout=2)
        finally:
            await client.close()

    asyncio.run(run())


def slowed(process, stopping):
    """Lets a process run for a tenth of the time."""
    while not stopping.is_set():
        process.send_signal(signal.SIGSTOP)
        stopping.wait(0.09)
        process.send_signal(signal.SIGCONT)
        stopping.wait(0.01)


def test_a_server_that_is_slow_or_silent_costs_what_its_absence_costs(scene):
    cluster = Cluster(scene).start()
    operate(cluster, lambda stream: stream.create())
    leader = cluster.leader()
    gateway = Gateway(scene, SimpleNamespace(url=leader.url), *cluster.gateway_login())  # connected to the leader
    follower = next(node for node in cluster.nodes if node is not leader)
    body = json.dumps(event(reg_pic=picture("chelsea-spot-50k.jpg"), ext_data={"spot_pic": picture("cameraman-spot-100k.jpg")})).encode()
    numbers = iter(range(1, 1000))

    def send(what, count=60):
        took = []
        for _ in range(count):
            began = time.monotonic()
            answer = gateway.post(body, event_id(next(numbers)))
            took.append((time.monotonic() - began) * 1000)
            check(answer.status == 200, f"while {what}:", answer)
        took.sort()
        scene.notes.append(f"{what}: p50 {statistics.median(took):.1f} ms, p90 {took[count * 9 // 10]:.1f} ms")

    send("all three are well")
    stopping = threading.Event()
    slowing = threading.Thread(target=slowed, args=(follower.process, stopping))
    slowing.start()
    try:
        send("a follower has a tenth of the time")
    finally:
        stopping.set()
        slowing.join()
    follower.process.send_signal(signal.SIGSTOP)
    send("a follower is silent")
    follower.process.send_signal(signal.SIGCONT)
    scene.wait(lambda: all(node.is_healthy() for node in cluster.nodes), "the follower had caught up")
    follower.kill()
    send("a follower is gone")
    check(ids(cluster) == [event_id(number) for number in range(1, next(numbers))], "each is there once, in order:", len(ids(cluster)))


def test_the_same_event_twice_at_once_is_one_message(scene):
    cluster, first = with_stream(scene)
    second = Gateway(scene, cluster, *cluster.gateway_login(), name="gateway-2")
    large = picture("hubble-2m.jpg")
    body = json.dumps(event(reg_pic=large, ext_data={"spot_pic": large})).encode()
    seen = []
    for number in range(4):
        answers = []
        posts = [threading.Thread(target=lambda by=by: answers.append(by.post(body, event_id(number)))) for by in (first, second) * 2]
        for post in posts:
            post.start()
        for post in posts:
            post.join()
        check(len(answers) == 4 and all(answer.status in (200, 503) for answer in answers), answers)
        seen += [answer.status for answer in answers]
        for gateway in (first, second):
            scene.wait(lambda: gateway.post(body, event_id(number)).status == 200, "the same id settled it")
    scene.notes.append(f"of {len(seen)} at once, {seen.count(503)} were told 503")
    check(ids(cluster) == [event_id(number) for number in range(4)], "one message each:", ids(cluster))


def digest(text):
    data = base64.b64decode(text)
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} if data else None


async def consume(cluster, count):
    """Reads so many messages through the durable consumer of examples/fleet, and hashes every picture."""
    client = await connected(cluster)
    try:
        received = []
        await Stream(client).add_consumer()
        puller = await client.jetstream().pull_subscribe_bind("store", "EVENTS")
        while len(received) < count:
            for message in await puller.fetch(1, timeout=30):
                body = json.loads(message.data)
                pictures = {"reg_pic": digest(body["reg_pic"]), "spot_pic": digest(body["ext_data"]["spot_pic"])}
                noted = ", ".join(f"{'ext_data/' if name == 'spot_pic' else ''}{name}={one['sha256']}:{one['bytes']}" for name, one in pictures.items())
                check(message.headers["Event-Pictures"] == noted, "the digests are those of the pictures:", message.headers)
                received.append({"id": message.headers["Event-Id"], **pictures})
                await message.ack()
        return received
    finally:
        await client.close()


def test_from_shared_memory_to_a_consumer_with_a_gateway_killed_in_between(scene):
    cluster, gateway = with_stream(scene)
    ring = scene.ring_dir / "events.ring"
    config = {"rings": [str(ring)], "event_server_url": [f"{gateway.url}/RealTimeEvent"], "spool": {"dir": str(scene.dir / "spool")}}
    config |= {"ext_data": {"dev_sno": "gate-1"}, "api": {"listen": "127.0.0.1:0", "token_file": str(scene.dir / "api.token")}}
    (scene.dir / "uplink.json").write_text(json.dumps(config))
    scene.start("uplink", [scene.programs / "sophon-uplink", "run", "--config", scene.dir / "uplink.json"])
    published, total = scene.dir / "recognizer.log", 60
    recognizer = [scene.programs / "fake-recognizer", "--ring", ring, "--pictures", ROOT / "tests" / "fixtures"]
    process = scene.start("recognizer", [*recognizer, "--rate", "20", "--count", total, "--seed", "3"])
    scene.running.remove(process)  # it ends by itself

    def stored():
        return operate(cluster, lambda stream: stream.info())["state"]["messages"]

    scene.wait(lambda: stored() >= 10, "some events arrived")
    gateway.kill()
    listen = f"127.0.0.1:{gateway.port}"
    scene.wait(lambda: len(read_lines(published)) >= 40, "more were published")
    gateway = Gateway(scene, cluster, *cluster.gateway_login(), listen=listen)
    check(process.wait(90) == 0, "the recognizer ended")
    scene.wait(lambda: stored() >= total, "all events arrived")
    received = asyncio.run(consume(cluster, total))
    report = compare(read_lines(published), received)
    check(report.agrees and report.expected == total and stored() == total, report.verdict(), *report.details())
    scene.notes.append(f"{report.verdict()}; {gateway.metric('duplicates_total'):.0f} came twice to the second gateway")


TESTS = [value for name, value in list(globals().items()) if name.startswith("test_")]
