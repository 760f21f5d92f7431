"""`mipo-mlx serve --watch`: memory follows the notes by itself, without `mipo-mlx update`.

A thread compares names, sizes and times of the files with those of its last look. Where they differ, the thread of the model takes
the change into memory, between two tokens of its answers. A file that is still being written differs again at the next look.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import one_line
from ..recipe import Sources
from ..sources.changes import kept_name
from ..sources.gather import note_files
from ..sources.note import Tally
from ..sources.note_file import NoteFile
from ..sources.own_choice import FILE
from .worker import Worker

EVERY = 2.0  # seconds between two looks
SHARE = 0.05  # of one core, at most, that looking takes where there are very many files


@contextmanager
def watching(folder: Path, sources: Sources, worker: Worker, say: Callable[[str], None], every: float = EVERY) -> Iterator[None]:
    """Follow the notes of the run in `folder` while the block runs. say: gets a line for each kind of change, and each fault."""
    ended = threading.Event()

    def follow() -> None:
        last: frozenset[tuple[str, int, int]] | None = None
        fault, wait = "", 0.0
        while not ended.wait(wait):
            begin = time.monotonic()
            try:
                now = stamps(folder, sources)
                wait = max(every, (time.monotonic() - begin) / SHARE)
                if now != last:
                    for line in worker.submit(worker.assistant.renew).result().lines():
                        say(f"memory: {line}")
                last, fault = now, ""
            except Exception as error:  # a disk that is gone or full, for example: answers go on with the notes as they were
                wait = every
                if fault != (fault := one_line(error)[0]):
                    say(f"memory: {fault}; the notes are remembered as they were")

    thread = threading.Thread(target=follow, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def stamps(folder: Path, sources: Sources) -> frozenset[tuple[str, int, int]]:
    """(name, size, time of the last change in ns) of each file of the notes, and of the owner's choice of passages."""
    files = [*note_files(sources, Tally()), NoteFile.on_disk(folder / FILE)]
    return frozenset((kept_name(file.source, sources), *file.stamp()) for file in files)
