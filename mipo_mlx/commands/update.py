"""`mipo-mlx update RUN`: the notes as they are now go into the run's memory; with --train, the adapters are trained on what is new.

A talk or a server that goes on uses them with its next question: the memory notices that its file was written (`Index.reading`).

An update with --train is one more round behind those of the recipe: sources-N, pairs-N and training-N, each a step of the run. The
run stays as it was until the last of them has shown that the old validation pairs fare no worse. An update that was stopped goes on
with the same command, and ends with the same bytes.
"""

import hashlib
import shutil
import time
from pathlib import Path
from shlex import quote
from typing import Any

from .. import run as runs
from ..errors import UserError
from ..files import dump, of_round, read_json, read_records, sha256, updates, write_json
from ..models import identity
from ..progress import Reporter
from ..records import TRAIN, VALIDATION, Pair
from ..run import STAGES, Run
from ..sources import changes
from .options import RunOptions

REFUSED = "refused"  # key of the manifest: the update that was worse, so that the next night does not repeat it


def update(options: RunOptions, train: bool) -> list[str]:
    """Take the notes in; returns what there is to say. Raises UserError for a run without notes of its owner."""
    run, reporter = runs.existing_run(Path(options.target or ""), options.root), Reporter(options.quiet)
    lines = remember(run, reporter)
    return [*lines, *(train_on(run, reporter) if train else untrained(run))]


def remember(run: Run, reporter: Reporter) -> list[str]:
    """Bring memory.sqlite up to date. Returns a line for each kind of change."""
    from ..memory.access import open_memory
    from ..models.load import load

    memory = open_memory(run.folder, run.recipe, load(run.recipe.model), reporter)
    if memory is None:
        raise UserError(f"{run.folder}: this run has no notes of its owner, so there is nothing to update")
    index, lines = memory.index, [f"memory: {line}" for line in memory.index.changes.lines()]
    known = f"{index.count():,} passages of {index.count_files():,} files"
    index.close()
    return [*lines, f"memory: {known}" if lines else f"memory: nothing has changed; {known}"]


def untrained(run: Run) -> list[str]:
    """What became of the notes since the training, a line for each kind; [] for a run that has not read them yet."""
    since = changes.since(run.recipe.sources, _newest_sources(run).get("hashes", {}))
    advice = [f"`{changes.command(run.folder)} --train` trains on what is new and changed"] if since.new or since.changed else []
    return [*(f"since training: {line}" for line in since.lines()), *advice]


def train_on(run: Run, reporter: Reporter) -> list[str]:
    """Train on from the adapters on what is new, and take the result where validation is no worse. Returns what there is to say.

    Raises UserError for a run that is not trained, whose notes are missing, or whose result nothing could judge.
    """
    with runs.locked(run.folder, reporter):
        check(run)
        run.pending = at_work(run)
        if not run.pending:
            if reason := next_update(run, reporter):
                return reason
        begin(run)
        for step in (of_round(name, run.pending) for name in ("sources", "pairs", "training")):
            if not run.done(step):
                runs.run_stage(run, step, reporter)
            row = run.summary(step)
            if step.startswith("sources") and not row[TRAIN]["contexts"]:
                discard(run)
                return [f"training: nothing new to train on ({row['heldout']['contexts']} new passages are held out)"]
        return take_or_discard(run, reporter)


def next_update(run: Run, reporter: Reporter) -> list[str]:
    """Finish what an earlier update has left. Returns why no new one begins; [] where one does, whose number is run.pending."""
    number = max(run.recipe.rounds, *updates(run.folder), 0) + 1
    run.pending = number
    discard(run)
    run.pending = 0
    if not all(map(run.is_over, run.steps())):
        runs.execute(run, "report", reporter)
    since = changes.since(run.recipe.sources, _newest_sources(run).get("hashes", {}))
    if not since.new and not since.changed:
        return ["training: nothing is new since the last one"]
    before = run.manifest.get(REFUSED, {})
    if before.get("notes") == digest_of(run):
        return [f"training: not tried again until the notes change; on {before['date']} {before['why']}"]
    run.pending = number
    return []


