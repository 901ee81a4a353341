"""scripts/fleet-demo: the whole way on one machine, while everything is well.

    demo.py PROGRAMS N [EVENTS [RATE]]

Says at the end what each kind of process took of the processor."""

import resource
import signal
import sys
import time
from pathlib import Path

from boxes import EVEN
from scene import Failure, Scene
from whole import Whole, conclude, costs

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
    return 0 if is_good else 1


def main(programs, boxes, events=None, rate=None):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Scene(Path(programs).resolve()) as scene:
        try:
            return run(scene, int(boxes), int(events or EACH * int(boxes)), rate and float(rate))
        except Failure as failure:
            print("\n".join([*scene.logs(), f"The demo failed: {failure}"]))
            return 1
        finally:
            # What ends here is ended and removed to the end, however often Ctrl-C is pressed.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    # Both unwind, so that every process is ended and every folder removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    sys.exit(main(*sys.argv[1:]))
