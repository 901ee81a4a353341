#!/usr/bin/env python3
"""The receiving server's page in a real browser: events appear by themselves, as text, with both pictures, on any screen.

    python3 tests/browser/receiver_page.py target/debug/event-receive-server [--screenshots FOLDER]

Needs chromium and chromedriver. Exits 0 if everything holds, else 1 and says what does not. With --screenshots the pictures of
the documentation are made as well.
"""
import base64
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from webdriver import Browser  # noqa: E402

FIXTURES = Path(__file__).parent.parent / "fixtures"
HOSTILE = """<img src=x onerror="window.broken_in=1;alert(1)"><script>window.broken_in=1</script>"""


class Server:
    """The program under test, on a port of the system's choice or on one it had before."""

    def __init__(self, binary, port=0):
        self.binary = binary
        self.process = subprocess.Popen(
            [binary, "--listen", f"127.0.0.1:{port}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://"), f"the server did not start: {line!r}"
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self):
        self.process.terminate()
        assert self.process.wait(10) == 0, "SIGTERM is a clean end"

    def post(self, event, event_id=None, path="/RealTimeEvent"):
        """Sends an event, or a box's state, as JSON; returns the status."""
        headers = {"Content-Type": "application/json", **({"X-Event-Id": event_id} if event_id else {})}
        request = urllib.request.Request(self.url + path, json.dumps(event).encode(), headers)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


def picture(name):
    return base64.b64encode((FIXTURES / name).read_bytes()).decode()


def event(name, **changes):
    made = {"identity_id": "1001", "identity_name": name, "group_name": "staff", "reg_pic": "",
            "timestamp": int(time.time()), "score": 0.93, "ext_data": {}}
    made.update(changes)
    return made


def card(event_id):
    """A JavaScript expression for the card of an event."""
    return f"document.querySelector('[data-id=\"{event_id}\"]')"


def both_pictures(event_id):
    return (f"{card(event_id)} && [...{card(event_id)}.querySelectorAll('img')]"
            ".every((image) => image.complete && image.naturalWidth > 0)")


LIVE = "document.getElementById('live').dataset.state === 'live'"
SCROLLS_SIDEWAYS = "return document.documentElement.scrollWidth > innerWidth"


def the_empty_page_says_how_to_send_an_event(browser, server):
    browser.open(server.url)
    browser.wait(f"{LIVE} && !document.getElementById('empty').hidden")
    line = browser.run("return document.getElementById('curl').textContent")
    assert line.startswith(f"curl {server.url}/RealTimeEvent "), line
    assert shutil.which("curl"), "curl is needed, to try the line that the page shows"
    answer = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout
    assert answer == '{"status":"ok","received":{}}', answer
    browser.wait("document.querySelector('.name')?.textContent === 'Li Lei'")
    browser.wait("document.getElementById('empty').hidden")
    browser.wait("document.getElementById('received').textContent === '1'")


def a_hostile_event_appears_by_itself_as_text_with_both_pictures(browser, server):
    ext_data = {"device_ip": HOSTILE, "spot_pic": picture("astronaut-spot-200k.jpg"), "person_type": 5, "device_type": "2", HOSTILE: HOSTILE}
    hostile = event(HOSTILE, identity_id=HOSTILE, group_name=HOSTILE, reg_pic=picture("astronaut-reg-60k.jpg"), ext_data=ext_data)
    assert server.post(hostile, "hostile-1") == 200
    browser.wait(both_pictures("hostile-1"))
    assert browser.run(f"return {card('hostile-1')}.querySelector('.name').textContent") == HOSTILE
    shown = browser.run(f"return {card('hostile-1')}.textContent")
    assert shown.count(HOSTILE) == 6, f"each of the six places shows it as text: {shown}"
    assert "VIP" in shown and "IPC, static" in shown, shown
    assert browser.run("return document.querySelector('main').querySelectorAll('script').length") == 0
    assert browser.run("return document.querySelectorAll('.card img').length") == 4, "two cards have two pictures each, none more"
    first = browser.run("return document.querySelector('.card').dataset.id")
    assert first == "hostile-1", f"the newest is first, not {first}"


def a_rejected_event_is_counted_and_its_faults_are_shown_as_text(browser, server):
    assert server.post(event("x", **{"score": HOSTILE})) == 400
    browser.wait("document.getElementById('rejected').textContent === '1'")
    reason = browser.run("return document.getElementById('reason-list').textContent")
    assert reason.startswith("score: came the string") and "<img src=x" in reason, reason
    assert server.post(event("again"), "hostile-1") == 200
    browser.wait("document.getElementById('duplicates').textContent === '1'")


