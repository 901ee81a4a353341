"""Recognizers in C and C++, with the header of today and with that of ABI 1, through every dialect to Flask and to event-receive-server, as JSON and
as form-data: realtime events and history, every picture byte for byte, every member to the last digit, and the state report.

Run by `run`. Each recognizer publishes an event; one with today's header has a third picture, one at the top level, and members there.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from driver import HERE, ROOT, Failure, Scene, free_port  # noqa: E402

TODAY, ABI_1 = "../../include/sophon_ring.h", "abi1/sophon_ring.h"
RECOGNIZERS = [
    ("C", "gcc", "-std=c99", "producer.c", TODAY),
    ("C++", "g++", "-std=c++11", "producer.cpp", TODAY),
    ("C with ABI 1", "gcc", "-std=c99", "producer.c", ABI_1),
    ("C++ with ABI 1", "g++", "-std=c++11", "producer.cpp", ABI_1),
]
TOP = '{"device_id": "9d1c", "identity_info": {"ids": [1.2300, 12345678901234567890123], "name": "\\u674e"}}'
EXT = '{"dev_sno": "AKOPKKKKK", "ep_id": "AKOPKKKKK__192.168.1.25", "grab_fiqa_info": {"blur": 0.10}}'
# As flask_dialects.py reads it: numbers by their text.
MEMBERS = {
    "device_id": "9d1c",
    "identity_info": {"ids": [{"number": "1.2300"}, {"number": "12345678901234567890123"}], "name": "李"},
}


def picture(folder, seed):
    content = b"\xff\xd8\xff\xe0" + random.Random(seed).randbytes(20_000 + 7 * seed) + b"\xff\xd9"
    file = folder / f"{seed}.jpg"
    file.write_bytes(content)
    return file, {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def coded(text):
    return "".join(f"%{byte:02x}" for byte in text.encode())


def publish(scene, recognizer, number):
    """Compiles and runs a recognizer for one event; its pictures by name."""
    name, compiler, standard, source, header = recognizer
    program = scene.dir / f"recognizer-{number}"
    sources = ROOT / "tests" / "c" / source
    subprocess.run([compiler, standard, "-O1", f'-DSOPHON_RING_HEADER="{header}"', "-o", program, sources], check=True)
    pictures = {key: picture(scene.dir, 10 * number + place) for place, key in enumerate(["reg", "spot", "face", "scene"])}
    words = f"publish identity_id={number} score=0.5 ext_json={coded(EXT)}"
    words += f" reg_file={pictures['reg'][0]} spot_file={pictures['spot'][0]}"
    if header == TODAY:
        words += f" top_json={coded(TOP)} pic=1:recognize_face:{pictures['face'][0]} pic=0:scene:{pictures['scene'][0]}"
    commands = f"open {scene.ring_dir / f'ring-{number}'} 1048576\n{words}\nclose\n"
    said = subprocess.run([program], input=commands, capture_output=True, text=True, timeout=60).stdout.split("\n")
    if said[:2] != ["ok", "ok 1"]:
        raise Failure(f"{name}: {said}")
    return {key: note for key, (_, note) in pictures.items()}


def check(event, pictures, is_today, with_info):
    """An event as flask_dialects.py has it."""
    top, ext_data = event["top"], event["ext_data"]
    wanted_top = {"reg_pic": pictures["reg"], **(MEMBERS if is_today else {})}
    wanted_ext = {"spot_pic": pictures["spot"], "dev_sno": "AKOPKKKKK", "grab_fiqa_info": {"blur": {"number": "0.10"}}}
    if is_today:
        wanted_top["scene"] = pictures["scene"]
        wanted_ext["recognize_face"] = pictures["face"]
    if with_info:
        wanted_ext["box_fiqa_info"] = {}
    for place, wanted, got in [("top", wanted_top, top), ("ext_data", wanted_ext, ext_data)]:
        for key, value in wanted.items():
            if got.get(key) != value:
                raise Failure(f"{event['id']}: {place}.{key} is {got.get(key)!r:.200} and not {value!r:.200}")
    if not is_today and ({"recognize_face", "box_fiqa_info"} - ({"box_fiqa_info"} if with_info else set())) & set(ext_data):
        raise Failure(f"{event['id']} has more than was published")


def check_stored(event, pictures, is_today):
    """The same as event-receive-server keeps it."""
    notes = {"reg": event["reg_pic"], "spot": event["ext_data"]["spot_pic"]}
    if is_today:
        notes |= {"face": event["ext_data"]["recognize_face"], "scene": event["top"]["scene"]}
        info = event["top"]["identity_info"]
        if event["top"]["device_id"] != "9d1c" or info["ids"] != [1.23, 12345678901234567890123]:
            raise Failure(f"{event['id']}: {event['top']}")
    for key, note in notes.items():
        if {"sha256": note["sha256"], "bytes": note["bytes"]} != pictures[key]:
            raise Failure(f"{event['id']}: {key} is not what was published")


def deliver(scene, content_type):
    flask_port, port = free_port(), free_port()
    scene.start(
        "flask",
        [sys.executable, "-m", "flask", "--app", HERE / "flask_dialects.py", "run", "--port", flask_port],
        SOPHON_EVENTS=str(scene.events),
        PYTHONDONTWRITEBYTECODE="1",
    )
    store = scene.dir / "store"
    server = [scene.binaries / "event-receive-server", "--listen", f"127.0.0.1:{port}", "--store", store]
    scene.start("event-receive-server", server)
    scene.wait_for_port(flask_port, "Flask")
    scene.wait_for_port(port, "event-receive-server")
    servers = [f"http://127.0.0.1:{flask_port}", f"http://127.0.0.1:{port}"]
    config = {
        "rings": [str(scene.ring_dir / f"ring-{number}") for number in range(len(RECOGNIZERS))],
        "event_server_url": [f"{server}/RealTimeEvent" for server in servers],
        "content-type": content_type,
        "history": {
            "history_upload_event_url": [f"{server}/HistoryEvent" for server in servers],
            "content-type": content_type,
            "reported_peroid": 1,
        },
        "monitor": {"monitor_server_url": f"{servers[1]}/SophonFogStatus", "content-type": "json", "reported_peroid": 1},
        "box": {"serial": "SN-1"},
        "spool": {"dir": str(scene.dir / "spool")},
        "api": {"listen": "127.0.0.1:0", "token_file": str(scene.dir / "api.token")},
    }
    config_file = scene.dir / "uplink.json"
    config_file.write_text(json.dumps(config))
    scene.start("uplink", [scene.binaries / "sophon-uplink", "run", "--config", config_file])
    pictures = [publish(scene, recognizer, number) for number, recognizer in enumerate(RECOGNIZERS)]

    def lines(file):
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    count = 2 * len(RECOGNIZERS)
    scene.wait(lambda: len({event["id"] for event in lines(scene.events)}) >= count, f"Flask had {count} events")
    scene.wait(lambda: len(lines(store / "events.jsonl")) >= count, f"event-receive-server had {count} events")
    for event in lines(scene.events):
        number = int(event["top"]["identity_id"] if isinstance(event["top"]["identity_id"], str) else -1)
        is_history = event["id"].endswith("-history")
        if is_history != (event["report"] == "HistoryEvent"):
            raise Failure(f"{event['id']} came as {event['report']}")
        check(event, pictures[number], RECOGNIZERS[number][4] == TODAY, is_history)
    for event in lines(store / "events.jsonl"):
        number = int(event["identity_id"])
        check_stored(event, pictures[number], RECOGNIZERS[number][4] == TODAY)

    def boxes():
        import urllib.request

        return json.load(urllib.request.urlopen(f"{servers[1]}/api/boxes"))["boxes"]

    box = scene.wait(boxes, "a state report came")[0]
    if box["box"] != "SN-1" or len(box["report"]["sophon_uplink"]["rings"]) != len(RECOGNIZERS):
        raise Failure(f"the state report: {box}")
    return 2 * count


def main():
    binaries = Path(sys.argv[1]).resolve()
    failed = 0
    for content_type in ["json", "form-data"]:
        with Scene(binaries) as scene:
            try:
                count = deliver(scene, content_type)
                print(f"ok    dialects, {content_type}: {count} events of {len(RECOGNIZERS)} recognizers", flush=True)
            except (Failure, subprocess.SubprocessError, OSError, ValueError, KeyError) as failure:
                failed += 1
                print(f"FAIL  dialects, {content_type}: {failure!r}", flush=True)
                for line in scene.logs():
                    print(f"      {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
