"""A headless Chromium that tests tell what to do, through its own pipe: no driver and no package is needed."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
from pathlib import Path

import pytest

PHONE, DESKTOP = (360, 740), (1280, 900)
PATIENCE_S = 120

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """A context manager; `open` shows a page, after which `js` evaluates in it."""

    def __init__(self, profile: Path) -> None:
        found = shutil.which("chromium") or shutil.which("chromium-browser")
        if found is None:
            pytest.skip("chromium is not installed: apt-get install --no-install-recommends chromium")
        self._program, self._profile = str(found), profile
        self.asked: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self):
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        inherited = [_high(fd) for fd in (os.open(os.devnull, os.O_RDWR), theirs_in, theirs_out)]
        moves = [(os.POSIX_SPAWN_DUP2, inherited[place], fd) for fd, place in enumerate((0, 0, 0, 1, 2))]
        words = [self._program, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"]
        self._pid = os.posix_spawn(self._program, words, os.environ, file_actions=moves, setpgroup=0)
        for fd in inherited:
            os.close(fd)
        self._out, self._in = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._rest, self._number, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._out.close()
        self._in.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def open(self, page: Path, size=DESKTOP, dark=False):
        """Show a file in a window of (width, height), as a phone does if it is narrow."""
        self.asked, self.complaints = [], []
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.as_uri())
        self._wait_for("Page.loadEventFired")

    def js(self, expression: str):
        """The value of an expression, as JSON gives it."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path, whole=False) -> None:
        """A PNG of the window, or of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **(self._clip() if whole else {}))[
            "data"
        ]
        path.write_bytes(base64.b64decode(data))

    def _clip(self):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def call(self, method: str, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _wait_for(self, event: str) -> None:
        while self._read().get("method") != event:
            pass

    def _read(self):
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], PATIENCE_S)
            assert ready, "chromium does not answer"
            part = os.read(self._in.fileno(), 1 << 20)
            assert part, "chromium ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        self._note(message)
        return message

    def _note(self, message) -> None:
        """What the page asked for, and what the browser complained of."""
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(message["params"]["request"]["url"])
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(message["params"]["entry"]["text"])
        if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.complaints.append(str(message["params"]))


def _high(fd: int) -> int:
    """A copy with a number above those that the browser expects its pipes and streams at; closes the original."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return copy