def the_search_shows_what_is_found_and_what_comes(browser, server):
    fill = """const field = document.querySelector(`#search [name=${arguments[0]}]`);
        field.value = arguments[1]; field.dispatchEvent(new Event("input", {bubbles: true}));"""
    names = "[...document.querySelectorAll('.name')].map((name) => name.textContent)"
    browser.run(fill, "person", "nobody of that name")
    browser.wait(f"{LIVE} && !document.getElementById('nothing').hidden && document.getElementById('empty').hidden")
    browser.run(fill, "person", "LI LEI")
    browser.wait(f"{LIVE} && {names}.join() === 'Li Lei'")
    assert server.post(event("Han Meimei"), "search-1") == 200
    assert server.post(event("Li Lei the second"), "search-2") == 200
    browser.wait(f"{names}.join() === 'Li Lei the second,Li Lei'")
    browser.run(fill, "from", "2999-01-01T00:00:00")
    browser.wait(f"{LIVE} && !document.getElementById('nothing').hidden")
    browser.run("document.querySelector('#search [type=reset]').click()")
    browser.wait(f"{LIVE} && {names}.includes('Han Meimei') && {names}.includes('Li Lei')")


def an_event_of_the_history_shows_all_its_pictures_by_name(browser, server):
    face = picture("chelsea-reg-15k.jpg")
    ext_data = {"dev_sno": "A", "grab_fiqa_info": {}, "box_fiqa_info": {}, "recognize_face": face}
    sent = event("history", reg_pic=face, ext_data=ext_data, scene=face, device_id=HOSTILE)
    assert server.post(sent, "history-1-history", "/HistoryEvent") == 200
    browser.wait(f"{card('history-1-history')}?.querySelectorAll('figure').length === 4")
    shown = browser.run(f"return {card('history-1-history')}.textContent")
    for name in ("recognize_face", "scene", "History", HOSTILE):
        assert name in shown, f"{name} is not in {shown}"
    pictures = f"[...{card('history-1-history')}.querySelectorAll('figure')].filter((one) => !one.querySelector('a').hidden)"
    browser.wait(f"{pictures}.length === 3 && {pictures}.every((one) => one.querySelector('img').naturalWidth > 0)")


def state_of(serial, name, status="0", **more):
    ext_data = {"status": status, "cpu_use": 12.5, "memory_use": 41.0, "disk_use": 63.2}
    ext_data |= {"status_desc": more.pop("why")} if "why" in more else {}
    return {"gateway_ip": "192.168.1.60", "gateway_name": name, "gateway_status": "online", "gateway_sn": serial,
            "gateway_ext_data": ext_data, "sub_devices": [], **more}


def camera(name, status):
    return {"ep_id": name, "ep_ip": "192.168.1.61", "ep_status": status, "ep_type": "1", "ep_name": name,
            "ep_ext_data": {"sw_version": "1.2", "group_name": "gates"}}


ROWS = "[...document.querySelectorAll('#rows tr')].map((row) => row.textContent)"


def the_boxes_are_shown_as_text_with_what_is_wrong_first(browser, server):
    for state in (
        state_of("SN-1", "East", sophon_uplink={"period_seconds": 60, "backlog": 0, "dropped": 0}),
        state_of("SN-2", HOSTILE, "-1", why=HOSTILE, sub_devices=[camera("Gate 1", "online"), camera("Gate 2", "offline")]),
    ):
        assert server.post(state, path="/SophonFogStatus") == 200
    browser.open(server.url + "/boxes")
    browser.wait(f"{LIVE} && {ROWS}.length === 2")
    first, second = browser.run(f"return {ROWS}")
    assert first.count(HOSTILE) == 2 and "1 of 2 online" in first and "offline: Gate 2" in first, first
    assert "East" in second and "0 events" in second and "13 % · 41 % · 63 %" in second, second
    browser.run("const find = document.getElementById('filter'); find.value = 'sn-1'; find.dispatchEvent(new Event('input'))")
    browser.wait(f"{ROWS}.length === 1")
    for width in (360, 1280):
        browser.width(width)
        assert not browser.run(SCROLLS_SIDEWAYS), f"at {width} pixels the page of boxes scrolls sideways"
    browser.run("document.querySelector('[data-language=zh]').click()")
    assert browser.run("return document.querySelector('h1').textContent") == "盒子"
    browser.run("document.querySelector('[data-language=en]').click()")
    browser.open(server.url)
    browser.wait(LIVE)


