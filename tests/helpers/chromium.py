"""A headless Chromium for tests, spoken to over two pipes: the DevTools protocol and the standard library.

It uses the browser of the machine, and opens no port. In a test, ask for the fixture::

    def test_page(browser, tmp_path):
        page = browser.open((tmp_path / "page.html").as_uri())
        page.wait("document.querySelector('h1')")
        page.press("Enter")
        assert page("document.title") == "Done"
        assert page.problems == []
"""

import base64
import itertools
import json
import os
import select
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SILENCE = 60  # seconds in which nothing happens, after which the browser is taken for dead
KEYS = {"Enter": "\r", " ": " "}


class Browser:
    """A browser process with a profile of its own, and a folder for what is downloaded."""

    def __init__(self, program, folder):
        self.downloads = folder / "downloads"
        self.events, self.numbers, self.buffer = [], itertools.count(1), b""
        reads, self._write = os.pipe()
        self._read, writes = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--disable-background-networking", f"--user-data-dir={folder / 'profile'}"]
        # The browser reads from its descriptor 3 and writes to 4. Pipes are numbered upwards: `writes` is above both.
        places = [(os.POSIX_SPAWN_DUP2, reads, 3), (os.POSIX_SPAWN_DUP2, writes, 4)]
        places += [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
        command = [program, *options, "--remote-debugging-pipe"]
        self.process = os.posix_spawn(program, command, os.environ, file_actions=places)
        os.close(reads)
        os.close(writes)

    def send(self, method, session=None, **parameters):
        """Send a command and return its result; events that come in between are kept."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        while b"\0" not in self.buffer:
            assert select.select([self._read], [], [], SILENCE)[0], "the browser has not answered"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has ended"
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def event(self, method, session=None, **having):
        """Wait for an event, and return what it says; it is forgotten then."""
        while True:
            for event in self.events:
                said = event["params"]
                if (event["method"], event.get("sessionId")) == (method, session) and having.items() <= said.items():
                    self.events.remove(event)
                    return said
            self.events.append(self._next())

    def downloaded(self):
        """Wait for the next download to be complete, and return its file."""
        name = self.event("Browser.downloadWillBegin")["suggestedFilename"]
        self.event("Browser.downloadProgress", state="completed")
        return self.downloads / name

    def open(self, address, *, before=""):
        """Open an address in a tab that remembers nothing of others, where the script `before` runs first."""
        return Page(self, address, before)

    def close(self):
        """End the browser, and wait for it."""
        self.send("Browser.close")
        os.close(self._write)
        os.close(self._read)
        os.waitpid(self.process, 0)


class Page:
    """A tab: called with an expression of JavaScript, it returns the value."""

    def __init__(self, browser, address, before):
        self.browser = browser
        context = browser.send("Target.createBrowserContext")
        saving = {"behavior": "allow", "downloadPath": str(browser.downloads), "eventsEnabled": True}
        browser.send("Browser.setDownloadBehavior", **context, **saving)
        target = browser.send("Target.createTarget", url="about:blank", **context)
        self.session = browser.send("Target.attachToTarget", **target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.wait("document.readyState === 'complete'")
        with self.loading():
            self.send("Page.navigate", url=address)

    def send(self, method, **parameters):
        return self.browser.send(method, self.session, **parameters)

    def __call__(self, expression):
        done = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition):
        """Wait until a condition holds in the page."""
        started = time.monotonic()
        while not self(f"Boolean({condition})"):
            assert time.monotonic() - started < SILENCE, f"never: {condition}"
            time.sleep(0.005)

    @contextmanager
    def loading(self):
        """What is done within leads to another document; wait until that is there, with all that belongs to it."""
        self("0")  # what was loaded before has been told by now
        load = ("Page.loadEventFired", self.session)
        self.browser.events = [e for e in self.browser.events if (e["method"], e.get("sessionId")) != load]
        yield
        self.browser.event(*load)

    def press(self, key):
        text = KEYS.get(key, key if len(key) == 1 else "")
        pressed = {"key": key} | ({"text": text} if text else {})
        self.send("Input.dispatchKeyEvent", type="keyDown", **pressed)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def write(self, text):
        self.send("Input.insertText", text=text)

    def click(self, selector):
        """Click with the mouse on the middle of an element."""
        x, y = self(
            f"(e => {{ e.scrollIntoView({{block: 'nearest'}}); const r = e.getBoundingClientRect();"
            f"return [r.x + r.width / 2, r.y + r.height / 2] }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def reload(self):
        with self.loading():
            self.send("Page.reload")

    def look(self, path, *, width, height, scheme="light", scale=1):
        """Set the size of the window and the colour scheme, and save a picture of what is seen."""
        self.size(width, height, scale)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def size(self, width, height, scale=1):
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    @property
    def problems(self):
        """Errors of the page, and addresses that it asked for elsewhere."""
        self("0")
        found = []
        for event in self.browser.events:
            if event.get("sessionId") == self.session:
                what = event["params"]
                if event["method"] == "Runtime.exceptionThrown" or what.get("entry", {}).get("level") == "error":
                    found.append(what)
                elif event["method"] == "Network.requestWillBeSent":
                    address = what["request"]["url"]
                    found += [] if address.startswith(("file:", "data:", "blob:")) else [address]
        return found


@pytest.fixture(scope="module", name="browser")
def browser_fixture(tmp_path_factory):
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)}")
    browser = Browser(program, Path(tmp_path_factory.mktemp("browser")))
    yield browser
    browser.close()
