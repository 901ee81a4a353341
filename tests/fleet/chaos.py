"""The faults of `scripts/soak fleet`. Each is held until more events have passed, then mended. The next one waits until every server
and gateway is healthy."""

import signal

from scene import check


def name_of(kind):
    return kind.__name__.replace("_", " ")


class Chaos:
    """The faults, in an order by chance, again and again; each kind once at least. `publish` publishes so many events."""

    def __init__(self, whole, places, chance, hold, publish):
        self.whole, self.places, self.chance, self.hold, self.publish = whole, places, chance, hold, publish
        self.more = 0  # events that were published beyond those of the campaign
        self.kinds = [self.a_node, self.the_leader, self.all_three]
        self.kinds += [self.a_gateway, self.the_consumer, self.uplinks, self.upgrade]
        if places.apart:
            self.kinds += [self.partition, self.full_disk]

    def run(self):
        """Until every event is published and each kind has been. How often each was."""
        done = dict.fromkeys((name_of(kind) for kind in self.kinds), 0)
        while self.whole.boxes.is_publishing() or 0 in done.values():
            for kind in self.chance.sample(self.kinds, len(self.kinds)):
                if done[name_of(kind)] and not self.whole.boxes.is_publishing():
                    continue
                kind()
                done[name_of(kind)] += 1
                self.whole.wait(self.is_well, "all was well again")
                if self.whole.boxes.is_publishing():
                    self.pass_by(self.hold)
        return done

    def pass_by(self, events, count=None):
        """Waits until so many more are consumed, or what else is counted."""
        count = count or self.whole.consumed
        wanted = count() + events
        self.while_events_flow(lambda: count() >= wanted, f"{events} more events passed")

    def while_events_flow(self, condition, what):
        """Waits for the condition. If the events end first, publishes more: those in the ring of a dead uplink do not pass."""
        most = self.more + 200 * self.hold

        def holds():
            if not condition():
                if not self.whole.boxes.is_publishing():
                    check(self.more < most, 200 * self.hold, "events passed before", what)
                    self.publish(2 * self.hold)
                    self.more += 2 * self.hold
                return False
            return True

        self.whole.wait(holds, what)

    def is_well(self):
        nodes, gateways = self.whole.cluster.nodes, self.whole.gateways
        return all(node.is_healthy() for node in nodes) and all(gateway.is_ready() for gateway in gateways)

    # --- the servers ---

    def stop_nodes(self, nodes, hold):
        for node in nodes:
            node.kill()
        if hold:
            self.pass_by(hold)
        for node in nodes:
            node.start(wait=False)

    def a_node(self):
        leader = self.whole.cluster.leader()
        node = self.chance.choice([node for node in self.whole.cluster.nodes if node is not leader])
        self.whole.say(f"FAULT kill -9 of {node.name}, which follows")
        self.stop_nodes([node], self.hold)

    def the_leader(self):
        leader = self.whole.cluster.leader()
        self.whole.say(f"FAULT kill -9 of {leader.name}, the leader")
        self.stop_nodes([leader], self.hold)

    def all_three(self):
        self.whole.say("FAULT kill -9 of all three servers")
        self.stop_nodes(self.whole.cluster.nodes, 0)

    def partition(self):
        leader = self.whole.cluster.leader().name
        self.whole.say(f"FAULT nats-3 is cut off; the leader is {leader}")
        self.places.part()
        self.pass_by(self.hold)
        self.places.join()

    def full_disk(self):
        """A server whose disk is full gives up JetStream until it is restarted."""
        node, leader = self.whole.cluster.nodes[1], self.whole.cluster.leader().name
        self.whole.say(f"FAULT the disk of {node.name} is full; the leader is {leader}")
        before = self.complaints(node)
        self.places.fill()
        self.while_events_flow(lambda: self.complaints(node) > before, f"{node.name} found its disk full")
        self.pass_by(self.hold)
        self.places.empty()
        health = "healthy" if node.is_healthy() else "not healthy"
        self.whole.say(f"      there is room again; {node.name} is {health}, and is started again")
        node.kill(signal.SIGTERM)
        node.start(wait=False)

    def complaints(self, node):
        return self.whole.scene.log(node.name).count("no space left")

    # --- the gateways, the consumer, the boxes ---

    def a_gateway(self):
        number = self.chance.randrange(2)
        self.whole.say(f"FAULT kill -9 of gateway-{number + 1}")
        self.whole.gateways[number].kill()
        self.pass_by(self.hold)
        self.whole.gateways[number] = self.whole.gateway(number)

    def upgrade(self):
        self.whole.say("FAULT the gateways are started again, one after the other")
        for number in range(2):
            code = self.whole.gateways[number].kill(signal.SIGTERM)
            check(code == 0, f"gateway-{number + 1} was told to end, and its exit code is", code)
            self.whole.gateways[number] = self.whole.gateway(number)
            self.pass_by(self.hold // 2)

    def the_consumer(self):
        self.whole.say("FAULT kill -9 of the consumer")
        self.whole.scene.kill(self.whole.consumer)
        self.pass_by(self.hold, self.whole.published)
        self.whole.consumer = self.whole.start_consumer()

    def uplinks(self):
        boxes = self.whole.boxes
        names = self.chance.sample(boxes.names, max(1, len(boxes.names) // 10))
        self.whole.say(f"FAULT kill -9 of {len(names)} uplinks")
        for name in names:
            boxes.kill(name)
        self.pass_by(self.hold)
        for name in names:
            boxes.start(name)
