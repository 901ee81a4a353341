"""scripts/soak fleet: many boxes, many events, and faults of every kind meanwhile (`chaos`).

    soak.py PROGRAMS UPLINKS

SEED repeats the faults and their order. FLEET_EVENTS is the number of events (100000), FLEET_RATE the number a second (else as many
as the rings take)."""

import os
import random
import sys
import time

from boxes import SMALL
from chaos import Chaos
from places import Places
from servers import operate
from whole import Whole, conclude, in_a_scene, unwind_on_signals

FEW = 1000  # events of a slice, whose end is not to wait for a minute until what a killed consumer had comes again
EVENT = 42_000  # bytes of an event with two of the small photographs, as a message


def run(scene, uplinks, events, rate, seed):
    chance, began = random.Random(seed), time.monotonic()
    gigabytes = 1 + (events * EVENT * 3 // 2 >> 30)
    places = Places(scene, gigabytes)
    whole = Whole(scene, uplinks, gigabytes, places.of_the_servers())
    if events < FEW:
        operate(whole.cluster, lambda stream: stream.shorten("store"))
    if not places.apart:
        whole.say("SKIPPED: no namespaces here (root, or user namespaces): no partition, no full disk")

    def publish(count):
        whole.boxes.publish(count, rate, SMALL, chance.randrange(1 << 32))

    publish(events)
    whole.wait(whole.consumed, "the first events were consumed")
    chaos = Chaos(whole, places, chance, max(20, min(events // 200, 200)), publish)
    done = chaos.run()
    whole.say("every event is published; the faults were " + ", ".join(f"{name} {count}" for name, count in done.items()))
    is_good = conclude(whole, least=events + chaos.more)
    print(f"seed {seed}, {uplinks} uplinks, {events + chaos.more} events in {time.monotonic() - began:.0f} s")
    return is_good


def main(programs, uplinks):
    seed = int(os.environ.get("SEED") or random.randrange(1 << 32))
    print(f"SEED={seed}", flush=True)
    events, rate = int(os.environ.get("FLEET_EVENTS", "100000")), os.environ.get("FLEET_RATE")
    return in_a_scene(
        programs,
        lambda scene: run(scene, int(uplinks), events, rate and float(rate), seed),
        lambda failure: f"The campaign failed: {failure}; SEED={seed}",
    )


if __name__ == "__main__":
    unwind_on_signals()
    sys.exit(main(*sys.argv[1:]))
