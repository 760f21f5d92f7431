"""What became of the notes since a run read them: new, changed and gone files, by the hashes that sources.json keeps.

`since(recipe.sources, sources_row["hashes"])` gives lines for the terminal, [] where nothing changed.
"""

import hashlib
from typing import Any

from ..errors import UserError
from ..progress import Reporter
from ..recipe import Sources
from .gather import note_files
from .note import Tally
from .redact import redact_name

LENGTH = 16  # hexadecimal digits of a hash that are kept
NAMED = 3  # files that a line names
ADVICE = "the run goes on with them as they were; `mipo-mlx train RECIPE --fresh` reads them anew"


def hashes(sources: Sources) -> dict[str, str]:
    """The hash of every file of the recipe's notes that has a reader, under its name; {} for a data set."""
    if sources.dataset or not sources.notes:
        return {}
    return {_safe(file.source, sources.redact): file.sha256()[:LENGTH] for file in note_files(sources, Tally())}


def since(sources: Sources, before: dict[str, str]) -> list[str]:
    """One line on the notes that are new, changed or gone since `before`, or on a folder that is missing; [] without changes."""
    if not before:
        return []
    try:
        now = hashes(sources)
    except UserError as error:
        return [f"{str(error).partition(';')[0]}; {ADVICE.partition(';')[0]}"]
    kinds = {
        "new": sorted(now.keys() - before.keys()),
        "changed": sorted(name for name in now.keys() & before.keys() if now[name] != before[name]),
        "gone": sorted(before.keys() - now.keys()),
    }
    counts = [f"{len(names)} {kind} ({_list(names)})" for kind, names in kinds.items() if names]
    return [f"notes since they were read: {', '.join(counts)}; {ADVICE}"] if counts else []


def warn(sources: Sources, row: dict[str, Any], reporter: Reporter) -> None:
    """Warn of what became of the notes since sources.json (`row`) was written."""
    for line in since(sources, row.get("hashes", {})):
        reporter.warn(line)


def _safe(name: str, redacting: bool) -> str:
    """A file's name; the hash of one that has a secret in it, so that two such names stay two."""
    if not redacting or redact_name(name) == name:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:LENGTH]


def _list(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
