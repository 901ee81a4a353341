"""Runs the tests of this folder, each in a scene of its own: tests.py DIR [--only TEXT] [--jobs N] [--survives]

Most of a test is waiting for servers to find each other again, so some run at once."""

import argparse
import concurrent.futures
import signal
import sys
import time
import traceback
from pathlib import Path

import balanced
import consumers
import gallery
import logins
import one_node
import survives
import three_nodes
from scene import Failure, Scene


def run(test, programs):
    """Whether it passed, and the lines to print about it. A test says itself that it is skipped, and why."""
    name, began = test.__name__.removeprefix("test_").replace("_", " "), time.monotonic()
    with Scene(programs) as scene:
        try:
            result, more, passed = test(scene) or "ok", scene.notes, True
        except Exception as error:
            where = [] if isinstance(error, Failure) else traceback.format_exc().splitlines()
            result, more, passed = "FAIL", [*scene.notes, str(error), *where, *scene.logs()], False
    return passed, "\n      ".join([f"{result}    {name} ({time.monotonic() - began:.1f} s)", *more])


def run_all(tests, programs, jobs):
    """The number of tests that failed."""
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            for ended in concurrent.futures.as_completed([pool.submit(run, test, programs) for test in tests]):
                passed, text = ended.result()
                print(text, flush=True)
                failed += not passed
        except BaseException:
            Scene.stopping.set()
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def main():
    parser = argparse.ArgumentParser(prog="tests/fleet/run")
    parser.add_argument("programs", type=Path, help="folder of the built programs")
    parser.add_argument("--only", default="", metavar="TEXT", help="tests whose name contains TEXT")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="so many at once (default 4)")
    parser.add_argument("--survives", action="store_true", help="measure the table of docs/fleet.md instead")
    arguments = parser.parse_args()
    if arguments.survives:
        return survives.main(arguments.programs.resolve(), arguments.only)
    # The long ones first.
    tests = [*three_nodes.TESTS, *balanced.TESTS, *gallery.TESTS, *consumers.TESTS, *logins.TESTS, *one_node.TESTS]
    tests = [test for test in tests if arguments.only in test.__name__.replace("_", " ")]
    failed = run_all(tests, arguments.programs.resolve(), arguments.jobs)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 0 if tests and not failed else 1


if __name__ == "__main__":
    # SIGTERM unwinds like Ctrl-C, so that no process and no ring is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
