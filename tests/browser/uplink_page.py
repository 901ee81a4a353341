#!/usr/bin/env python3
"""The box's page in a real browser: an address is set, the test event arrives, a server that breaks is seen within ten seconds.

    python3 tests/browser/uplink_page.py target/debug [--screenshots FOLDER]

The folder holds sophon-uplink, fake-recognizer and event-receive-server. Needs chromium and chromedriver. Exits 0 if everything
holds, else 1 and says what does not. With --screenshots the pictures of the documentation are made as well.
"""
import http.server
import json
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "api")]
from box import Box  # noqa: E402
from receiver_page import SCROLLS_SIDEWAYS, Server  # noqa: E402
from webdriver import Browser  # noqa: E402

HOSTILE = """<img src=x onerror="window.broken_in=1;alert(1)">"""
LIVE = "document.getElementById('live').dataset.state === 'live'"
STATE = "document.querySelector('.server')?.dataset.state"
# A form that is still being saved takes no other submission.
SAVED = "document.getElementById('saved').classList.contains('good') && !document.getElementById('save').hasAttribute('aria-busy')"


def an_address_is_set_and_the_test_event_arrives(browser, box, server):
    browser.open(box.url)
    browser.wait(f"{LIVE} && !document.getElementById('no-servers').hidden && document.querySelector('#urls input')")
    browser.type("#urls input", server.url + "/RealTimeEvent")
    browser.press("Enter")
    browser.wait("document.getElementById('saved').textContent === 'Saved; in force at once.'")
    assert json.loads(box.config.read_text())["event_server_url"] == [server.url + "/RealTimeEvent"]
    browser.wait(f"{STATE} === 'untried'")
    browser.run("document.getElementById('send-test').click()")
    browser.wait("document.querySelector('.result strong')?.textContent === 'The event has arrived, both pictures whole.'")
    shown = browser.run("return document.querySelector('.result').textContent")
    assert "Answered 200 in " in shown and '"status":"ok"' in shown, shown
    assert "both pictures whole" in shown, shown
    browser.run("document.getElementById('send-large').click()")
    browser.wait("document.querySelectorAll('.result').length === 4 && !document.getElementById('send-large').hasAttribute('aria-busy')")
    shown = browser.run("return [...document.querySelectorAll('.result')].map((each) => each.dataset.tone + ' ' + each.textContent)")
    assert all(each.startswith("good") and "both pictures whole" in each for each in shown), shown
    assert "4 MB" in shown[-1], shown[-1]
    browser.open(server.url)
    browser.wait("document.querySelector('.name')?.textContent === '测试事件 Test event'")
    browser.wait("[...document.querySelectorAll('.card img')].length === 10"
                 " && [...document.querySelectorAll('.card img')].every((image) => image.complete && image.naturalWidth === 96)")
    browser.open(box.url)
    browser.wait(LIVE)


def events_are_counted_and_the_hour_is_drawn(browser, box, _):
    box.publish(20)
    browser.wait("document.getElementById('acknowledged').textContent === '20'")
    browser.wait(f"{STATE} === 'up' && document.getElementById('banner').dataset.tone === 'good'")
    browser.wait("document.querySelectorAll('#plot .rate').length === 60 && document.querySelector('#plot .latency')")
    assert "20 events delivered" in browser.run("return document.getElementById('hour-text').textContent")
    assert "20" in browser.run("return document.querySelector('#balance .parts').textContent")


def a_server_that_breaks_is_seen_within_ten_seconds(browser, box, server):
    # By the page's own looks, one every 2 s: this machine may be busy.
    looks = "return performance.getEntriesByType('resource').filter(each => each.name.endsWith('/api/status')).length"
    browser.run("performance.setResourceTimingBufferSize(100000)")
    server.stop()
    before = browser.run(looks)
    box.publish(3)
    browser.wait(f"{STATE} === 'down'")
    looked = browser.run(looks) - before
    assert looked <= 5, f"it took {looked} looks"
    browser.wait("document.getElementById('banner').dataset.tone === 'bad'")
    shown = browser.run("return document.querySelector('.trouble').textContent")
    assert "Nothing listens at this address and port." in shown and "compare the port" in shown, shown
    browser.wait("document.querySelector('.facts').textContent.includes('3 waiting')")
    browser.run("document.getElementById('send-test').click()")
    browser.wait("document.querySelector('.result strong')?.textContent === 'The event has not arrived.'")