def a_box_with_odd_values_stops_the_page_of_boxes_at_nothing(browser, server):
    odd = [None, "x", 7, {"backlog": None, "last_error_code": None}, {"backlog": {"toString": None}, "dropped": {"valueOf": 1}, "last_error_code": {"toString": 1}}]
    browser.open(server.url + "/boxes")
    browser.wait(f"{LIVE} && {ROWS}.length === 2")
    for number, uplink in enumerate(odd):
        assert server.post(state_of(f"ODD-{number}", "Odd", sophon_uplink=uplink), path="/SophonFogStatus") == 200
    browser.wait(f"{LIVE} && {ROWS}.filter((row) => row.includes('ODD-') && row.includes('none–') && !row.includes('null')).length === {len(odd)}")
    # It still looks for what comes.
    assert server.post(state_of("SN-3", "West"), path="/SophonFogStatus") == 200
    browser.wait(f"{ROWS}.some((row) => row.includes('West'))")
    browser.open(server.url)
    browser.wait(LIVE)


def nothing_of_it_was_run(browser, _):
    assert not browser.has_alert(), "a script of the event opened an alert"
    assert browser.run("return window.broken_in === undefined"), "a script of the event was run"
    # The 400 and the lost connections of other tests are not the page's; what the policy refused would be.
    refused = [message for message in browser.complaints() if "Content Security Policy" in message or "TypeError" in message]
    assert not refused, refused[:3]


def nothing_is_wider_than_a_narrow_screen(browser, server):
    endless = "W" * 300
    assert server.post(event(endless, identity_id=endless, group_name=endless, ext_data={endless: endless}), "endless-1") == 200
    browser.wait(card("endless-1"))
    for width in (360, 768, 1280):
        browser.width(width)
        assert not browser.run(SCROLLS_SIDEWAYS), f"at {width} pixels the page scrolls sideways"
    browser.open(server.url)
    browser.width(360)
    browser.wait(LIVE)
    assert not browser.run(SCROLLS_SIDEWAYS), "at 360 pixels the page scrolls sideways after a reload"
    browser.width(1280)


def the_language_can_be_switched_and_stays(browser, server):
    title = "document.querySelector('h1').textContent"
    browser.run("document.querySelector('[data-language=zh]').click()")
    assert browser.run(f"return {title}") == "事件接收服务"
    browser.open(server.url)
    browser.wait(f"{LIVE} && {title} === '事件接收服务' && document.documentElement.lang === 'zh-CN'")
    browser.run("document.querySelector('[data-language=en]').click()")
    assert browser.run(f"return {title}") == "Event receiver"


def a_restarted_server_is_found_again(browser, server, binary):
    server.stop()
    browser.wait("document.getElementById('live').dataset.state === 'broken'")
    again = Server(binary, server.port)
    try:
        browser.wait(f"{LIVE} && document.getElementById('received').textContent === '0'")
        assert again.post(event("after the restart"), "restart-1") == 200
        browser.wait("document.querySelector('.name')?.textContent === 'after the restart'")
    finally:
        again.stop()


def the_browsers_language_is_taken(binary):
    server = Server(binary)
    try:
        with Browser("--lang=zh-CN", "--accept-lang=zh-CN,zh") as browser:
            browser.open(server.url)
            browser.wait(f"{LIVE} && document.querySelector('h1').textContent === '事件接收服务'")
    finally:
        server.stop()


