"""The gallery: events through a gateway appear on its page live and once each, whatever is killed; search; a fleet of thousands of boxes."""

import http.client
import json
import threading
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from scene import FIXTURES, Gateway, check, event, event_id, get
from servers import Cluster, Node, operate

BOXES = 3000


class Gallery(Gateway):
    """event-receive-server --gallery-from."""

    OPTION = "--gallery-from"

    def __init__(self, scene, engine, *options, name="gallery", **more):
        super().__init__(scene, engine, *options, name=name, **more)

    def ask(self, path, **parameters):
        status, text = get(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}")
        check(status == 200, path, parameters, "was answered", status, text[:300])
        return json.loads(text)

    def ids(self, **search):
        """Of the events that are shown, the newest first."""
        return [one["id"].partition(":")[2] for one in self.ask("/api/events", limit=1000, **search)["events"]]

    def boxes(self):
        return self.ask("/api/boxes")


class Follower:
    """A reader of /api/stream, as the page is one."""

    def __init__(self, scene, gallery, **search):
        self.ids, self.begun = [], False
        self.connection = http.client.HTTPConnection("127.0.0.1", gallery.port)
        self.connection.request("GET", f"/api/stream?{urllib.parse.urlencode(search)}")
        self.answer = self.connection.getresponse()
        check(self.answer.status == 200, "the stream was answered", self.answer.status)
        threading.Thread(target=self.read, daemon=True).start()
        scene.wait(lambda: self.begun, "the first word of /api/stream came")

    def read(self):
        kind = None
        try:
            for line in self.answer:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                kind = value if field == "event" else kind
                self.begun = self.begun or field == "data"
                if field == "data" and kind == "stored":
                    self.ids.append(json.loads(value)["id"].partition(":")[2])
        except (OSError, ValueError, http.client.HTTPException):
            """The gallery was killed."""


def until_taken(scene, gateway, number):
    scene.wait(lambda: gateway.post(event(ext_data={"dev_sno": "gate 1"}), event_id(number)).status == 200, f"event {number} was taken")


def report(name, period=None, bad=False, **changes):
    """A state report."""
    made = {"gateway_ip": "10.0.0.2", "gateway_name": f"Gate {name}", "gateway_status": "online", "gateway_sn": name, "dev_sno": name}
    made |= {"gateway_ext_data": {"status": "-1" if bad else "0", "status_desc": "no camera" if bad else ""}, "sub_devices": []}
    if period:
        made["sophon_uplink"] = {"period_seconds": period, "last_error_code": None, "backlog": 0, "dropped": 0}
    return made | changes


def test_events_appear_in_a_gallery_live_and_once_each_whatever_is_killed(scene):
    cluster = Cluster(scene).start()
    operate(cluster, lambda stream: stream.create())
    gateway = Gateway(scene, cluster, *cluster.gateway_login())
    wanted = []

    def more(count):
        for number in range(len(wanted), len(wanted) + count):
            until_taken(scene, gateway, number)
            wanted.insert(0, event_id(number))

    more(3)
    gallery = Gallery(scene, cluster, *cluster.gallery_login())
    scene.wait(lambda: gallery.ids() == wanted, "what was in the stream before was shown")
    follower = Follower(scene, gallery)
    more(10)
    scene.wait(lambda: len(follower.ids) >= 10, "the new events came live")
    check(follower.ids == wanted[:10][::-1], "each once, in order:", follower.ids)
    check(gallery.ids() == wanted, "and they are listed:", gallery.ids())
    first = gallery.ask("/api/events", limit=1)["events"][0]
    check((first["box"], first["report"] if "report" in first else "realtime") == ("gate 1", "realtime"), first)
    with urllib.request.urlopen(f"{gallery.url}/api/events/{urllib.parse.quote(first['id'], safe='')}/spot_pic") as shown:
        check(shown.read() == (FIXTURES / "chelsea-spot-50k.jpg").read_bytes(), "its picture is shown, byte for byte")

    # The gallery, by kill -9, with events that come while it is away.
    gallery.kill()
    more(5)
    gallery = Gallery(scene, cluster, *cluster.gallery_login(), listen=f"127.0.0.1:{gallery.port}")
    scene.wait(lambda: gallery.ids() == wanted, "everything was shown once after the restart")

    # The leader of the stream; what is sent meanwhile is shown once as well.
    follower = Follower(scene, gallery)
    leader = cluster.leader()
    leader.kill()
    more(10)
    scene.wait(lambda: len(set(follower.ids)) >= 10, "the events came live without the leader")
    scene.wait(gallery.is_ready, "all was well again")
    check(sorted(follower.ids) == sorted(wanted[:10]), "each once:", follower.ids)
    check(sorted(gallery.ids()) == sorted(wanted), "each is listed once")

    # All three, and then the consumers themselves.
    leader.start(wait=False)
    scene.wait(lambda: all(node.is_healthy() for node in cluster.nodes), "all were healthy")
    for node in cluster.nodes:
        node.kill()
    scene.wait(gallery.fault, "it said that nothing comes")
    for node in cluster.nodes:
        node.start(wait=False)
    more(5)
    scene.wait(lambda: len(gallery.ids()) >= len(wanted), "the events of after the outage were shown")
    for kind in ("events", "boxes"):
        operate(cluster, lambda stream: stream.api(f"CONSUMER.DELETE.EVENTS.gallery-{kind}"))
    more(5)
    scene.wait(lambda: len(gallery.ids()) >= len(wanted), "it made its consumers anew")
    scene.wait(gallery.is_ready, "all was well again")
    check(sorted(gallery.ids()) == sorted(wanted), "each is listed once:", len(gallery.ids()))
    counters = gallery.ask("/api/events", limit=0)
    check(counters["received"] == len(wanted) and counters["rejected"] == 0, "counted:", counters)


