"""What an acknowledged event survives, by how the servers and the stream are set: the table of docs/fleet.md.

    tests/fleet/run DIR --survives

Each row publishes events through two gateways from eight senders, kills servers by SIGKILL again and again meanwhile, starts them
again, and looks for every event that was acknowledged; then it sends all of them once more, and none may be new.
Settings that a gateway refuses are shown by the library alone, for what they lose."""

import asyncio
import itertools
import json
import threading

from scene import Gateway, Scene, check, event, event_id
from servers import Cluster, Node, connected, operate

EVENTS = 1500
KILLS = 5


def one_node(sync):
    def start(scene):
        node = Node(scene, sync=sync).start()
        operate(node, lambda stream: stream.create(num_replicas=1))
        return node, [node], []

    return start


def cluster(sync, replicas):
    def start(scene):
        made = Cluster(scene)
        for node in made.nodes:
            node.config.write_text(node.config.read_text().replace("sync_interval: always", sync))
        made.start()
        operate(made, lambda stream: stream.create(num_replicas=replicas))
        return made, made.nodes, made.gateway_login()

    return start


def send(gateways, numbers, acknowledged, lock):
    """Sends events as boxes do: each again until it is acknowledged."""
    for number in numbers:
        for gateway in itertools.cycle(gateways):
            answer = gateway.post(event(reg_pic="", ext_data={"spot_pic": ""}), event_id(number))
            check(answer.status in (200, 503), answer)
            if answer.status == 200:
                break
        with lock:
            acknowledged.append(number)


def survives(scene, start, together):
    engine, nodes, login = start(scene)
    gateways = [Gateway(scene, engine, *login, name=f"gateway-{number}") for number in (1, 2)]
    numbers, acknowledged, lock = iter(range(EVENTS)), [], threading.Lock()

    def numbered():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    senders = [threading.Thread(target=send, args=(gateways, numbered(), acknowledged, lock)) for _ in range(8)]
    for sender in senders:
        sender.start()
    for turn in range(1, KILLS + 1):
        scene.wait(lambda: len(acknowledged) >= turn * EVENTS // (KILLS + 2), "more were acknowledged")
        killed = nodes if together else [nodes[turn % len(nodes)]]
        for node in killed:
            node.kill()
        for node in killed:
            node.start(wait=False)
        scene.wait(lambda: all(node.is_healthy() for node in nodes), "all were healthy again", patience=180)
    for sender in senders:
        sender.join()
    found = [headers["Event-Id"] for _, headers, _ in operate(engine, lambda stream: stream.messages())]
    lost = len({event_id(number) for number in acknowledged} - set(found))
    for gateway in gateways:
        scene.wait(gateway.is_ready, "ready")
    again = gateways[0].metric("published_total")
    for number in range(EVENTS):
        while gateways[0].post(event(reg_pic="", ext_data={"spot_pic": ""}), event_id(number)).status != 200:
            pass
    new = int(gateways[0].metric("published_total") - again)
    return f"{len(acknowledged)} acknowledged, {lost} lost, {len(found) - len(set(found))} twice; sent again: {new} new"


def without(scene, kills, **changes):
    """What a setting loses that a gateway refuses."""
    node = Node(scene).start()
    operate(node, lambda stream: stream.create(num_replicas=1, **changes))

    async def publish():
        client = await connected(node)
        acknowledged = 0
        for number in range(200):
            answer = await client.request("events.a.realtime", b"x" * 10_000, headers={"Nats-Msg-Id": str(number)}, timeout=5)
            acknowledged += "seq" in json.loads(answer.data)
        if kills:
            node.kill()
        await client.close()
        return acknowledged

    acknowledged = asyncio.run(publish())
    if kills:
        node.start()
    kept = operate(node, lambda stream: stream.info()).get("state", {"messages": 0})["messages"]
    return f"{acknowledged} acknowledged, {acknowledged - kept} lost"


ROWS = {
    "one server, sync_interval: always, kill -9": lambda scene: survives(scene, one_node("sync_interval: always"), True),
    "one server, sync_interval at its default, kill -9": lambda scene: survives(scene, one_node(""), True),
    "three copies, always, kill -9 of one after the other": lambda scene: survives(scene, cluster("sync_interval: always", 3), False),
    "three copies, always, kill -9 of all three": lambda scene: survives(scene, cluster("sync_interval: always", 3), True),
    "three copies, default, kill -9 of all three": lambda scene: survives(scene, cluster("", 3), True),
    "persist_mode: async, kill -9 (refused)": lambda scene: without(scene, True, persist_mode="async"),
    "storage: memory, kill -9 (refused)": lambda scene: without(scene, True, storage="memory"),
    "discard: old, a full stream (refused)": lambda scene: without(scene, False, discard="old", max_bytes=500_000),
}


def main(programs, only):
    for name, row in ROWS.items():
        if only in name:
            with Scene(programs) as scene:
                print(f"{name}: {row(scene)}", flush=True)
