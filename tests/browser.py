"""A browser without a window: Debian's headless Chromium, told what to do through a pipe.

It is spoken to in Chromium's DevTools protocol: JSON, each message ended by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHROMIUM: Final = "chromium-headless-shell"
_OPTIONS: Final = (
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root cannot have; the pages are our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--disable-lcd-text",
)
_PATIENCE_S: Final = 20.0
_FIRST_FREE: Final = 10


class Browser(Closing):
    """One page, somewhere."""

    def __init__(self, before: Sequence[str] = ()) -> None:
        """Start it.

        Args:
            before: The beginning of its command, like ``nsenter``.
        """
        self._profile = tempfile.mkdtemp(prefix="xdplb-browser")
        (hear, self._to), (self._from, tell) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FREE) for fd in (hear, tell)]
        self._child = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{ends[0]} 4>&{ends[1]}; exec "$@"', CHROMIUM,
             *before, CHROMIUM, f"--user-data-dir={self._profile}", *_OPTIONS, "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=ends,
        )  # fmt: skip
        for fd in (hear, tell, *ends):
            os.close(fd)
        self._number = 0
        self._session = ""
        self._left = b""
        self.events: list[dict[str, Any]] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it."""
        for fd in (self._to, self._from):
            os.close(fd)
        self._child.terminate()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def _attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(item["targetId"] for item in targets if item["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: object) -> dict[str, Any]:
        """Have something done, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                assert "error" not in heard, heard
                result: dict[str, Any] = heard["result"]
                return result
            self.events.append(heard)

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE_S)
            assert ready, "the browser says nothing"
            part = os.read(self._from, 1 << 20)
            assert part, "the browser has ended"
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        heard: dict[str, Any] = json.loads(text)
        return heard

    def open(self, url: str) -> None:
        """Go there."""
        gone = self.call("Page.navigate", url=url)
        assert "errorText" not in gone, gone

    def get(self, code: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        found = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, code: str) -> Any:
        """The value of an expression as soon as it is true."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (value := self.get(code)):
            assert time.monotonic() < deadline, (code, self.get("document.body.innerText"))
            time.sleep(0.02)
        return value

    def await_sight(self, selector: str) -> None:
        """Return when the page has such an element."""
        self.wait_for(f"!!document.querySelector({json.dumps(selector)})")

    def look(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """Have a screen of this size, light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write what is seen, or the whole page, as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """What the page has said to the console, and what could not be done for it."""
        return [
            json.dumps(item["params"])
            for item in self.events
            if item.get("method")
            in {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
        ]

    def asked(self) -> set[str]:
        """Every address that the page has asked for something."""
        return {
            item["params"]["request"]["url"]
            for item in self.events
            if item.get("method") == "Network.requestWillBeSent"
        }