def screenshots(binary, folder):
    """The pictures of the documentation: a usual morning, dark in English and light in Chinese."""
    people = [
        ("1042", "摄影师", "一号楼 · Building 1", "cameraman-reg-30k.jpg", "cameraman-spot-100k.jpg", 0.8714, 2, "4", "192.168.1.61"),
        ("9001", "Chelsea", "cats", "chelsea-reg-15k.jpg", "chelsea-spot-50k.jpg", 0.7906, 4, "1", "192.168.1.62"),
        ("1001", "Eileen Collins", "crew", "astronaut-reg-60k.jpg", "astronaut-spot-200k.jpg", 0.9637, 5, "0", "192.168.1.60"),
    ]
    for name, language, dark in [("receiver-en.png", "en", True), ("receiver-zh.png", "zh", False)]:
        server = Server(binary)
        try:
            with Browser(f"--lang={language}", f"--accept-lang={language}") as browser:
                browser.dark(dark)
                browser.width(1280, 720)
                browser.open(server.url)
                for number, (id_, who, group, reg, spot, score, person, device, address) in enumerate(people):
                    ext_data = {"device_ip": address, "spot_pic": picture(spot), "person_type": person, "device_type": device, "mask": False}
                    sent = event(who, identity_id=id_, group_name=group, score=score, reg_pic=picture(reg), ext_data=ext_data)
                    event_id = f"5f1d9a0c37be4e21a8f60c41d2b7e935-{number + 1}"
                    assert server.post(sent, event_id) == 200
                    browser.wait(both_pictures(event_id))
                assert server.post(sent, event_id) == 200
                browser.wait("document.getElementById('duplicates').textContent === '1'")
                browser.run("document.querySelectorAll('.new').forEach((card) => card.classList.remove('new'))")
                browser.screenshot(Path(folder) / name)
        finally:
            server.stop()


def screenshots_of_boxes(binary, folder):
    """A morning of a small fleet."""
    for name, language, dark in [("boxes-en.png", "en", True), ("boxes-zh.png", "zh", False)]:
        server = Server(binary)
        try:
            online = [camera("Gate 1", "online"), camera("Gate 2", "online")]
            well = {"period_seconds": 60, "backlog": 0, "dropped": 0}
            states = [
                state_of("SG2-000117", "East gate", sub_devices=online, sophon_uplink=well),
                state_of("SG2-000118", "West gate", sub_devices=online, sophon_uplink={**well, "backlog": 3}),
                state_of("SG2-000121", "一号楼", sub_devices=[camera("Gate 1", "online"), camera("Door 3", "offline")], sophon_uplink=well),
                state_of("SG2-000123", "二号楼", "-1", why="http://10.0.0.5: down for 240 s, and 812 events wait", sub_devices=online,
                         sophon_uplink={**well, "backlog": 812, "last_error_code": "connect_refused"}),
                state_of("SG2-000119", "Warehouse", sub_devices=online, sophon_uplink={**well, "period_seconds": 1}),
            ]
            assert all(server.post(state, path="/SophonFogStatus") == 200 for state in states)
            with Browser(f"--lang={language}", f"--accept-lang={language}") as browser:
                browser.dark(dark)
                browser.width(1280, 640)
                browser.open(server.url + "/boxes")
                browser.wait(f"{LIVE} && document.getElementById('gone').textContent === '1'")
                browser.screenshot(Path(folder) / name)
        finally:
            server.stop()


def main():
    arguments = sys.argv[1:]
    if len(arguments) not in (1, 3) or arguments[1:2] not in ([], ["--screenshots"]):
        raise SystemExit(__doc__)
    binary = arguments[0]
    failed = 0
    server = Server(binary)
    with Browser("--lang=en", "--accept-lang=en") as browser:
        steps = [
            the_empty_page_says_how_to_send_an_event,
            a_hostile_event_appears_by_itself_as_text_with_both_pictures,
            a_rejected_event_is_counted_and_its_faults_are_shown_as_text,
            the_search_shows_what_is_found_and_what_comes,
            an_event_of_the_history_shows_all_its_pictures_by_name,
            the_boxes_are_shown_as_text_with_what_is_wrong_first,
            a_box_with_odd_values_stops_the_page_of_boxes_at_nothing,
            nothing_is_wider_than_a_narrow_screen,
            the_language_can_be_switched_and_stays,
            nothing_of_it_was_run,
        ]
        checks = [(step.__name__, lambda step=step: step(browser, server)) for step in steps]
        restarted = a_restarted_server_is_found_again
        checks.append((restarted.__name__, lambda: restarted(browser, server, binary)))
        checks.append((the_browsers_language_is_taken.__name__, lambda: the_browsers_language_is_taken(binary)))
        for name, check in checks:
            try:
                check()
                print(f"ok      {name}")
            except (AssertionError, RuntimeError, OSError, subprocess.SubprocessError) as error:
                failed += 1
                print(f"FAILED  {name}: {error}")
    if server.process.poll() is None:
        server.stop()
    if not failed and len(arguments) == 3:
        screenshots(binary, arguments[2])
        screenshots_of_boxes(binary, arguments[2])
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
