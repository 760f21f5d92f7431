"""What became of the notes since a run, or its memory, read them: new, changed and gone files, by their hashes.

`since(recipe.sources, sources_row["hashes"])` compares the notes with the hashes that sources.json keeps.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import UserError
from ..progress import Reporter
from ..recipe import Sources
from .gather import note_files
from .note import Tally
from .own_choice import read_choice
from .redact import redact_name

LENGTH = 16  # hexadecimal digits of a hash that are kept
NAMED = 3  # files that a line names


@dataclass(frozen=True)
class Changes:
    """Names of files, each list in order."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone)

    @staticmethod
    def between(before: Mapping[str, Any], now: Mapping[str, Any]) -> "Changes":
        """The names that only `now` has, those whose value differs, and those that only `before` has.

        A file without a hash cannot be read now: macOS may have taken it to iCloud. It counts as it was.
        """
        both = sorted(now.keys() & before.keys())
        changed = tuple(name for name in both if now[name] not in ("", before[name]))
        return Changes(tuple(sorted(now.keys() - before.keys())), changed, tuple(sorted(before.keys() - now.keys())))

    def lines(self) -> list[str]:
        """One line for each kind that there is: `new: 2 files (a.md, b.md)`."""
        kinds = {"new": self.new, "changed": self.changed, "gone": self.gone}
        return [f"{kind}: {len(names)} file{'s' * (len(names) != 1)} ({_list(names)})" for kind, names in kinds.items() if names]


def hashes(sources: Sources) -> dict[str, str]:
    """The hash of every file of the recipe's notes that has a reader, under its name; {} for a data set."""
    if sources.dataset or not sources.notes:
        return {}
    return kept({file.source: file.sha256() for file in note_files(sources, Tally())}, sources)


def kept(every: Mapping[str, str], sources: Sources) -> dict[str, str]:
    """Hashes by the names of their files as a run keeps them: shortened, and without the names that have a secret in them."""
    return {kept_name(name, sources): digest[:LENGTH] for name, digest in every.items()}


def since(sources: Sources, before: Mapping[str, str]) -> Changes:
    """What is new, changed or gone since `before`. Nothing where that is empty. Raises UserError where the notes are missing."""
    return Changes.between(before, hashes(sources)) if before else Changes()


def warn(folder: Path, sources: Sources, row: dict[str, Any], reporter: Reporter) -> None:
    """Warn of what became of the notes since sources.json (`row`) was written, and name the command that takes it in."""
    try:
        changes = since(sources, row.get("hashes", {}))
    except UserError as error:
        reporter.warn(f"{str(error).partition(';')[0]}; the run goes on with the notes as they were")
        return
    if "choice" in row and row["choice"] != read_choice(folder, sources).digest():
        reporter.warn("your choice of notes has changed since they were read; memory heeds it, training does with --fresh")
    if changes:
        reporter.warn(
            f"notes since they were read: {'; '.join(changes.lines())}. `{command(folder)}` takes them into memory, "
            f"`{command(folder)} --train` trains on them too"
        )


def command(folder: Path) -> str:
    """The command that takes changed notes into a run."""
    return f"mipo-mlx update {quote(str(folder))}"


def kept_name(name: str, sources: Sources) -> str:
    """The name of a file; the hash of one that has a secret in it, so that two such names stay two."""
    if not sources.redact or redact_name(name) == name:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:LENGTH]


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
