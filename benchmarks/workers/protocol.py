"""How a worker talks to `peers.py`: a JSON line each way, on what was its standard output when it began.

A worker is one side of the benchmark in a process of its own, in its own environment; this module needs nothing but Python. It
loads the model, takes one step from perturbed adapters whose loss and gradients all sides must share, then sets B to zero
and takes one step each time it is told to.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any


class Stop(Exception):
    """The benchmark wants no more steps of this side."""


class Session:
    """The configuration of a run (`config`) and the talk with the benchmark."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        self._replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever a library prints goes to the log
        for library in self.config["blas"]:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)

    def send(self, **reply: Any) -> None:
        self._replies.write(json.dumps(reply) + "\n")
        self._replies.flush()

    def wait(self, trim: Any) -> None:
        """Return when a step is wanted. `trim` frees what the side's allocator holds in store."""
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
        """Token ids: the prompt's, and each answer's, the chosen one first."""
        return self.config["prompt"], self.config["answers"]


def give_back_memory() -> None:
    """Hand freed memory back to the system, so that the next peak is the next step's own."""
    import gc

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def reset_peak() -> None:
    """Make the system's record of this process's largest resident size begin anew, where it can (Linux)."""
    give_back_memory()
    record = Path("/proc/self/clear_refs")
    if record.exists():
        record.write_text("5")


def peak_resident() -> int:
    """Largest resident size of this process in bytes: since `reset_peak` on Linux, else since it began."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
