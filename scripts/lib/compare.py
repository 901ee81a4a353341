#!/usr/bin/env python3
"""Compares what a recognizer published with what a receiver stored, picture by picture.

    compare.py PUBLISHED EVENTS [--store DIR] [--threshold T] [--receiver URL]

PUBLISHED is the output of fake-recognizer, EVENTS a receiver's events.jsonl. Both have one JSON object per line.
  published: {"id": "<hex>-<seq>", "score": 0.9, "reg_pic": {"sha256": "…", "bytes": 123} or null, "spot_pic": …}
  received:  {"id": …, "reg_pic": {"file": …, "sha256": …, "bytes": …}, "ext_data": {"spot_pic": …}, …}
With --store the picture files in DIR are hashed again, so that the receiver's own statements are checked.
With --receiver the event-receive-server at URL is asked how many duplicates it dropped: it stores an event only once,
so its file cannot show them.
The last line of the output is the verdict, `delivered N/N events, 0 lost, 0 duplicated`; exit 0 if all agree, else 1.
"""

import argparse
import hashlib
import json
import os
import sys
import urllib.request
from collections import Counter
from dataclasses import dataclass, field


def read_lines(path):
    """The objects of a JSON Lines file. Leaves out a last line without a newline: it is still being written."""
    try:
        with open(path, "rb") as lines:
            return [json.loads(line) for line in lines if line.endswith(b"\n") and line.strip()]
    except FileNotFoundError:
        return []


def describe(picture):
    """(sha256, bytes) of a picture's entry; None if there is no picture. Both sides have several notations for that."""
    if not picture or not picture.get("bytes"):
        return None
    return picture["sha256"].lower(), picture["bytes"]


def pictures_of(event):
    """The entries of an event's two pictures. A receiver keeps spot_pic inside ext_data, unchanged."""
    ext_data = event.get("ext_data") or {}
    return {
        "reg_pic": event.get("reg_pic"),
        "spot_pic": event["spot_pic"] if "spot_pic" in event else ext_data.get("spot_pic"),
    }


def file_fault(picture, store):
    """The fault of a picture's stored file, or None."""
    name = picture.get("file")
    if not name:
        return "is not stored as a file"
    path = os.path.join(store, name)
    try:
        with open(path, "rb") as stored:
            content = stored.read()
    except OSError as error:
        return f"cannot be read back: {error}"
    if (hashlib.sha256(content).hexdigest(), len(content)) != describe(picture):
        return f"is not what {path} holds"
    return None


@dataclass
class Report:
    """The result: the ids of events with faults, by fault."""

    expected: int = 0
    delivered: int = 0
    filtered: int = 0
    lost: list = field(default_factory=list)
    duplicated: list = field(default_factory=list)
    wrong: list = field(default_factory=list)
    dropped_duplicates: int = 0

    @property
    def agrees(self):
        return self.delivered == self.expected and not (
            self.lost or self.duplicated or self.wrong or self.dropped_duplicates
        )

    def verdict(self):
        duplicated = len(self.duplicated) + self.dropped_duplicates
        text = f"delivered {self.delivered}/{self.expected} events, {len(self.lost)} lost, {duplicated} duplicated"
        return text + (f", {len(self.wrong)} wrong" if self.wrong else "")

    def details(self):
        yield from (f"lost: {event_id}" for event_id in self.lost)
        yield from (f"duplicated: {event_id}" for event_id in self.duplicated)
        yield from (f"wrong: {fault}" for fault in self.wrong)
        if self.filtered:
            yield f"{self.filtered} events were below the threshold, and rightly not sent"


def compare(published, received, threshold=0.0, store=None):
    """Returns the Report on two lists of events."""
    report = Report()
    counts = Counter(event.get("id") for event in received)
    first = {}
    for event in received:
        first.setdefault(event.get("id"), event)
    known = set()
    for event in published:
        event_id = event["id"]
        if event_id in known:
            report.wrong.append(f"{event_id} was published twice: the recognizer's ids are not unique")
            continue
        known.add(event_id)
        if event["score"] < threshold:
            report.filtered += 1
            if event_id in counts:
                report.wrong.append(f"{event_id} has score {event['score']}, below the threshold, and was sent")
            continue
        report.expected += 1
        if event_id not in counts:
            report.lost.append(event_id)
            continue
        report.delivered += 1
        report.duplicated.extend([event_id] * (counts[event_id] - 1))
        stored = pictures_of(first[event_id])
        for name, picture in pictures_of(event).items():
            if describe(picture) != describe(stored[name]):
                report.wrong.append(f"{event_id}: {name} was {describe(picture)}, came as {describe(stored[name])}")
            elif store and describe(picture):
                fault = file_fault(stored[name], store)
                if fault:
                    report.wrong.append(f"{event_id}: {name} {fault}")
    report.wrong.extend(f"{event_id} was received and never published" for event_id in counts if event_id not in known)
    return report


def dropped_duplicates(receiver):
    """The number of duplicates that an event-receive-server detected and did not store."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # local: use no proxy from the environment
    with direct.open(f"{receiver}/api/events?limit=1", timeout=10) as answer:
        return json.load(answer)["duplicates"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("published")
    parser.add_argument("events")
    parser.add_argument("--store", help="folder of the picture files, to hash them again")
    parser.add_argument("--threshold", type=float, default=0.0)
    parser.add_argument("--receiver", metavar="URL", help="event-receive-server to ask for the duplicates it dropped")
    arguments = parser.parse_args()
    report = compare(
        read_lines(arguments.published), read_lines(arguments.events), arguments.threshold, arguments.store
    )
    if arguments.receiver:
        report.dropped_duplicates = dropped_duplicates(arguments.receiver)
    for line in report.details():
        print(line)
    print(report.verdict())
    if report.expected == 0:
        print("nothing was published: there is nothing to agree about", file=sys.stderr)
    return 0 if report.agrees and report.expected else 1


if __name__ == "__main__":
    sys.exit(main())
