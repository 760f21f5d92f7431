"""Rounds: sampling and training again, for recipes with `rounds` above 1. A run of one round needs none of this.

A later round trains on from the adapters of the round before, on pairs-2.jsonl, into checkpoints-2/ and adapters-2/. Its validation
pairs are those of the first round, so the validation loss measures the same in every round. adapters/ takes a round's adapters only
where that loss has fallen. A round where it has not is the last. The manifest says which rounds were taken.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import backend
from ..files import of_round, read_json, read_records, replacing
from ..progress import Reporter
from ..recipe import Recipe
from ..records import TRAIN, Pair
from . import train
from .train import Result, Start, Summary


@dataclass(frozen=True)
class Skipped:
    """A round in the manifest that had too few pairs for a step: it ends with the adapters of the round before."""

    pairs: int
    round: int
    ends_rounds: str
    taken: bool = False


def run(folder: Path, recipe: Recipe, reporter: Reporter, number: int, profile: str = "") -> dict[str, Any]:
    """Train one round into adapters-N/. Returns its `Summary`, or `Skipped`, for the manifest. profile: see `train.run`."""
    before, own = folder / f"adapters-{number - 1}", folder / f"adapters-{number}"
    if number == 1:
        summary, is_taken = Summary(**train.run(folder, recipe, reporter, profile)), True
        _copy(folder / "adapters", own)
    else:
        start = begin(folder, folder, recipe, number)
        if len({pair.grid for pair in start.train}) < recipe.training.grids_per_step:
            _copy(before, own)
            return asdict(Skipped(len(start.train), number, f"too few pairs were left in round {number}"))
        result = train.fit_watched(start, folder, recipe, reporter, own.name)
        is_taken = _is_taken(result, number, recipe)
        if is_taken:
            _copy(own, folder / "adapters")
        summary = Summary(**asdict(result), pairs=len(start.train), peak_memory=backend.peak_memory())
    reporter.conclude(f"  round {number}: {summary.gain}")
    return {**asdict(summary), "round": number, "taken": is_taken, "ends_rounds": _ends_rounds(summary, number)}


def _is_taken(result: Result, number: int, recipe: Recipe) -> bool:
    if number <= recipe.rounds or result.best_loss is None or result.first_loss is None:
        return result.improved
    return result.stopped is None and result.best_loss <= result.first_loss


def begin(source: Path, folder: Path, recipe: Recipe, number: int) -> Start:
    """What round `number` begins with: pairs from the run `source`, and the adapters that `folder` has of the round before."""
    first = read_records(source / "pairs.jsonl", Pair)
    if number == 1:
        return train.begin(first, recipe)
    own = read_records(source / of_round("pairs.jsonl", number), Pair)
    return Start(
        [pair for pair in own if pair.split == TRAIN],
        train.begin(first, recipe).validation,
        train.longest([*first, *own]),
        seed=f"{recipe.seed}/round/{number}",
        round_number=number,
        adapters=folder / f"adapters-{number - 1}",
    )


def taken(folder: Path) -> list[int]:
    """The rounds whose training adapters/ is the result of, from the manifest: the first, and later ones that were taken."""
    stages = read_json(folder / "manifest.json", {}).get("stages", {})
    later = [entry.get("summary") or {} for name, entry in stages.items() if name.startswith("training-")]
    return [1, *sorted(summary["round"] for summary in later if summary.get("taken"))]


def pair_files(folder: Path) -> list[Path]:
    """The pair files of the rounds that were taken."""
    return [folder / of_round("pairs.jsonl", number) for number in taken(folder)]


def trained_pairs(folder: Path) -> list[Pair]:
    """The pairs that the adapters were trained on, in the order of the rounds."""
    return [pair for path in pair_files(folder) for pair in read_records(path, Pair) if pair.split == TRAIN]


def _copy(source: Path, target: Path) -> None:
    """The adapters of `source` in `target`, byte for byte; each file appears whole or not at all."""
    for path in source.iterdir():
        with replacing(target / path.name) as temporary:
            shutil.copyfile(path, temporary)


def _ends_rounds(result: Result, number: int) -> str | None:
    if not result.improved:
        return f"the validation loss no longer fell in round {number}"
    return f"training ended early in round {number}" if result.stopped else None
