"""How a worker talks to `peers.py`: words on its standard input, JSON lines on the standard output that it began with.

A worker is one side of the benchmark in its own process and environment. It loads the model and takes one step from perturbed
adapters; all sides must have its loss and gradients. Then it sets B to zero and takes one step for each word `step`. This
module needs nothing but Python.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any


class Stop(Exception):
    """The benchmark needs no more steps of this side."""


class Session:
    """The configuration of a run (`config`) and the talk with the benchmark."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        self._replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # output of libraries goes to the log
        for library in self.config["blas"]:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)

    def send(self, **reply: Any) -> None:
        self._replies.write(json.dumps(reply) + "\n")
        self._replies.flush()

    def wait(self, trim: Any) -> None:
        """Return at the word `step`. `trim` frees the memory that the side's allocator keeps."""
        for line in sys.stdin:
            if line.strip() == "step":
                return
            if line.strip() == "stop":
                break
            trim()
            give_back_memory()
            self.send(event="trimmed")
        raise Stop

    def prompt_and_answers(self) -> tuple[list[int], list[list[int]]]:
        """Token ids of the prompt and of each answer, the chosen one first."""
        return self.config["prompt"], self.config["answers"]


def give_back_memory() -> None:
    """Return freed memory to the system, so that the next peak belongs to the next step."""
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def reset_peak() -> None:
    """Reset the system's record of this process's largest resident size (Linux only)."""
    give_back_memory()
    record = Path("/proc/self/clear_refs")
    if record.exists():
        record.write_text("5")


def peak_resident() -> int:
    """Largest resident size of this process in bytes: since `reset_peak` on Linux, elsewhere since the start."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
