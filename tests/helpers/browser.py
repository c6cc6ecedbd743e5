"""Chromium without a window, spoken to over a pipe in its DevTools protocol."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Also those that would wait until they are scrolled to; one that is no picture is an error.
ALL_IMAGES = """Promise.all([...document.images].map((image) => {
  image.loading = "eager";
  return image.decode();
}))"""
PATIENCE = 60.0  # seconds for one answer, on a machine that does much else


def chromium() -> str | None:
    """The browser: $FRACNET_CHROMIUM, or one of the usual names; None where there is none."""
    own = os.environ.get("FRACNET_CHROMIUM")
    return own or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One process with one page. `faults` are the console's errors since the page was opened."""

    def __init__(self, program: str, profile: Path) -> None:
        # Chromium reads from 3 and writes to 4, which are taken while it is started.
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]

        def wire() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=wire,
        )
        for end in (*ends, theirs_in, theirs_out):
            os.close(end)
        self._in, self._out = ours_in, ours_out
        self._number, self._rest = 0, b""
        self._loaded = False
        self.faults: list[str] = []
        target = self._ask("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        words = {"targetId": target, "flatten": True}
        self._session: str = self._ask("Target.attachToTarget", words, None)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **words: Any) -> dict[str, Any]:
        """One command to the page, and its answer."""
        return self._ask(method, words, self._session)

    def open(self, path: Path, width: int, scheme: str, media: str = "") -> None:
        """Show a file at a width in pixels, light or dark, on screen or (`media`) as print."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self.faults, self._loaded = [], False
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._take(self._read())
        self.value(ALL_IMAGES)

    def value(self, script: str) -> Any:
        """What an expression of JavaScript comes to, or what it promises."""
        words = {"expression": script, "returnByValue": True, "awaitPromise": True}
        found = self.ask("Runtime.evaluate", **words)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as PNG, for a person to look at."""
        found = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def printed(self) -> bytes:
        """The page as PDF, on the paper that its own style asks for."""
        found = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(found["data"])

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):  # it may have ended by itself
            self._send({"id": 0, "method": "Browser.close"})
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _ask(self, method: str, words: dict[str, Any], session: str | None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": words}
        self._send(message | ({"sessionId": session} if session else {}))
        while True:
            told = self._read()
            if told.get("id") == self._number:
                assert "error" not in told, f"{method}: {told['error']}"
                result: dict[str, Any] = told["result"]
                return result
            self._take(told)

    def _take(self, event: dict[str, Any]) -> None:
        """Note what the page says of itself."""
        method, words = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.faults.append(str(words["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and words["type"] in ("error", "warning"):
            self.faults.append(str(words["args"]))
        elif method == "Log.entryAdded" and words["entry"]["level"] in ("error", "warning"):
            self.faults.append(words["entry"]["text"])

    def _send(self, message: dict[str, Any]) -> None:
        os.write(self._out, json.dumps(message).encode() + b"\0")

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self._in, 1 << 20) if ready else b""
            assert more, "no word from the browser"
            self._rest += more
        told, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(told)
        return message


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser | None]:
    """A browser for as long as it is needed; None where none is installed."""
    program = chromium()
    if program is None:
        yield None
        return
    found = Browser(program, profile)
    try:
        yield found
    finally:
        found.close()
