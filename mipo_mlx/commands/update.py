"""`mipo-mlx update RUN`: the notes as they are now go into the run's memory.

A talk or a server that goes on uses them with its next question: the memory notices that its file was written (`Index.reading`).
"""

from pathlib import Path

from .. import backend
from .. import run as runs
from ..errors import UserError
from ..progress import Reporter
from ..run import Run
from ..sources import changes
from .options import RunOptions


def update(options: RunOptions) -> list[str]:
    """Take the notes in; returns what there is to say. Raises UserError for a run without notes of its owner."""
    run, reporter = runs.existing_run(Path(options.target or ""), options.root), Reporter(options.quiet)
    return [*remember(run, reporter), *untrained(run)]


def remember(run: Run, reporter: Reporter) -> list[str]:
    """Bring memory.sqlite up to date. Returns a line for each kind of change."""
    backend.start()
    from ..memory.access import open_memory
    from ..models.load import load

    memory = open_memory(run.folder, run.recipe, load(run.recipe.model), reporter)
    if memory is None:
        raise UserError(f"{run.folder}: this run has no notes of its owner, so there is nothing to update")
    index, lines = memory.index, [f"memory: {line}" for line in memory.index.changes.lines()]
    known = f"{index.count():,} passages of {index.places().count:,} files"
    return [*lines, f"memory: {known}" if lines else f"memory: nothing has changed; {known}"]


def untrained(run: Run) -> list[str]:
    """What became of the notes since the training, a line for each kind; [] for a run that has not read them yet."""
    since = changes.since(run.recipe.sources, run.summary("sources").get("hashes", {}))
    advice = [f"`{changes.command(run.folder)} --train` trains on what is new and changed"] if since.new or since.changed else []
    return [*(f"since training: {line}" for line in since.lines()), *advice]
