"""Headless Chromium, controlled over a pipe with the DevTools protocol."""

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
# Includes lazily loaded images; a broken image is an error.
ALL_IMAGES = """Promise.all([...document.images].map((image) => {
  image.loading = "eager";
  return image.decode();
}))"""
PATIENCE = 60.0  # seconds for an answer, on a busy machine


def chromium() -> str | None:
    """Path of the browser: $FRACNET_CHROMIUM or one of the usual names; None if there is none."""
    variable = os.environ.get("FRACNET_CHROMIUM")
    return variable or next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One process with one page.

    Since the page was opened: `faults` are the console's errors, `requests` all addresses.
    """

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
        self.requests: list[str] = []
        target = self._ask("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        parameters = {"targetId": target, "flatten": True}
        self._session: str = self._ask("Target.attachToTarget", parameters, None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the page and return its answer."""
        return self._ask(method, parameters, self._session)

    def open(self, path: Path | str, width: int, scheme: str, media: str = "") -> None:
        """Show a file or an address at a width in pixels, light or dark, or (`media`) as print."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self.faults, self.requests, self._loaded = [], [], False
        address = path if isinstance(path, str) else path.resolve().as_uri()
        self.ask("Page.navigate", url=address)
        while not self._loaded:
            self._take(self._read())
        self.value(ALL_IMAGES)

    def value(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        parameters = {"expression": script, "returnByValue": True, "awaitPromise": True}
        answer = self.ask("Runtime.evaluate", **parameters)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def choose_files(self, selector: str, files: list[Path]) -> None:
        """Put files into an input of the page, as its user would."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def picture(self, path: Path) -> None:
        """Save the whole page as PNG, for visual inspection."""
        answer = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def printed(self) -> bytes:
        """The page as PDF, with the paper size of its style sheet."""
        answer = self.ask("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(answer["data"])

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):  # the process may have ended already
            self._send({"id": 0, "method": "Browser.close"})
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def _ask(self, method: str, parameters: dict[str, Any], session: str | None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._send(message | ({"sessionId": session} if session else {}))
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._take(answer)

    def _take(self, event: dict[str, Any]) -> None:
        """Record an event of the page."""
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.faults.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.faults.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.faults.append(parameters["entry"]["text"])

    def _send(self, message: dict[str, Any]) -> None:
        os.write(self._out, json.dumps(message).encode() + b"\0")

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self._in, 1 << 20) if ready else b""
            assert more, "no answer from the browser"
            self._rest += more
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        return message


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser | None]:
    """A running browser; None if none is installed."""
    program = chromium()
    if program is None:
        yield None
        return
    process = Browser(program, profile)
    try:
        yield process
    finally:
        process.close()