def and_so_is_its_return(browser, box, server):
    again = Server(server.binary, server.port)
    try:
        # Saving tries at once. On a busy machine a person presses it again.
        browser.run("const save = () => document.getElementById('settings').requestSubmit(); save(); window.again = setInterval(save, 5000)")
        browser.wait(f"{STATE} === 'up' && document.getElementById('acknowledged').textContent === '23'")
        browser.wait("document.getElementById('banner').dataset.tone === 'good'")
    finally:
        browser.run("clearInterval(window.again)")
        again.stop()


def a_server_that_is_set_up_wrongly_or_refuses_is_named_so(browser, box, server):
    for status, state, words in [(404, "misconfigured", "check the URL"), (422, "refusing", "422")]:
        with AnsweringServer(status, "") as wrong:
            set_address(browser, wrong.url)
            box.publish(8)
            browser.wait(f"{STATE} === '{state}' && document.getElementById('banner').dataset.tone === 'bad'")
            shown = browser.run("return document.querySelector('.trouble').textContent")
            assert words in shown, shown
    again = Server(server.binary, server.port)
    try:
        set_address(browser, server.url + "/RealTimeEvent")
        browser.wait(f"{STATE} === 'up' && document.getElementById('banner').dataset.tone === 'good'")
    finally:
        again.stop()


def set_address(browser, url):
    browser.type("#urls input", url)
    browser.press("Enter")
    browser.wait(SAVED)


def a_wrong_address_is_named_in_both_languages_and_not_saved(browser, box, server):
    before = box.config.read_text()
    for url, english, chinese in [
        ("ftp://a/", "must begin with http://", "必须以 http:// 或 https:// 开头"),
        ("http://169.254.169.254/latest", "link-local", "链路本地地址"),
        ("http://user:password@a/", "headers.Authorization", "headers.Authorization"),
        ("http://a:99999/", "1 to 65535", "1 到 65535"),
    ]:
        for language, words in [("en", english), ("zh", chinese)]:
            browser.run(f"document.querySelector('[data-language={language}]').click()")
            browser.type("#urls input", url)
            browser.press("Enter")
            browser.wait(f"document.querySelector('.row .message').textContent.includes({json.dumps(words)})")
            assert browser.run("return document.querySelector('#urls input').getAttribute('aria-invalid')") == "true"
    assert box.config.read_text() == before
    browser.run("document.getElementById('undo').click()")
    browser.wait(f"document.querySelector('#urls input').value === {json.dumps(server.url + '/RealTimeEvent')}")


def a_form_that_stays_open_never_writes_back_what_was_changed_elsewhere(browser, box, server):
    def elsewhere(**change):
        call = urllib.request.Request(box.url + "/SophonFogSys/api/EventServerUrl", json.dumps({"content-type": "json", **change}).encode(),
                                      {"Content-Type": "application/json"})
        urllib.request.urlopen(call, timeout=60).close()

    def value(selector):
        return f"document.querySelector({json.dumps(selector)}).value"

    open_question = "!document.getElementById('conflict').hidden"
    browser.run("document.querySelector('[data-language=en]').click()")
    # Without changes the form shows what is in force.
    elsewhere(event_server_url=["http://192.0.2.1/second"])
    browser.wait(f"{value('#urls input')} === 'http://192.0.2.1/second'")
    # What was not changed here is not sent: one changes the threshold, the other the address.
    browser.type("#threshold", "0.5")
    elsewhere(event_server_url=["http://192.0.2.1/third"])
    browser.run("document.getElementById('settings').requestSubmit()")
    browser.wait(open_question)
    asked = browser.run("return document.getElementById('conflict-text').textContent")
    assert "Somebody else has changed the settings in the meantime: Server addresses." in asked, asked
    assert json.loads(box.config.read_text())["event_server_url"] == ["http://192.0.2.1/third"]
    browser.run("document.getElementById('save-mine').click()")
    browser.wait("document.getElementById('saved').classList.contains('good') && document.getElementById('conflict').hidden")
    saved = json.loads(box.config.read_text())
    assert (saved["event_server_url"], saved["threshold"]) == (["http://192.0.2.1/third"], 0.5), saved
    browser.wait(f"{value('#urls input')} === 'http://192.0.2.1/third'")
    # The question comes by itself, in both languages, and the other answer drops what was typed.
    browser.type("#urls input", "http://192.0.2.1/mine")
    elsewhere(event_server_url=["http://192.0.2.1/fourth"])
    browser.wait(open_question)
    browser.run("document.querySelector('[data-language=zh]').click()")
    browser.wait("document.getElementById('conflict-text').textContent.includes('设置已被他人修改：服务器地址')")
    browser.run("document.querySelector('[data-language=en]').click()")
    browser.run("document.getElementById('take-theirs').click()")
    browser.wait(f"{value('#urls input')} === 'http://192.0.2.1/fourth' && document.getElementById('conflict').hidden")
    assert json.loads(box.config.read_text())["event_server_url"] == ["http://192.0.2.1/fourth"]
    browser.type("#threshold", "0")
    set_address(browser, server.url + "/RealTimeEvent")


