#!/usr/bin/env python3
"""The box's documented calls as people make them, with curl and with Python's requests; and the metrics, as Prometheus reads them.

    target/venv-api/bin/python3 tests/api/documented_calls.py target/debug

The folder holds sophon-uplink and fake-recognizer. Needs curl and promtool (Debian's prometheus). Exits 0 if everything holds.
"""
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import requests
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

sys.path.insert(0, str(Path(__file__).parent))
from box import Box  # noqa: E402

PATH = "/SophonFogSys/api/EventServerUrl"
ONE = "http://192.168.1.19:9528/RealTimeEvent"
TWO = "https://cloud.example.com/events?box=17"
http = requests.Session()
http.trust_env = False  # no proxy between the test and the box


def curl(box, *arguments, path=PATH):
    """The status and the JSON that curl prints."""
    command = ["curl", "--noproxy", "*", "-sS", "-w", "\n%{http_code}", *arguments, box.url + path]
    body, status = subprocess.run(command, check=True, capture_output=True, text=True).stdout.rsplit("\n", 1)
    return int(status), json.loads(body)


def is_in_force(box, answer, urls, reg_pic, content_type):
    """The answer says it, a GET says it, and so does the file."""
    wanted = {"event_server_url": urls, "real_need_reg_pic": reg_pic, "content-type": content_type}
    assert answer == {"data": wanted}, f"{answer}, not {wanted}"
    assert curl(box) == (200, {"data": wanted})
    written = json.loads(box.config.read_text())
    assert {key: written[key] for key in wanted} == wanted, written


def curl_with_json(box):
    body = json.dumps({"event_server_url": [ONE], "real_need_reg_pic": False, "content-type": "json"})
    status, answer = curl(box, "-X", "POST", "-H", "Content-Type: application/json", "-d", body)
    assert status == 200
    is_in_force(box, answer, [ONE], False, "json")


def curl_with_a_multipart_form(box):
    status, answer = curl(box, "-F", f"event_server_url={ONE}", "-F", f"event_server_url={TWO}", "-F", "content-type=form-data")
    assert status == 200
    is_in_force(box, answer, [ONE, TWO], True, "form-data")


def curl_with_one_field_that_holds_the_list(box):
    listed = json.dumps([TWO, ONE])
    status, answer = curl(box, "-F", f"event_server_url={listed}", "-F", "real_need_reg_pic=1", "-F", "content-type=json")
    assert status == 200
    is_in_force(box, answer, [TWO, ONE], True, "json")


def curl_with_an_urlencoded_form(box):
    status, answer = curl(
        box, "--data-urlencode", f"event_server_url={TWO}", "-d", "real_need_reg_pic=0", "-d", "content-type=form-data")
    assert status == 200
    is_in_force(box, answer, [TWO], False, "form-data")


def curl_with_json_that_is_called_a_form(box):
    """-d alone calls everything a form."""
    body = json.dumps({"event_server_url": [TWO], "real_need_reg_pic": False, "content-type": "json"})
    status, answer = curl(box, "-d", body)
    assert status == 200
    is_in_force(box, answer, [TWO], False, "json")


def curl_that_waits_for_100_continue(box):
    body = json.dumps({"event_server_url": [ONE], "content-type": "json"}) + " " * 5000
    status, answer = curl(box, "-H", "Expect: 100-continue", "-H", "Content-Type: application/json", "-d", body)
    assert status == 200
    is_in_force(box, answer, [ONE], True, "json")


def requests_with_json(box):
    answer = http.post(box.url + PATH, json={"event_server_url": [ONE, TWO], "real_need_reg_pic": True, "content-type": "json"})
    is_in_force(box, answer.json(), [ONE, TWO], True, "json")


def requests_with_data(box):
    answer = http.post(box.url + PATH, data={"event_server_url": [TWO, ONE], "real_need_reg_pic": False, "content-type": "form-data"})
    is_in_force(box, answer.json(), [TWO, ONE], False, "form-data")


