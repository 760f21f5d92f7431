"""Parts: shares of the sampling that other machines computed, as files in parts/ of the run.

    mipo-mlx pairs RUN --part 2/3    # on another machine: writes parts/2-of-3.jsonl

A part holds sealed rows of samples.jsonl in any order, each behind a header that says where it was made. A row counts by the id of
its grid. So a part may be damaged, torn or half done: what is whole in it is taken, and the run's own machine makes the rest.
A machine makes its share from the end, and the run's own machine goes from the beginning, so a slow one costs no time.
"""

import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import backend
from ..errors import UserError
from ..files import SEAL, dump, read_records, sealed
from ..models import identity
from ..models.load import resolve
from ..progress import Reporter
from ..recipe import Recipe
from ..records import Grid

FOLDER = "parts"
HEADER = "part"  # key of the rows that say where the rows behind them were made


@dataclass(frozen=True)
class Share:
    """Part `number` of `of`, from 1."""

    number: int
    of: int

    @staticmethod
    def parse(text: str) -> "Share":
        """A share from a command line, as in 2/3. Raises UserError for anything else."""
        match = re.fullmatch(r"([1-9]\d{0,2})/([1-9]\d{0,2})", text)
        if not match or int(match[1]) > int(match[2]):
            raise UserError(f"--part {text}: expected a share such as 2/3, the second of three")
        return Share(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def file(self) -> str:
        return f"{self.number}-of-{self.of}.jsonl"

    def numbers(self, count: int) -> range:
        """Which of `count` chunks belong to it, the last one first."""
        return range((self.number - 1) * count // self.of, self.number * count // self.of)[::-1]


@dataclass(frozen=True)
class Origin:
    """Where grids were made: what decides whether another machine's rows are those that this one would write."""

    kind: str  # of the device: metal, cuda or cpu
    device: str  # its name
    mlx: str
    mlx_lm: str
    blas: str
    base: str  # the identity of the base
    settings: str  # a hash of the seed and the section `pairs`

    @staticmethod
    def of(recipe: Recipe) -> "Origin":
        """Of this machine. Raises UserError where the base is missing."""
        on, versions = backend.device(), backend.versions()
        settings = dump({"seed": recipe.seed, "pairs": recipe.pairs.model_dump(mode="json", exclude={"votes"})})
        hashed = hashlib.sha256(settings.encode()).hexdigest()[:16]
        return Origin(
            on.kind, on.name, versions["mlx"], versions["mlx-lm"], on.blas, identity.identity_of(resolve(recipe.model)), hashed
        )

    def __str__(self) -> str:
        return f"{self.device} ({self.kind}, MLX {self.mlx})"

    def refused_by(self, own: "Origin") -> str | None:
        """Why a machine must not take these rows; None where it may."""
        if self.base != own.base:
            return "made by another base"
        if self.settings != own.settings:
            return "made with another seed or other settings of pairs"
        return f"made on {self}, and this machine computes on {own.kind}" if self.kind != own.kind else None


def header(share: Share, origin: Origin) -> dict[str, Any]:
    return {HEADER: str(share), **asdict(origin)}


@dataclass
class Parts:
    """The grids in a folder of parts, by their id. Its files are read on as they grow."""

    folder: Path
    own: Origin
    reporter: Reporter
    grids: dict[int, Grid] = field(default_factory=dict)
    made_on: dict[int, Origin] = field(default_factory=dict)
    _read: dict[Path, int] = field(default_factory=dict)  # bytes of each file that were read
    _from: dict[Path, Origin | None] = field(default_factory=dict)  # of the rows that come next; None: they are left alone
    _warned: set[str] = field(default_factory=set)

    def read_on(self) -> None:
        """Take in what was written since the last call: whole lines alone."""
        for path in sorted(self.folder.glob("*.jsonl")):
            if path.stat().st_size == self._read.get(path):
                continue
            with open(path, "rb") as handle:
                handle.seek(self._read.get(path, 0))
                lines = handle.read().split(b"\n")[:-1]
            self._read[path] = self._read.get(path, 0) + sum(len(line) + 1 for line in lines)
            for line in lines:
                self._take(path, line)

    def grids_of(self, ids: list[int]) -> list[Grid] | None:
        """The grids of these ids; None where one is missing."""
        return [self.grids[name] for name in ids] if all(name in self.grids for name in ids) else None

    def devices(self, ids: set[int]) -> dict[str, int]:
        """How many of these grids each other device made."""
        return dict(Counter(str(origin) for name, origin in self.made_on.items() if name in ids))

    def _take(self, path: Path, line: bytes) -> None:
        try:
            row = json.loads(line)
            if sealed({key: value for key, value in row.items() if key != SEAL})[SEAL] != row.pop(SEAL):
                raise ValueError
            if HEADER in row:
                self._from[path] = self._judged(path, Origin(**{key: value for key, value in row.items() if key != HEADER}))
                return
            grid = Grid.from_row(row)
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            self._warn(f"{path}: damaged lines are left out, and what they held is made again")
            return
        if (origin := self._from.get(path)) and grid.id not in self.grids:
            self.grids[grid.id], self.made_on[grid.id] = grid, origin

    def _judged(self, path: Path, origin: Origin) -> Origin | None:
        if reason := origin.refused_by(self.own):
            self._warn(f"{path}: left out, since it was {reason}; this machine makes what is missing")
            return None
        if origin != self.own:
            self._warn(f"{path}: made on {origin}; this machine, {self.own}, alone might write other answers. The manifest says so")
        return origin

    def _warn(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            self.reporter.warn(line)


def known_ids(folder: Path, recipe: Recipe) -> list[int]:
    """The ids of the grids that a run has already, in samples.jsonl or in its parts."""
    parts = Parts(folder / FOLDER, Origin.of(recipe), Reporter(quiet=True))
    parts.read_on()
    return sorted({*parts.grids, *(grid.id for grid in read_records(folder / "samples.jsonl", Grid))})


def keep_whole_lines(path: Path) -> None:
    """Cut off a torn last line: rows that are appended would become a part of it."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
