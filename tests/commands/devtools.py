"""A headless Chromium that a test types into: its DevTools protocol over a pipe, and real key presses."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.report.browser import CHROMIUM

KEYS = {"Tab": 9, "Enter": 13, " ": 32}


class Browser:
    def __init__(self, to: Any, fro: Any) -> None:
        self.to, self.fro, self.number, self.session = to, fro, 0, ""

    def call(self, method: str, **given: Any) -> dict:
        """The result of a command; events in between are left aside."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": given} | ({"sessionId": self.session} if self.session else {})
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            data = b""
            while not data.endswith(b"\0"):
                data += self.fro.read(1)
            answer = json.loads(data[:-1])
            if answer.get("id") == self.number:
                return answer["result"]

    def open(self, address: str) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.navigate", url=address)
        self.wait("document.readyState == 'complete' && location.href != 'about:blank'")

    def value(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, script: str) -> None:
        for _ in range(200):
            if self.value(script):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}; the page shows {self.value('document.body.innerText')!r:.500}")

    def press(self, key: str) -> None:
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r", "Tab": ""}.get(key, key)
        down = {"type": "keyDown", "key": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def tab_to(self, script: str) -> None:
        """Press Tab until the focus is where `script` says."""
        for _ in range(80):
            self.press("Tab")
            if self.value(script):
                return
        raise AssertionError(f"Tab never comes to: {script}")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    ours, theirs = os.pipe(), os.pipe()
    flags = "--headless --no-sandbox --window-size=1200,900 --no-first-run --remote-debugging-pipe --disable-background-networking"
    # Chromium takes its pipe as the files 3 and 4.
    begin = (
        "import fcntl, os, sys; r, w = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3]); "
        "os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
    )
    command = [sys.executable, "-c", begin, str(ours[0]), str(theirs[1]), CHROMIUM, *flags.split()]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, f"--user-data-dir={folder / 'profile'}"], pass_fds=(ours[0], theirs[1]), **quiet)
    os.close(ours[0])
    os.close(theirs[1])
    try:
        with open(ours[1], "wb") as to, open(theirs[0], "rb") as fro:
            yield Browser(to, fro)
    finally:
        process.terminate()
        process.wait(20)