def requests_with_files(box):
    answer = http.post(box.url + PATH, files=[
        ("event_server_url", (None, ONE)), ("event_server_url", (None, TWO)), ("real_need_reg_pic", (None, "true")), ("content-type", (None, "json"))])
    is_in_force(box, answer.json(), [ONE, TWO], True, "json")


def requests_with_a_list_as_text_in_data(box):
    answer = http.post(box.url + PATH, data={"event_server_url": json.dumps([]), "content-type": "json"})
    is_in_force(box, answer.json(), [], True, "json")


def requests_with_a_wrong_call_are_told_what_is_wrong(box):
    for body, word in [({"event_server_url": [ONE]}, "content-type"), ({"content-type": "json"}, "event_server_url"),
                       ({"event_server_url": ["ftp://a/"], "content-type": "json"}, "http://")]:
        answer = http.post(box.url + PATH, json=body)
        error = answer.json()["error"]
        assert answer.status_code == error["code"] == 400 and error["status"] == "INVALID_ARGUMENT", error
        assert word in error["message"], error


HISTORY = "/SophonFogSys/api/HistoryEventUrl"
MONITOR = "/SophonFogSys/api/MonitorServerUrl"
LATER = "http://192.168.1.19:9528/HistoryEvent"
STATE = "http://192.168.1.19:9528/SophonFogStatus"


def the_history_by_curl_and_requests_as_json_and_as_every_form(box):
    wanted = {"history_upload_event_url": [LATER], "history_need_reg_pic": False, "content-type": "json", "reported_peroid": 60}
    fields = [f"{key}={value}" for key, value in {**wanted, "history_upload_event_url": LATER}.items()]
    calls = [
        lambda: curl(box, "-H", "Content-Type: application/json", "-d", json.dumps(wanted), path=HISTORY)[1],
        lambda: curl(box, *[word for field in fields for word in ("-F", field)], path=HISTORY)[1],
        lambda: curl(box, *[word for field in fields for word in ("-d", field)], path=HISTORY)[1],
        lambda: http.post(box.url + HISTORY, json=wanted).json(),
        lambda: http.post(box.url + HISTORY, data=wanted).json(),
        lambda: http.post(box.url + HISTORY, files=[(key, (None, str(value))) for key, value in {**wanted, "history_upload_event_url": LATER}.items()]).json(),
    ]
    off = {**wanted, "history_upload_event_url": []}
    for number, call in enumerate(calls):
        assert http.post(box.url + HISTORY, json=off).json() == {"data": off, "message": "ok"}
        answer = call()
        assert answer == {"data": wanted, "message": "ok"}, f"{number}: {answer}"
        assert http.get(box.url + HISTORY).json() == {"data": wanted}
        assert json.loads(box.config.read_text())["history"] == wanted
    http.post(box.url + HISTORY, json=off)


def the_state_report_by_curl_and_requests_as_json_and_as_every_form(box):
    wanted = {"monitor_server_url": STATE, "content-type": "json", "reported_peroid": 60}
    calls = [
        lambda: curl(box, "-H", "Content-Type: application/json", "-d", json.dumps(wanted), path=MONITOR)[1],
        lambda: curl(box, *[word for key, value in wanted.items() for word in ("-F", f"{key}={value}")], path=MONITOR)[1],
        lambda: http.post(box.url + MONITOR, json=wanted).json(),
        lambda: http.post(box.url + MONITOR, data=wanted).json(),
    ]
    for number, call in enumerate(calls):
        assert http.post(box.url + MONITOR, json={**wanted, "monitor_server_url": ""}).json() == {"data": "ok"}
        assert http.get(box.url + MONITOR).json()["data"]["monitor_server_url"] == ""
        answer = call()
        assert answer == {"data": "ok"}, f"{number}: {answer}"
        assert http.get(box.url + MONITOR).json() == {"data": {"monitor_server_url": STATE, "reported_peroid": 60}}
    http.post(box.url + MONITOR, json={**wanted, "monitor_server_url": ""})
    for path, body, word in [(MONITOR, {"monitor_server_url": STATE, "content-type": "json"}, "reported_peroid"),
                             (HISTORY, {"content-type": "json", "reported_peroid": 1}, "history_upload_event_url")]:
        answer = http.post(box.url + path, json=body)
        assert answer.status_code == 400 and word in answer.json()["error"]["message"], answer.text


