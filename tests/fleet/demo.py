"""scripts/fleet-demo: the whole way on one machine, while everything is well.

    demo.py PROGRAMS N [EVENTS [RATE]]

Says at the end what each kind of process took of the processor."""

import sys
import time

from boxes import EVEN
from whole import Whole, conclude, costs, in_a_scene, unwind_on_signals

EACH = 10  # events of a box


def run(scene, boxes, events, rate):
    whole = Whole(scene, boxes, gigabytes=max(2, events * 400_000 >> 30))
    whole.say(f"{events} events with two pictures each" + (f", {rate} a second" if rate else ""))
    before, began = costs(whole), time.monotonic()
    whole.boxes.publish(events, rate, EVEN, seed=1)
    lines = []

    def measure():
        lines.append(f"{events / (time.monotonic() - began):.0f} events a second; CPU an event, and the most memory of one process:")
        for kind, (count, seconds, memory) in costs(whole).items():
            lines.append(f"  {count:4} {kind:12} {(seconds - before[kind][1]) / events * 1000:6.2f} ms  {memory:6.1f} MB")

    is_good = conclude(whole, events, measure)
    for line in lines:
        print(line)
    return is_good


def main(programs, boxes, events=None, rate=None):
    return in_a_scene(
        programs,
        lambda scene: run(scene, int(boxes), int(events or EACH * int(boxes)), rate and float(rate)),
        lambda failure: f"The demo failed: {failure}",
    )


if __name__ == "__main__":
    unwind_on_signals()
    sys.exit(main(*sys.argv[1:]))