def further_settings_are_saved_without_their_secrets_and_faults_are_said(browser, box, server):
    def write(text):
        browser.wait("!document.getElementById('save').hasAttribute('aria-busy')")
        browser.run(f"""const more = document.getElementById('more'); document.getElementById('further').open = true;
            more.value = {json.dumps(text)}; more.dispatchEvent(new Event('input', {{ bubbles: true }}));
            document.getElementById('settings').requestSubmit();""")

    before = box.config.read_text()
    write("{")
    browser.wait("document.getElementById('saved').textContent.includes('must be a JSON object')")
    for language, words in [("en", "rounds numbers above 9007199254740991"), ("zh", "大于 9007199254740991 的数")]:
        browser.run(f"document.querySelector('[data-language={language}]').click()")
        for rounded in ['{"ext_data": {"a": [9007199254740993]}}', '{"top": {"a": {"b": -1e400}}}']:
            write(rounded)
            browser.wait(f"document.getElementById('saved').textContent.includes({json.dumps(words)})")
            assert browser.run("return document.getElementById('more').getAttribute('aria-invalid')") == "true"
            browser.run("document.getElementById('saved').textContent = ''")
    browser.run("document.querySelector('[data-language=en]').click()")
    # A key of the further settings keeps its name, whatever the rest reminds of.
    write('{"proxy": {"url": "http://192.0.2.9:1", "no_proxy": ["a", "a b"]}}')
    named = json.dumps('proxy.no_proxy[1]: "a b" is not allowed: a host name')
    browser.wait(f"document.getElementById('saved').textContent.includes({named})")
    write('{"bounds": {"max_age_s": 1}}')
    browser.wait("document.getElementById('saved').textContent.includes('bounds.max_age_s: 1 is not allowed: seconds, 60')")
    assert box.config.read_text() == before
    wanted = {"order": "strict", "bounds": {"bytes_per_second": 1000000},
              "proxy": {"url": "http://gate:a%20secret@192.0.2.9:3128", "no_proxy": ["*"]}}
    write(json.dumps(wanted))
    browser.wait(SAVED)
    saved = json.loads(box.config.read_text())
    assert all(saved[key] == value for key, value in wanted.items()), saved
    shown = browser.run("return document.getElementById('more').value")
    assert "***@192.0.2.9" in shown and "secret" not in shown, shown
    browser.wait("document.querySelector('.facts').textContent.includes('in strict order')")
    # What was hidden stays, and what is taken out has its default again.
    write(json.dumps({key: value for key, value in json.loads(shown).items() if key != "order"}))
    browser.wait(SAVED)
    saved = json.loads(box.config.read_text())
    assert (saved["proxy"], saved["order"]) == (wanted["proxy"], "any"), saved
    write("")
    browser.wait(f"{SAVED} && !document.getElementById('further').open")
    # A large number of the file stays as it is, as long as nothing beside it is changed.
    large = '"ext_data": {"a": 9007199254740993}'
    box.config.write_text(box.config.read_text().replace("{", "{" + large + ",", 1))
    browser.type("#threshold", "0.25")
    browser.run("document.getElementById('settings').requestSubmit()")
    browser.wait(f"{SAVED} && document.getElementById('more').value.includes('ext_data')")
    browser.type("#threshold", "0")
    browser.run("document.getElementById('settings').requestSubmit()")
    browser.wait(f"{SAVED} && document.getElementById('threshold').value === '0'")
    assert large in box.config.read_text(), box.config.read_text()
    more = json.loads(browser.run("return document.getElementById('more').value"))
    write(json.dumps({**more, "order": "strict"}))
    browser.wait("document.getElementById('saved').textContent.includes('rounds numbers above')")
    write("")
    browser.wait(f"{SAVED} && !document.getElementById('further').open")
    set_address(browser, server.url + "/RealTimeEvent")