def prometheus_finds_no_fault_in_the_metrics(box):
    http.post(box.url + PATH, json={"event_server_url": ["http://127.0.0.1:1/a", "http://[::1]:1/b"], "content-type": "json"})
    box.publish(3)
    text = http.get(box.url + "/metrics").text
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert check.returncode == 0 and not check.stderr.strip(), check.stderr + check.stdout
    assert text.count("sophon_uplink_destination_up{") == 2, text


def the_example_alerts_are_good(_):
    rules = Path(__file__).parents[2] / "docs" / "alerts.yml"
    check = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr + check.stdout


def the_dashboard_is_grafanas_and_asks_for_what_the_box_tells(box):
    docs = Path(__file__).parents[2] / "docs"
    dashboard = json.loads((docs / "grafana.json").read_text())
    # As Grafana's own models read it: what they do not know, or lose, is not the same afterwards.
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(dashboard)))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]), "ids are unique"
    lost = lacking(dashboard, read)
    assert not lost, f"Grafana does not know {lost}"
    taken = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24 and taken.setdefault((x, y), panel["id"]) == panel["id"], f"{panel['title']}: over another panel"
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = [{"record": f"panel{number}", "expr": expr.replace("$__rate_interval", "5m")} for number, expr in enumerate(asked)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file) # YAML is a superset of JSON
        file.flush()
        check = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
    assert check.returncode == 0, check.stderr + check.stdout
    names = lambda text: {re.sub("_bucket$", "", name) for name in re.findall(r"\bsophon_uplink_\w+", text)}
    told = names("".join(line for line in http.get(box.url + "/metrics").text.splitlines(True) if line.startswith("# TYPE")))
    in_dashboard, in_alerts = names(" ".join(asked)), names((docs / "alerts.yml").read_text())
    assert in_dashboard <= told, f"the box does not tell {in_dashboard - told}"
    assert in_alerts <= in_dashboard, f"an alert is about what the dashboard does not show: {in_alerts - in_dashboard}"


def lacking(whole, part, at=""):
    """Where the JSON value `part` is not as `whole`; further members of `part` are defaults."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return next((found for key in whole if (found := lacking(whole[key], part.get(key), f"{at}.{key}"))), "")
    if isinstance(whole, list) and isinstance(part, list) and len(whole) == len(part):
        return next((found for number, (one, other) in enumerate(zip(whole, part)) if (found := lacking(one, other, f"{at}[{number}]"))), "")
    return "" if whole == part else at or " "


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    box, failed = Box(sys.argv[1]), 0
    for check in [
        curl_with_json, curl_with_a_multipart_form, curl_with_one_field_that_holds_the_list, curl_with_an_urlencoded_form,
        curl_with_json_that_is_called_a_form, curl_that_waits_for_100_continue, requests_with_json, requests_with_data,
        requests_with_files, requests_with_a_list_as_text_in_data, requests_with_a_wrong_call_are_told_what_is_wrong,
        the_history_by_curl_and_requests_as_json_and_as_every_form, the_state_report_by_curl_and_requests_as_json_and_as_every_form,
        prometheus_finds_no_fault_in_the_metrics, the_example_alerts_are_good,
        the_dashboard_is_grafanas_and_asks_for_what_the_box_tells,
    ]:
        try:
            check(box)
            print(f"ok      {check.__name__}", flush=True)
        except (AssertionError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"FAILED  {check.__name__}: {error!r}", flush=True)
    box.stop()
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
