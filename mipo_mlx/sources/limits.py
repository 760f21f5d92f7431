"""Reads a file within limits of time and memory, so that a hostile file costs itself and not the run.

A small file of text is read in this process, under a clock of its CPU time. A helper reads each other file: a process of its own,
which the system ends where it takes too long. It starts with the first such file, reads one after the other, and ends itself when
it has nothing to do for a while. It runs the same function, so limits change no note.
"""

import io
import math
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from ..models.process_limits import OUT_OF_MEMORY, limit, peak, watched
from .note import Note, Skip, Tally
from .note_file import NoteFile

Work = Callable[[NoteFile, Tally], list[Note]]
SMALL = 64 << 10  # bytes of a file that is read in this process
PACKED = (".docx", ".pdf")  # what is in them has any size
MEMBER = 64 << 20  # bytes of a file in an archive that is handed to the helper; a larger one, such as a mail folder, is read here
LEAST, A_MEGABYTE = 20.0, 20.0  # seconds of CPU time for any file, and for each megabyte; the slowest reader takes a fifth of it
MEMORY, SWOLLEN = 1 << 30, 25  # bytes of memory for any file, and for each of its bytes
IDLE = 10.0  # seconds


class TooSlow(BaseException):
    """No `except Exception` of a reader catches it."""


def within_limits(work: Work, file: NoteFile, tally: Tally) -> list[Note]:
    """What work(file, tally) returns. Raises what it raises, and Skip where it takes too long or too much memory.

    work: a function of a module, or a partial of one, since the helper gets it by its name.
    """
    size = file.stamp()[0]
    if file.archive:
        beginning = file.beginning(MEMBER + 1)
        size = len(beginning)
        if 0 < size <= MEMBER:  # of a broken one, its reader says why
            file = replace(file, open=partial(io.BytesIO, beginning))
    if (size > SMALL or file.ending in PACKED) and size <= (MEMBER if file.archive else sys.maxsize):
        return _helper.read(work, file, tally, size)
    with _clock(_seconds(size)):
        return work(file, tally)


def _seconds(size: int) -> float:
    return LEAST + A_MEGABYTE * size / (1 << 20)


def _too_slow(seconds: float) -> Skip:
    return Skip(f"takes more than {seconds:.0f} seconds of computing; split it, or save it in another format")


@contextmanager
def _clock(seconds: float) -> Iterator[None]:
    """Raise Skip where this thread's work takes more CPU time. Only the main thread gets signals, so others have no clock."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGVTALRM) is not signal.SIG_DFL:
        yield
        return

    def ring(*_: Any) -> None:
        raise TooSlow

    signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except TooSlow:
        raise _too_slow(seconds) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)


class _Helper:
    """The process that reads files. Calls from several threads take turns."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0  # the process that started it: a fork of that has none
        self.lock = threading.Lock()

    def read(self, work: Work, file: NoteFile, tally: Tally, size: int) -> list[Note]:
        seconds, memory = math.ceil(_seconds(size)), MEMORY + SWOLLEN * size
        question = pickle.dumps((work, file, seconds, memory))
        with self.lock:
            answer = self._ask(question) or self._ask(question)  # the first may have ended itself before it got the question
        if answer is None:
            raise Skip("its reader ends in the middle")
        if answer == OUT_OF_MEMORY:
            raise Skip(f"takes more than {memory >> 20:,} MB of memory; split it, or save it in another format")
        if isinstance(answer, int):
            raise _too_slow(seconds) if answer == -signal.SIGXCPU else Skip(f"its reader is ended by the system ({answer})")
        outcome, counts, file.read[:] = answer  # the hash too: the file may change after it was read
        tally.add(counts)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _ask(self, question: bytes) -> Any:
        """The answer; the exit code where the helper is ended in the middle; None where it ended itself."""
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            self.process, self.owner = _start(), os.getpid()
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(question)
            self.process.stdin.flush()
            return pickle.load(self.process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._end() or None
        except BaseException:  # Ctrl-C: an answer that nobody waits for must not be taken for the next one
            self.process.kill()
            self._end()
            raise

    def _end(self) -> int:
        """The exit code of the helper, which is gone or about to be."""
        process, self.process = self.process, None
        assert process and process.stdin and process.stdout
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        return process.wait()


_helper = _Helper()


def _start() -> "subprocess.Popen[bytes]":
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=nowhere, start_new_session=True)


def serve() -> None:
    """The helper: it reads the files that it is asked for, until nobody asks any more."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    while select.select([questions], [], [], IDLE)[0]:
        try:
            work, file, seconds, memory = pickle.load(questions)
        except EOFError:
            return
        answers.write(pickle.dumps(_answer(work, file, seconds, memory)))
        answers.flush()
        if peak() > MEMORY // 2:  # a fresh one follows: the peak of one file is no fault of the next
            return


def _answer(work: Work, file: NoteFile, seconds: int, memory: int) -> tuple[list[Note] | BaseException, Tally, list[str]]:
    tally = Tally()
    limit(math.ceil(time.process_time()) + seconds, 2 * memory)
    try:
        with watched(memory):
            return work(file, tally), tally, file.read
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:
        return error, tally, file.read
