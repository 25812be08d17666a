"""Drives a headless Chromium over a pipe, in its own DevTools protocol: no port, no driver."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)  # fmt: skip

KEYS = {
    "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9, "Enter": 13, "Escape": 27,
    " ": 32,
}  # fmt: skip


def executable() -> str | None:
    """The path of Chromium; None where it is not installed."""
    return next((place for name in NAMES if (place := shutil.which(name))), None)


class Chromium:
    """One browser with one page; use it as a context manager.

    `errors` collects the exceptions of the page's scripts and the errors on its console.
    """

    def __init__(self, width: int = 1440, height: int = 1000) -> None:
        self.size = (width, height)
        self.errors: list[str] = []
        self.dialogs: list[str] = []

    def __enter__(self) -> "Chromium":
        program = executable()
        assert program is not None
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Chromium reads at 3 and writes at 4: its ends are moved above these numbers.
        passed = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs_in, theirs_out)]
        for end in (theirs_in, theirs_out):
            os.close(end)
        for end in passed:
            os.set_inheritable(end, True)
        self._browser = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{passed[0]} 4>&{passed[1]}', "bash", program, *FLAGS,
             f"--user-data-dir={self._profile}", f"--window-size={self.size[0]},{self.size[1]}",
             "about:blank"],
            pass_fds=passed, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in passed:
            os.close(end)
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._in = os.fdopen(ours_in, "rb", buffering=0)
        self._buffer, self._count, self._session = b"", 0, None
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=self.size[0], height=self.size[1],
            deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self.ask("Browser.close")
            self._browser.wait(5)
        except (OSError, subprocess.TimeoutExpired, EOFError):
            self._browser.kill()
            self._browser.wait()
        self._out.close()
        self._in.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    # -- talking ----------------------------------------------------------------------------

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer; events on the way are noted."""
        self._count += 1
        number = self._count
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = self._in.read(1 << 20)
            if not more:
                raise EOFError("Chromium is gone")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(
                f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}"
            )
        elif event.get("method") == "Page.javascriptDialogOpening":
            self.dialogs.append(parameters["message"])

    # -- doing ------------------------------------------------------------------------------

    def open(self, url: str, seconds: float = 240) -> float:
        """Goes to a page of ours and waits until it is ready; the milliseconds that took."""
        self.ask("Page.navigate", url=url)
        self.until("document.body && document.body.dataset.state === 'ready'", seconds)
        return float(self.run("Number(document.body.dataset.readyMs)"))

    def run(self, script: str) -> Any:
        """The value of a script, promises awaited."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 120) -> None:
        """Waits for a condition of the page."""
        end = time.monotonic() + seconds
        while not self._true(condition):
            assert time.monotonic() < end, f"never came true: {condition}; {self.errors}"
            time.sleep(0.02)

    def _true(self, condition: str) -> bool:
        try:
            return self.run(f"Boolean({condition})") is True
        except RuntimeError:
            return False

    def worked(self) -> float:
        """Seconds of the processor that the page's own thread has taken; see Performance.enable."""
        metrics = self.ask("Performance.getMetrics")["metrics"]
        return next(float(m["value"]) for m in metrics if m["name"] == "TaskDuration")

    def press(self, key: str, shift: bool = False) -> None:
        """A key, as typed by a person."""
        shown = key.upper() if shift and len(key) == 1 else key
        code = KEYS.get(key) or ord(key.upper())
        press: dict[str, Any] = {
            "key": shown, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0,
        }  # fmt: skip
        if len(shown) == 1:
            press["text"] = shown
        self.ask("Input.dispatchKeyEvent", type="keyDown", **press)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **press)

    def drawn(self) -> None:
        """Waits until the page has drawn its pending changes."""
        self.run("new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))")

    def text(self, selector: str) -> str:
        """The text of an element."""
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def pixel(self, selector: str, x: float, y: float) -> list[int]:
        """Red, green, blue, opacity of a canvas at a place in CSS pixels."""
        return self.run(
            f"(() => {{ const c = document.querySelector({json.dumps(selector)});"
            f"const r = c.width / c.clientWidth;"
            f"return [...c.getContext('2d').getImageData(Math.round({x} * r),"
            f" Math.round({y} * r), 1, 1).data]; }})()"
        )

    def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": name}],
        )

    def picture(self, file: Path) -> None:
        """A screenshot of the whole page."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))
