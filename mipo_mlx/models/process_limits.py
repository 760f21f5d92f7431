"""Limits of CPU time and memory that a process sets for itself before it runs code that a stranger wrote.

Whoever started the process sees by its exit code which limit ended it: -SIGXCPU, or OUT_OF_MEMORY.
"""

import os
import re
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OUT_OF_MEMORY = 99  # an exit code


def limit(seconds: int, space: int) -> None:
    """Limits that the system holds: of CPU time, and where it can, of address space. It writes no core of a process that it ends.

    seconds: of CPU time since the process began; space: bytes.
    """
    for kind, most in (("RLIMIT_CORE", 0), ("RLIMIT_CPU", seconds), ("RLIMIT_AS", space)):
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, kind), (most, resource.getrlimit(getattr(resource, kind))[1]))


@contextmanager
def watched(memory: int) -> Iterator[None]:
    """Within this, the process ends itself when it has held more bytes of memory: macOS knows no limit of it."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            if peak() > memory:
                os._exit(OUT_OF_MEMORY)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def peak() -> int:
    """The most bytes of memory that this process has held.

    Linux counts into ru_maxrss what the process held that started this one, so the peak comes from /proc there.
    """
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if peak := re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
            return int(peak[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
