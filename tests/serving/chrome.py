"""A headless Chromium that a test drives by its keyboard, through the DevTools protocol over two pipes."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
CHROMIUM = next(filter(None, map(shutil.which, (*NAMES, MAC))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --hide-scrollbars --remote-debugging-pipe"
).split()
KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""), " ": ("Space", 32, " ")}
FOCUSED = "document.activeElement.id || document.activeElement.textContent.trim()"


class Chrome:
    """One page in a new browser."""

    def __init__(self, folder: Path, width: int = 1200, dark: bool = False) -> None:
        (read, self._out), (self._in, write) = os.pipe(), os.pipe()

        def pipes() -> None:  # Chromium reads from 3 and writes to 4
            os.dup2(read, 13), os.dup2(write, 14)
            os.dup2(13, 3), os.dup2(14, 4)

        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self._process = subprocess.Popen(
            command, preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read), os.close(write)
        self._numbers, self._rest, self.events = itertools.count(1), b"", list[dict[str, Any]]()
        self._session = ""
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, dark)

    def __enter__(self) -> "Chrome":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out), os.close(self._in)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command. Events that come before it are kept."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps({"id": number, "method": method, "params": params, **session}).encode() + b"\0")
        until = time.monotonic() + 60
        while time.monotonic() < until:
            while b"\0" not in self._rest:
                assert select.select([self._in], [], [], 60)[0], f"{method}: no reply"
                self._rest += os.read(self._in, 1 << 16)
            one, _, self._rest = self._rest.partition(b"\0")
            message = json.loads(one)
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)
        raise AssertionError(f"{method}: no reply")

    def size(self, width: int, dark: bool) -> None:
        """A window of that width, light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str, ready: str) -> None:
        self.call("Page.navigate", url=url)
        self.until(ready)

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str) -> Any:
        """Wait until an expression is true."""
        until, tried = time.monotonic() + 30, f"(() => {{ try {{ return {script} }} catch {{ return null }} }})()"
        while not (value := self.run(tried)):
            assert time.monotonic() < until, f"{script}: not within 30 s\n{self.run('document.body.innerText')}"
            time.sleep(0.02)
        return value

    def press(self, key: str, shift: bool = False) -> None:
        code, number, text = KEYS.get(key) or (f"Key{key.upper()}", ord(key.upper()), key)
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    @property
    def focused(self) -> str:
        """The id, or the text, of what has the focus."""
        return self.run(FOCUSED)

    def go(self, name: str, most: int = 40) -> None:
        """Press Tab until the focus is on that element."""
        self.tab_to(f"({FOCUSED}) == {json.dumps(name)}", most)

    def tab_to(self, script: str, most: int = 80) -> None:
        """Press Tab until an expression is true."""
        for _ in range(most):
            if self.run(script):
                return
            self.press("Tab")
        raise AssertionError(f"{script}: not reached by {most} times Tab")

    def picture(self, **options: Any) -> bytes:
        """A PNG of the window. options: of DevTools' Page.captureScreenshot."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"])