def what_is_kept_and_what_waits_for_a_restart_is_shown(browser, box, server):
    with AnsweringServer(422, "") as refusing:
        set_address(browser, refusing.url)
        box.publish(1)
        browser.wait("[...document.querySelectorAll('#letters .entry')].some((letter) => letter.textContent.includes("
                     f"{json.dumps(refusing.url)}) && letter.textContent.includes('the server answered 422'))")
    assert "recognizer" in browser.run("return document.getElementById('rings').textContent")
    config = json.loads(box.config.read_text())
    box.config.write_text(json.dumps({**config, "privileges": {"seccomp": False}}))
    set_address(browser, server.url + "/RealTimeEvent")
    browser.wait("document.getElementById('banner-list').textContent.includes('privileges.seccomp')")
    said = browser.run("return [...document.querySelectorAll('#banner-list li')].filter((line) => line.textContent.includes('privileges.seccomp')).length")
    assert said == 1, f"it is said {said} times"
    parked = {"url": "http://192.0.2.1/old", "events": 5, "bytes": 10240}
    banner, kept, parts = browser.run("""status.spool.parked = [arguments[0]]; status.shares.in_transit = 3; show();
        return ['banner-list', 'letters', 'balance'].map((id) => document.getElementById(id).textContent)""", parked)
    assert "5 events wait for a server that is not in the settings any more" in banner and "undefined" not in banner, banner
    assert "5 events (10 KB) wait: this address is not in the settings any more." in kept, kept
    assert "in_transit" not in parts, parts
    box.config.write_text(json.dumps({**json.loads(box.config.read_text()), "privileges": {"seccomp": True}}))
    browser.type("#threshold", "0.0")
    browser.run("document.getElementById('settings').requestSubmit()")
    browser.wait("!document.getElementById('banner-list').textContent.includes('privileges.seccomp')")


def both_languages_are_whole_and_stay(browser, box, _):
    browser.run("document.querySelector('[data-language=zh]').click()")
    browser.open(box.url)
    browser.wait(f"{LIVE} && document.querySelector('h1').textContent === '事件上传' && document.documentElement.lang === 'zh-CN'")
    left = browser.run("""return [...document.querySelectorAll('[data-text]')].filter((element) => /^[\\x20-\\x7e]*$/.test(element.textContent))
        .map((element) => element.dataset.text)""")
    assert left == [], f"without Chinese: {left}"
    missing = browser.run("""const keys = (value, at) => Object.entries(value).flatMap(([key, inner]) =>
        typeof inner === 'object' && !Array.isArray(inner) ? keys(inner, `${at}.${key}`) : [`${at}.${key}`]);
        const [en, zh] = [keys(TEXTS.en, ''), keys(TEXTS.zh, '')];
        return [...en.filter((key) => !zh.includes(key)), ...zh.filter((key) => !en.includes(key))];""")
    assert missing == [], f"in one language only: {missing}"
    browser.run("document.querySelector('[data-language=en]').click()")
    browser.wait("document.querySelector('h1').textContent === 'Event upload'")


