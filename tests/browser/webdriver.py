"""A WebDriver client for tests, with nothing but Python's standard library: it starts chromedriver and a headless Chromium."""
import base64
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

# What Chromium needs to run as root and without a display, and to keep from calling home.
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server", "--hide-scrollbars", "--window-size=1280,900",
]


class Browser:
    """One browser with a new, empty profile; used as a context manager."""

    def __init__(self, *arguments):
        self.profile = tempfile.mkdtemp(prefix="browser-profile-")
        self.driver = subprocess.Popen(
            [find("chromedriver"), "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        port = next(line.rstrip(".\n").rsplit(" ", 1)[1] for line in self.driver.stdout if "successfully on port" in line)
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"binary": find("chromium", "chromium-browser", "google-chrome"),
                   "args": [*ARGUMENTS, f"--user-data-dir={self.profile}", *arguments]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
                  "timeouts": {"script": 20_000}, "unhandledPromptBehavior": "ignore"}
        try:
            session = self.call("POST", "", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self.end()
            raise
        self.base += "/" + session["sessionId"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("DELETE", "", None)
        finally:
            self.end()

    def end(self):
        self.driver.terminate()
        self.driver.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, path, body):
        """One command; a failure is a RuntimeError with the driver's words."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"].split("\n")[0]) from None

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        """Runs the body of a function in the page; returns what it returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition):
        """Waits until a JavaScript expression is truthy; looks after each change of the page and at pictures that were loaded."""
        script = """const done = arguments[arguments.length - 1];
            const look = () => { const found = %s; if (found) { done(found); return true; } };
            if (!look()) {
                const watcher = new MutationObserver(() => look() && watcher.disconnect());
                watcher.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
                document.addEventListener("load", () => look() && watcher.disconnect(), true);
            }""" % condition
        try:
            return self.call("POST", "/execute/async", {"script": script, "args": []})
        except RuntimeError as error:
            raise AssertionError(f"waited in vain for: {condition} ({error})") from None

    def type(self, selector, text):
        """Replaces what is in a field, key by key as a person does."""
        self.run("const field = document.querySelector(arguments[0]); field.focus(); field.select();", selector)
        self.keys("\ue017" + text)  # Delete, then the text

    def press(self, key):
        """One key of the keyboard, by its name."""
        self.keys({"Enter": "\ue007", "Tab": "\ue004"}[key])

    def keys(self, text):
        actions = [{"type": step, "value": letter} for letter in text for step in ("keyDown", "keyUp")]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def devtools(self, command, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def width(self, pixels, height=800):
        self.devtools("Emulation.setDeviceMetricsOverride", width=pixels, height=height, deviceScaleFactor=1, mobile=False)

    def dark(self, yes):
        feature = {"name": "prefers-color-scheme", "value": "dark" if yes else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path, **parameters):
        answer = self.devtools("Page.captureScreenshot", **parameters)
        with open(path, "wb") as file:
            file.write(base64.b64decode(answer["data"]))

    def complaints(self):
        """What the console says that is an error: refused by the content security policy, for one."""
        entries = self.call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def has_alert(self):
        try:
            self.call("GET", "/alert/text", None)
            return True
        except RuntimeError:
            return False


def find(*names):
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise SystemExit(f"{names[0]} is needed: apt-get install chromium chromium-driver")