def test_an_event_that_is_in_the_stream_twice_is_shown_once(scene):
    node = Node(scene).start()
    second = 1_000_000_000
    operate(node, lambda stream: stream.create(num_replicas=1, duplicate_window=second // 5))
    gateway, gallery = Gateway(scene, node), Gallery(scene, node)

    def forgotten():
        until_taken(scene, gateway, 1)
        return operate(node, lambda stream: stream.info())["state"]["messages"] == 2

    scene.wait(forgotten, "the window passed")
    # The same id of another box is another event.
    check(gateway.post(event(ext_data={"dev_sno": "gate 2"}), event_id(1)).status == 200, "taken")
    scene.wait(lambda: gallery.ask("/api/events")["duplicates"] == 1, "it saw the second")
    scene.wait(lambda: gallery.ids() == [event_id(1)] * 2, "one of each box")
    check(sorted(one["box"] for one in gallery.ask("/api/events")["events"]) == ["gate 1", "gate 2"], "boxes")


def test_a_gallery_is_searched_by_person_box_and_time(scene):
    node = Node(scene).start()
    operate(node, lambda stream: stream.create(num_replicas=1))
    gateway, gallery = Gateway(scene, node), Gallery(scene, node)
    everybody = [("Li Lei", "A17", "north 1", 1700000000), ("Han Meimei", "B2", "north 2", 1700000100), ("\u674e\u96f7", "C3", "south 1", 1700000200)]
    live = Follower(scene, gallery, box="north")
    for number, (name, person, box, time) in enumerate(everybody):
        body = event(identity_name=name, identity_id=person, timestamp=time, ext_data={"dev_sno": box})
        check(gateway.post(body, event_id(number)).status == 200, "taken")
    history = event(identity_name="Li Lei", timestamp=1700000300, ext_data={"dev_sno": "south 1", "grab_fiqa_info": {}, "box_fiqa_info": {}})
    check(gateway.post(history, event_id(9), path="/HistoryEvent").status == 200, "history")
    scene.wait(lambda: len(gallery.ids()) == 4, "all were shown")
    of_history = event_id(9) + "-history"
    for search, found in (
        ({"person": "li l"}, [of_history, event_id(0)]),
        ({"person": "b2"}, [event_id(1)]),
        ({"person": "\u96f7"}, [event_id(2)]),
        ({"box": "NORTH"}, [event_id(1), event_id(0)]),
        ({"box": "south 1", "person": "li"}, [of_history]),
        ({"from": "1700000100", "to": "1700000200"}, [event_id(2), event_id(1)]),
        ({"from": "1700000200001"}, [of_history]),
        ({"to": "1699999999"}, []),
        ({"person": "nobody"}, []),
        ({"person": "", "box": "", "from": "", "to": ""}, [of_history, event_id(2), event_id(1), event_id(0)]),
    ):
        check(gallery.ids(**search) == found, search, "found", gallery.ids(**search))
    check(gallery.ask("/api/events", limit=1, box="north")["events"][0]["identity_name"] == "Han Meimei", "the limit is of what is found")
    check(live.ids == [event_id(0), event_id(1)], "live, by box:", live.ids)
    for bad in ("from=yesterday", "to=1e9", f"person={'x' * 300}", "limit=1001"):
        for path in ("/api/events", "/api/stream"):
            status, text = get(f"{gallery.url}{path}?{bad}")
            check(status == 400 and f"{bad.partition('=')[0]}: came" in text, bad, status, text)


def test_a_fleet_of_thousands_of_boxes_is_shown_with_what_is_wrong_first(scene):
    node = Node(scene).start()
    operate(node, lambda stream: stream.create(num_replicas=1))
    gateway = Gateway(scene, node)
    faulty = {"box-0007", "box-1234", "box-2999"}
    names = [f"box-{number:04}" for number in range(BOXES)]

    def send(name):
        return gateway.post(report(name, period=3600, bad=name in faulty), path="/SophonFogStatus").status

    with ThreadPoolExecutor(8) as pool:
        check(set(pool.map(send, names)) == {200}, "all reports were taken")
    check(gateway.post(report("brief", period=1), path="/SophonFogStatus").status == 200, "taken")
    check(gateway.post(event(ext_data={"dev_sno": "box-0001"}), event_id(1)).status == 200, "an event in between")
    gallery = Gallery(scene, node)
    scene.wait(lambda: len(gallery.boxes()["boxes"]) == BOXES + 1, "all boxes were shown, of before its start")
    scene.wait(lambda: gallery.boxes()["counts"]["gone"] == 1, "the one that is silent was gone")
    shown = gallery.boxes()
    check(shown["counts"] == {"gone": 1, "bad": 3, "good": BOXES - 3}, shown["counts"])
    check([one["box"] for one in shown["boxes"]][:4] == ["brief", *sorted(faulty)], "what is wrong is first")
    check([one["box"] for one in shown["boxes"]][4:] == [name for name in names if name not in faulty], "then the others")
    # One more becomes faulty, one is mended.
    for name, bad in (("box-1000", True), ("box-1234", False)):
        check(gateway.post(report(name, period=3600, bad=bad), path="/SophonFogStatus").status == 200, "taken")
    scene.wait(lambda: [one["box"] for one in gallery.boxes()["boxes"]][1:4] == ["box-0007", "box-1000", "box-2999"], "it was shown live")
    # A start finds the last report of each box, however many were sent since.
    gallery.kill()
    gallery = Gallery(scene, node)
    scene.wait(lambda: gallery.boxes()["counts"] == {"gone": 1, "bad": 3, "good": BOXES - 3}, "the same after kill -9")
    check(len(gallery.ids()) == 1, "the event is found behind thousands of reports")
    status, page = get(gallery.url + "/boxes")
    check(status == 200 and "boxes.js" in page, "the page")


def test_a_box_changes_its_own_row_alone(scene):
    boxes = scene.dir / "boxes"
    boxes.write_text("gate-1 0123456789abcdef-1\ngate-2 0123456789abcdef-2\n")
    boxes.chmod(0o600)
    node = Node(scene).start()
    operate(node, lambda stream: stream.create(num_replicas=1))
    gateway, gallery = Gateway(scene, node, "--boxes", boxes), Gallery(scene, node)
    for number, bad in ((1, False), (2, True)):
        said = report("gate-1", bad=bad)
        del said["dev_sno"]
        answer = gateway.post(said, path="/SophonFogStatus", Authorization=f"Bearer 0123456789abcdef-{number}")
        check(answer.status == 200, answer)
    scene.wait(lambda: len(gallery.boxes()["boxes"]) == 2, "both were shown")
    check([(one["box"], one["state"]) for one in gallery.boxes()["boxes"]] == [("gate-2", "bad"), ("gate-1", "good")], "by their tokens")


def test_a_gallery_waits_for_its_stream_and_takes_nothing(scene):
    node = Node(scene)
    gallery = Gallery(scene, node, ready=False)
    check("do not come" in gallery.fault() or "not connected" in gallery.fault(), gallery.fault())
    node.start()
    scene.wait(lambda: "stream not found" in gallery.fault(), "it said that there is no stream")
    operate(node, lambda stream: stream.create(num_replicas=1))
    scene.wait(gallery.is_ready, "it was ready without a restart")
    for path, body in (("/RealTimeEvent", event()), ("/HistoryEvent", event()), ("/SophonFogStatus", report("a"))):
        answer = gallery.post(body, event_id(1), path=path)
        check(answer.status == 403 and "gateway" in answer.text, path, answer)
    check(operate(node, lambda stream: stream.info())["state"]["messages"] == 0, "nothing is in the stream")
    # What no gateway has made is left out, and said.
    for subject in ("events.box.realtime", "events.%zz.realtime", "events.box.status", "events.box.history"):
        operate(node, lambda stream: stream.client.jetstream().publish(subject, b"{}"))
    gateway = Gateway(scene, node)
    until_taken(scene, gateway, 1)
    scene.wait(lambda: gallery.ids() == [event_id(1)], "it went on")
    scene.wait(lambda: gallery.ask("/api/events")["rejected"] == 3 + 4, "the others were counted")


TESTS = [value for name, value in list(globals().items()) if name.startswith("test_")]