def everything_can_be_done_with_the_keyboard(browser, box, server):
    browser.open(box.url)
    browser.wait(f"{LIVE} && document.querySelector('#urls input')")
    reached = set()
    for _ in range(40):
        browser.press("Tab")
        reached.add(browser.run("const e = document.activeElement; return e.id || e.name || e.dataset.language || e.getAttribute('aria-label') || e.tagName"))
        outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or browser.run("return document.activeElement === document.body"), f"no focus ring: {reached}"
    for wanted in ["zh", "Address 1", "add-url", "format", "threshold", "unit", "reg-pic", "save", "send-test"]:
        assert wanted in reached, f"{wanted} cannot be reached with Tab: {reached}"
    unnamed = browser.run("""return [...document.querySelectorAll('input, select, button')].filter((element) =>
        !(element.labels?.length || element.getAttribute('aria-label') || element.textContent.trim())).length""")
    assert unnamed == 0, f"{unnamed} controls without a name"


def nothing_is_wider_than_a_narrow_screen_in_light_or_dark(browser, box, _):
    for dark in [False, True]:
        browser.dark(dark)
        for width in [360, 768, 1280]:
            browser.width(width)
            assert not browser.run(SCROLLS_SIDEWAYS), f"at {width} pixels the page scrolls sideways"
        faint = browser.run(CONTRAST)
        assert faint == [], f"too faint in {'dark' if dark else 'light'}: {faint}"
    browser.dark(False)


# The contrast of every text against its background, by the rule of WCAG 2 AA: 4.5, large or bold texts 3.
CONTRAST = """
const probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const rgb = (color, under) => { probe.fillStyle = under || '#fff'; probe.fillRect(0, 0, 1, 1); probe.fillStyle = color; probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3); };
const css = (parts) => `rgb(${parts.join(',')})`;
const light = (parts) => { const [r, g, b] = parts.map((part) => { const c = part / 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
const ground = (element) => { const chain = []; for (let at = element; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
    return chain.reduce((under, color) => css(rgb(color, under)), matchMedia('(prefers-color-scheme: dark)').matches ? '#000' : '#fff'); };
const found = [];
for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest('svg, template')) continue;
    const style = getComputedStyle(element), under = ground(element);
    const [a, b] = [light(rgb(style.color, under)), light(rgb(under))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if ((a + .05) / (b + .05) < (large ? 3 : 4.5)) found.push(`${element.textContent.trim().slice(0, 30)}: ${((a + .05) / (b + .05)).toFixed(2)}`);
}
return found;"""


def what_a_server_says_is_text(browser, box, _):
    with AnsweringServer(422, HOSTILE) as hostile:
        set_address(browser, hostile.url)
        browser.run("document.getElementById('send-test').click()")
        browser.wait("document.querySelector('.result pre')")
        assert HOSTILE in browser.run("return document.querySelector('.result pre').textContent")
        assert "does not accept the events" in browser.run("return document.querySelector('.result').textContent")
    assert not browser.has_alert() and browser.run("return window.broken_in === undefined"), "a server's answer was run"
    refused = [message for message in browser.complaints() if "Content Security Policy" in message or "TypeError" in message]
    assert not refused, refused[:3]


class AnsweringServer:
    """Answers with this status and body, to one request after another."""

    def __init__(self, status, body):
        self.status, self.body = status, body.encode()

    def __enter__(self):
        status, body = self.status, self.body

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/x"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def off_loopback_the_page_asks_for_the_token(programs):
    box = Box(programs, listen="0.0.0.0:0")
    try:
        with Browser("--lang=en", "--accept-lang=en") as browser:
            browser.open(box.url)
            browser.wait("document.getElementById('login').open")
            browser.type("#token", "wrong")
            browser.press("Enter")
            browser.wait("document.getElementById('login-wrong').textContent === 'This token is wrong.'")
            browser.type("#token", (box.folder / "api.token").read_text().strip())
            browser.press("Enter")
            browser.wait(f"!document.getElementById('login').open && {LIVE} && !document.getElementById('no-servers').hidden")
    finally:
        box.stop()


def a_clock_that_is_not_set_is_named(programs):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        print("SKIPPED: a_clock_that_is_not_set_is_named: no libfaketime here (apt-get install libfaketime)")
        return
    clock = {"LD_PRELOAD": str(library), "FAKETIME": "1970-01-01 00:00:05", "DONT_FAKE_MONOTONIC": "1"}
    box = Box(programs, {"event_server_url": ["https://127.0.0.1:9/x"]}, environment=clock)
    try:
        with Browser("--lang=en", "--accept-lang=en") as browser:
            browser.open(box.url)
            browser.wait(f"{LIVE} && {STATE} === 'clock not set'")
            shown = browser.run("return document.querySelector('.server').textContent")
            assert "Waits for the clock" in shown and "Set the box's time" in shown, shown
    finally:
        box.stop()


