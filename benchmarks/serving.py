"""Sixteen clients ask one server at once, for as long as it is given: failed requests, answers a second, memory.

    python benchmarks/serving.py [RUN] [--minutes 5] [--clients 16]

RUN is a trained run; without one, a tiny random model with random adapters is served. Clients are OpenAI's, half of them stream,
each asks in turn for the trained model, without notes, and for the base. One in ten leaves in the middle of its answer.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from openai import OpenAI

sys.path.insert(0, str(Path(__file__).parent.parent))
SAMPLES = 20  # of the server's memory


@dataclass
class Seen:
    """What the clients saw."""

    whole: int = 0
    streamed: int = 0
    left: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def resident(pid: int) -> float:
    """MB of memory that a process holds."""
    if sys.platform == "linux":
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout) / 1024


def tiny_run(folder: Path) -> Path:
    """A trained run of a tiny random model, with four notes."""
    from tests.commands.test_chat import run_with_notes
    from tests.conftest import save_tiny_model, train_tokenizer

    return run_with_notes(folder, save_tiny_model(train_tokenizer(folder / "model")))


def ask(client: OpenAI, name: str, number: int, seen: Seen) -> None:
    """One request; what it came to is entered."""
    model = (name, f"{name}:no-notes", f"{name}:base")[number % 3]
    messages = [{"role": "user", "content": f"Who comes when I cook soup on Thursday for {number} guests?"}]
    begin, stream = time.monotonic(), number % 2 == 0
    try:
        if not stream:
            client.chat.completions.create(model=model, messages=messages, max_tokens=24)
        else:
            chunks = client.chat.completions.create(model=model, messages=messages, max_tokens=24, stream=True)
            for place, _ in enumerate(chunks):
                if number % 10 == 0 and place == 3:
                    chunks.close()
                    with seen.lock:
                        seen.left += 1
                    return
    except Exception as error:
        with seen.lock:
            seen.failed.append(f"{type(error).__name__}: {error}")
        return
    with seen.lock:
        seen.seconds.append(time.monotonic() - begin)
        seen.streamed += stream
        seen.whole += not stream


def measure(folder: Path, minutes: float, clients: int) -> None:
    command = [sys.executable, "-m", "mipo_mlx.cli", "serve", str(folder), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout
    url = server.stdout.readline().split()[3]
    seen, until = Seen(), time.monotonic() + 60 * minutes

    def work(first: int) -> None:
        client, number = OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60), first
        while time.monotonic() < until:
            ask(client, folder.name, number, seen)
            number += clients

    threads = [threading.Thread(target=work, args=(first,)) for first in range(clients)]
    for thread in threads:
        thread.start()
    memory = []
    while time.monotonic() < until:
        time.sleep(60 * minutes / SAMPLES)
        memory.append(resident(server.pid))
        print(f"{len(seen.seconds):6} answers, {len(seen.failed)} failed, {memory[-1]:.0f} MB", flush=True)
    for thread in threads:
        thread.join()
    server.terminate()
    server.wait(30)
    times = sorted(seen.seconds)
    print(
        f"{clients} clients, {minutes:g} minutes: {seen.whole} whole and {seen.streamed} streamed answers, {seen.left} left, ",
        end="",
    )
    print(f"{len(seen.failed)} failed; {len(times) / minutes / 60:.1f} answers a second")
    print(f"seconds an answer: median {times[len(times) // 2]:.2f}, 99 of 100 below {times[int(len(times) * 0.99)]:.2f}")
    print(f"memory: {memory[len(memory) // 4]:.0f} MB after a quarter of the time, {memory[-1]:.0f} MB at the end")
    for line in sorted(set(seen.failed))[:5]:
        print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=16)
    given = parser.parse_args()
    os.environ.setdefault("MIPO_RUNS", "runs")
    with tempfile.TemporaryDirectory() as scratch:
        measure(given.run or tiny_run(Path(scratch)), given.minutes, given.clients)
