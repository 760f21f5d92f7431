"""A session of `mipo-mlx serve` as a command that ends: one question, its answer in a file, and Ctrl-C.

`faults.py` kills, stops and starves such sessions, and runs them beside `update --train`.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ANSWER = "answer.txt"  # in the run's folder
QUESTION = {
    "messages": [{"role": "user", "content": "Who comes when I cook?"}],
    "max_tokens": 4,
    "temperature": 0,
}
EVERY = 0.02  # seconds between tries


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def session(place: Path) -> int:
    """Serve the run in `place` in this process, ask once, and end. Returns the exit code: 1 where there was no answer."""
    from mipo_mlx.cli import main

    port, answered = free_port(), threading.Event()
    asking = threading.Thread(target=_ask, args=(place, port, answered), daemon=True)
    asking.start()
    try:
        main(["serve", str(place), "--port", str(port)], standalone_mode=True)
    except SystemExit as error:
        if error.code not in (None, 0):
            return error.code if isinstance(error.code, int) else 1
    return 0 if answered.is_set() else 1


def _ask(place: Path, port: int, answered: threading.Event) -> None:
    """Ask as soon as the server listens, keep the answer, and end the process as Ctrl-C does."""
    body = json.dumps({"model": place.name, **QUESTION}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, {"Content-Type": "application/json"})
    try:
        while True:
            try:
                with urllib.request.urlopen(request) as response:
                    text = json.load(response)["choices"][0]["message"]["content"]
                break
            except urllib.error.HTTPError:
                raise
            except (urllib.error.URLError, ConnectionError):
                time.sleep(EVERY)
        (place / ANSWER).write_text(text)
        answered.set()
    except Exception as error:
        print(f"no answer: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os.kill(os.getpid(), signal.SIGINT)
