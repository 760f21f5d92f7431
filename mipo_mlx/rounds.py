"""Which rounds of sampling and training a run's adapters are the result of, and the pairs that these were trained on."""

import filecmp
from pathlib import Path

from .files import of_round
from .records import TRAIN, Pair, read_records

ADAPTERS = "adapters.safetensors"


def kept(folder: Path) -> list[int]:
    """The rounds that count: from the first to the one whose own adapters `adapters/` holds; [1] of a run of one round.

    A round that raised no held-out information left `adapters/` as it was, and one without enough pairs trained nothing and
    ended with the adapters of the round before.
    """
    number = 1
    while (own := folder / f"adapters-{number}" / ADAPTERS).exists():
        if filecmp.cmp(own, folder / "adapters" / ADAPTERS, shallow=False):
            break
        number += 1
    return list(range(1, number + 1))


def pair_files(folder: Path) -> list[Path]:
    """The pair files of the rounds that count."""
    return [folder / of_round("pairs.jsonl", number) for number in kept(folder)]


def trained_pairs(folder: Path) -> list[Pair]:
    """The pairs that the adapters were trained on, in the order of the rounds."""
    return [pair for path in pair_files(folder) for pair in read_records(path, Pair) if pair.split == TRAIN]
