"""The two ways a command ends early, and the one line that tells the reason.

UserError is a mistake of the user (exit code 2), Failure is a failure of the machine or of the run (exit code 1).
"""

import errno
import re

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# The errors of a path that was named by hand; every other error, such as a broken disk, is the machine's.
PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM,
         errno.EROFS)  # fmt: skip
# What MLX's RuntimeError says, in small letters: it has no types of its own. CPU, Metal, CUDA and cuBLAS have different words.
OUT_OF_MEMORY = ("malloc", "out of memory", "outofmemory", "allocat", "alloc_failed", "insufficient memory")
# The system ended work on the GPU that took long: macOS while the display is on, Windows and Linux where a display is connected to
# the NVIDIA GPU. After that, macOS may refuse the next pieces of work too.
WATCHDOG = ("impacting interactivity", "impactinginteractivity", "gpu timeout", "callbackerrortimeout", "gpu hang",
            "callbackerrorhang", "submissionsignored", "innocentvictim", "launch timed out", "launchtimeout")  # fmt: skip
DISPLAY = "let the display sleep; `caffeinate -i mipo-mlx ...` keeps the Mac itself awake"


# What moves a terminal's cursor, recolours it, sets its title, or turns the direction of writing.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\\\)?|[ -/]*[0-~])?")
UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class UserError(Exception):
    """Something the user can mend: one line that says what was wrong, where, what was expected and what to do."""

    exit_code = 2


class Failure(Exception):
    """Something went wrong while working (disk full, training collapsed): one line; what was computed is kept."""

    exit_code = 1


def one_line(error: Exception) -> tuple[str, int]:
    """Any exception as one line, and the exit code of the command that it ends."""
    code = getattr(error, "exit_code", None)
    if code is not None:
        return _joined(str(error)), code
    if isinstance(error, OSError) and error.filename is not None:
        return _joined(f"{error.filename}: {_of_path(error)}"), 2 if error.errno in PATHS else 1
    if is_watchdog(error):
        return (
            f"the system ended work on the GPU that took too long, as macOS does while the display is on ({_joined(str(error))}); "
            f"{DISPLAY}; run the same command again, it continues from here"
        ), 1
    if is_out_of_memory(error):
        return (
            f"out of memory ({_joined(str(error)) or type(error).__name__}); close other programs, lower pairs.batch or "
            "sources.context_tokens, or take a smaller or quantised model; what was computed is kept"
        ), 1
    return _joined(f"{type(error).__name__}: {error} (run `mipo-mlx --debug ...` for the traceback)"), 1


def first_line(error: BaseException) -> str:
    """The first line of an exception's text; the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def printable(text: str) -> str:
    """`text` as a terminal may show it: names, notes, models and servers can hold what would steer it. Line ends and tabs stay."""
    return UNSHOWN.sub("", ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def _joined(text: str) -> str:
    return " ".join(printable(text).split())


def _of_path(error: OSError) -> str:
    reason = (error.strerror or type(error).__name__).lower()
    if error.errno in DISK_FULL:
        return "the disk is full; free some space and run the same command again, it continues from here"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{reason}; give yourself the right to read and write there, or name another place (--runs for the run's folder)"
    if error.errno in PATHS:
        return f"{reason}; check this path"
    return reason


def is_out_of_memory(error: BaseException) -> bool:
    """Whether MLX raised because an allocation did not fit."""
    return isinstance(error, MemoryError) or _says(error, OUT_OF_MEMORY)


def is_watchdog(error: BaseException) -> bool:
    """Whether MLX raised because the system ended work on the GPU that took too long."""
    return _says(error, WATCHDOG)


def is_too_large(error: BaseException) -> bool:
    """Whether a smaller piece of the same work may succeed: for memory, or for the system's watchdog."""
    return is_out_of_memory(error) or is_watchdog(error)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
