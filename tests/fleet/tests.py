"""Runs the tests of this folder, each in a scene of its own: tests.py DIR [--only TEXT] [--survives]"""

import argparse
import signal
import sys
import time
import traceback
from pathlib import Path

import consumers
import gallery
import logins
import one_node
import survives
import three_nodes
from scene import Failure, Scene


def run(test, programs):
    """What the test says for itself: nothing, or that it was skipped."""
    with Scene(programs) as scene:
        try:
            return test(scene)
        except Exception as error:
            where = "" if isinstance(error, Failure) else traceback.format_exc()
            raise Failure("\n      ".join([str(error), *where.splitlines(), *scene.logs()])) from error


def main():
    parser = argparse.ArgumentParser(prog="tests/fleet/run")
    parser.add_argument("programs", type=Path, help="folder of the built programs")
    parser.add_argument("--only", default="", metavar="TEXT", help="tests whose name contains TEXT")
    parser.add_argument("--survives", action="store_true", help="measure the table of docs/fleet.md instead")
    arguments = parser.parse_args()
    if arguments.survives:
        return survives.main(arguments.programs.resolve(), arguments.only)
    failed, ran = 0, 0
    for test in [*one_node.TESTS, *three_nodes.TESTS, *consumers.TESTS, *gallery.TESTS, *logins.TESTS]:
        name = test.__name__.removeprefix("test_").replace("_", " ")
        if arguments.only not in name:
            continue
        began = time.monotonic()
        ran += 1
        try:
            note = run(test, arguments.programs.resolve()) or "ok"
            print(f"{note}    {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Failure as failure:
            failed += 1
            print(f"FAIL  {name}: {failure}", flush=True)
    print(f"{ran - failed} passed, {failed} failed")
    return 0 if ran and not failed else 1


if __name__ == "__main__":
    # SIGTERM unwinds like Ctrl-C, so that no process and no ring is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