def the_browsers_language_is_taken(programs):
    box = Box(programs)
    try:
        with Browser("--lang=zh-CN", "--accept-lang=zh-CN,zh") as browser:
            browser.open(box.url)
            browser.wait(f"{LIVE} && document.querySelector('h1').textContent === '事件上传'")
    finally:
        box.stop()


def screenshots(programs, folder):
    """The pictures of the documentation: each state, in both languages; well in light, trouble in dark."""
    if not subprocess.run(["fc-list", ":lang=zh"], check=True, capture_output=True).stdout:
        raise SystemExit("no font has Chinese: apt-get install fonts-noto-cjk")
    for language in ["en", "zh"]:
        server = Server(f"{programs}/event-receive-server")
        box = Box(programs, {"event_server_url": [server.url + "/RealTimeEvent"]})
        try:
            with Browser(f"--lang={language}", f"--accept-lang={language}") as browser:
                browser.width(1280, 1180)
                box.publish(40, 20)
                browser.open(box.url)
                browser.wait(f"{STATE} === 'up' && document.getElementById('acknowledged').textContent === '40'")
                browser.run("document.getElementById('send-test').click()")
                browser.wait("document.querySelector('.result') && document.querySelector('#balance .parts')")
                browser.screenshot(Path(folder) / f"uplink-{language}-up.png")
                server.stop()
                box.publish(5)
                browser.wait(f"{STATE} === 'down' && document.querySelector('.facts').textContent.match(/5 (waiting|条)|等待 5/)")
                browser.dark(True)
                browser.screenshot(Path(folder) / f"uplink-{language}-down.png")
                for status, state in [(404, "misconfigured"), (422, "refusing")]:
                    with AnsweringServer(status, "") as wrong:
                        set_address(browser, wrong.url)
                        box.publish(8)
                        browser.wait(f"{STATE} === '{state}'")
                        browser.screenshot(Path(folder) / f"uplink-{language}-{state}.png")
        finally:
            box.stop()


def main():
    arguments = sys.argv[1:]
    if len(arguments) not in (1, 3) or arguments[1:2] not in ([], ["--screenshots"]):
        raise SystemExit(__doc__)
    programs = arguments[0]
    failed = 0
    server, box = Server(f"{programs}/event-receive-server"), Box(programs)
    with Browser("--lang=en", "--accept-lang=en") as browser:
        steps = [
            an_address_is_set_and_the_test_event_arrives,
            events_are_counted_and_the_hour_is_drawn,
            a_server_that_breaks_is_seen_within_ten_seconds,
            and_so_is_its_return,
            a_server_that_is_set_up_wrongly_or_refuses_is_named_so,
            a_wrong_address_is_named_in_both_languages_and_not_saved,
            both_languages_are_whole_and_stay,
            everything_can_be_done_with_the_keyboard,
            nothing_is_wider_than_a_narrow_screen_in_light_or_dark,
            what_a_server_says_is_text,
            a_form_that_stays_open_never_writes_back_what_was_changed_elsewhere,
            further_settings_are_saved_without_their_secrets_and_faults_are_said,
            what_is_kept_and_what_waits_for_a_restart_is_shown,
        ]
        checks = [(step.__name__, lambda step=step: step(browser, box, server)) for step in steps]
        for step in [off_loopback_the_page_asks_for_the_token, a_clock_that_is_not_set_is_named, the_browsers_language_is_taken]:
            checks.append((step.__name__, lambda step=step: step(programs)))
        for name, check in checks:
            try:
                check()
                print(f"ok      {name}", flush=True)
            except (AssertionError, RuntimeError, OSError, subprocess.SubprocessError) as error:
                failed += 1
                print(f"FAILED  {name}: {error}", flush=True)
    box.stop()
    if server.process.poll() is None:
        server.stop()
    if not failed and len(arguments) == 3:
        screenshots(programs, arguments[2])
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
