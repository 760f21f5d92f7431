"""`mipo-mlx runs` and `mipo-mlx rm RUN`: the runs that there are, and one of them removed, with its schedule."""

import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import run as runs
from ..errors import Failure, UserError
from ..files import read_json, size
from ..progress import Reporter
from . import nightly
from .options import RunOptions


@dataclass(frozen=True)
class Row:
    name: str
    state: str
    verdict: str  # how the verdict of its evaluation begins; empty without an evaluation
    size: int  # bytes
    created: str  # date


def show(root: Path) -> str:
    """The runs of a folder as a table, newest first."""
    rows = sorted((_row(kept.parent) for kept in root.glob("*/recipe.yaml")), key=lambda row: row.created, reverse=True)
    if not rows:
        return f"no runs in {root}; `mipo-mlx init` writes a recipe, and `mipo-mlx train` makes a run of it"
    cells = [(row.name, row.state, row.verdict, f"{row.size / 1e6:,.0f} MB", row.created) for row in rows]
    table = [("run", "state", "verdict", "size", "begun"), *cells]
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([*lines, f"in {root}"])


def _row(folder: Path) -> Row:
    try:
        run = runs.existing_run(folder, folder.parent)
        stopped = next((step for step in run.steps() if not run.is_over(step)), None)
        state = "at work" if _busy(folder) else f"stopped in {stopped}" if stopped else "finished"
        evaluated = run.done("evaluation")
        verdict = read_json(folder / "eval.json").get("verdict", "").partition(":")[0] if evaluated else ""
        created = run.manifest.get("created", "")[:10]
    except Failure:
        state, verdict, created = "damaged", "", ""
    except UserError:
        state, verdict, created = "of another version", "", ""
    return Row(folder.name, state, verdict, size(folder), created)


def _busy(folder: Path) -> bool:
    """Whether another process holds the lock of a run."""
    lock = folder / ".lock"
    if not lock.exists():
        return False
    with open(lock) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a disk without locks
            return False
    return False


def remove(options: RunOptions, sure: Callable[[str], bool]) -> str:
    """Remove what a run wrote after asking; its folder too, where nothing else is in it. Returns what there is to say.

    Raises UserError where there is no such run, where no run wrote the folder, and where a process works on it.
    """
    folder = runs.folder_of(Path(options.target or ""), options.root)
    runs.require_own(folder)
    if not sure(f"Remove the run {folder} ({size(folder) / 1e6:,.0f} MB)?"):
        return f"{folder} stays"
    with runs.locked(folder, Reporter()):
        ended = nightly.end_with(options)  # it would start a run that is gone, each night
        runs.erase(folder)
        for name in (".lock", ".DS_Store"):
            (folder / name).unlink(missing_ok=True)
    others = sorted(path.name for path in folder.iterdir())
    if others:
        return "\n".join([*ended, f"removed the run; {folder} stays with what it did not write: {', '.join(others[:5])}"])
    folder.rmdir()
    return "\n".join([*ended, f"removed {folder}"])