def check(run: Run) -> None:
    again = f"`mipo-mlx train {quote(str(run.folder))}`"
    base = [step for step in runs.steps(run.recipe) if runs.parse(step)[0] == "training"]
    if not all(map(run.is_over, base)):
        raise UserError(f"{run.folder}: training is not finished; {again} goes on where it stopped")
    identity.check_adapters(run.folder, run.recipe.model)
    if run.recipe.sources.context == "profile":
        raise UserError(f"{run.folder}: trained on profiles alone, and an update brings passages; {again} with --fresh starts over")
    if not any(pair.split == VALIDATION for pair in read_records(run.folder / "pairs.jsonl", Pair)):
        raise UserError(
            f"{run.folder}: it has no validation pairs, so nothing could say whether an update is worse; start over with "
            "pairs.validation_grids above 0"
        )
    if not _newest_sources(run).get("hashes"):
        raise UserError(
            f"{run.folder}: keeps no hashes of its notes, so nothing says what is new; {again} with --fresh starts over"
        )


def at_work(run: Run) -> int:
    """The number of an update that was stopped; 0 where there is none."""
    steps, taken = map(runs.parse, run.manifest.get("stages", {})), updates(run.folder)
    return max((number for stage, number in steps if stage == "sources" and number > 1 and number not in taken), default=0)


def begin(run: Run) -> None:
    """Keep the adapters as they are, with which the update begins, under the number before its own."""
    before = run.folder / f"adapters-{run.pending - 1}"
    stages = run.manifest["stages"].items()
    earlier = [entry.get("sha256", {}) for step, entry in stages if runs.parse(step)[1] != run.pending]
    known = [hashes[identity.ADAPTERS[0]] for hashes in earlier if identity.ADAPTERS[0] in hashes]
    if before.exists() and known and sha256(before / "adapters.safetensors") != known[-1]:
        raise UserError(f"{before}: not the adapters that this update begins with; remove this folder and run the same command")
    if not before.exists():
        partial = run.folder / f".{before.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(run.folder / "adapters", partial)
        partial.rename(before)


def take_or_discard(run: Run, reporter: Reporter) -> list[str]:
    """Take the update into the run, or leave the run as it was. Then evaluate and export what was taken."""
    number, summary = run.pending, run.summary(of_round("training", run.pending))
    if not summary["taken"]:
        why = _worse(summary)
        discard(run, {"date": time.strftime("%Y-%m-%d"), "notes": digest_of(run), "why": why})
        return [f"training: not taken, {why}; the run is as it was"]
    entries = {name: entry for name, entry in run.manifest["stages"].items() if name not in list(STAGES)[3:]}
    manifest = {name: value for name, value in run.manifest.items() if name != REFUSED}
    write_json(run.folder / "manifest.json", {**manifest, "stages": entries, "updates": [*updates(run.folder), number]})
    run.pending = 0
    runs.execute(run, "report", reporter)
    row = run.summary(of_round("sources", number))
    losses = f"validation loss {summary['first_loss']:.4f} before, {summary['best_loss']:.4f} after"
    return [f"training: {row[TRAIN]['contexts']} new passages are trained on; {losses}; evaluation and exports are new"]


def discard(run: Run, refused: dict[str, Any] | None = None) -> None:
    """Remove all that an update has written that is not taken."""
    from ..training import metrics

    number, manifest = run.pending, run.manifest
    stages = {name: entry for name, entry in manifest.get("stages", {}).items() if runs.parse(name)[1] != number}
    marked = {**manifest, "stages": stages, **({REFUSED: refused} if refused else {})}
    if marked != manifest:
        write_json(run.folder / "manifest.json", marked)
    for stage in STAGES.values():
        for name in stage.each_round:
            path = run.folder / of_round(name, number)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    metrics.keep(run.folder, sum(row["round"] < number for row in metrics.read(run.folder)))


def digest_of(run: Run) -> str:
    """A hash of the notes as they are now, and of the adapters that an update would begin with."""
    adapters = (run.folder / identity.ADAPTERS[0]).read_bytes()
    return hashlib.sha256(dump(changes.hashes(run.recipe.sources)).encode() + adapters).hexdigest()


def _newest_sources(run: Run) -> dict[str, Any]:
    """The summary of the last sources that count."""
    return read_json(run.folder / of_round("sources.json", max([1, *updates(run.folder)])), {})


def _worse(summary: dict[str, Any]) -> str:
    if "best_loss" not in summary:
        return str(summary["ends_rounds"])
    if summary["stopped"]:
        return f"training ended early: {summary['stopped']}"
    return f"the validation loss rose from {summary['first_loss']:.4f} to {summary['best_loss']:.4f}"
