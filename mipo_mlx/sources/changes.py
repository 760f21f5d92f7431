"""What became of the notes since a run read them: new, changed and gone files, by the hashes that sources.json keeps.

    since(recipe.sources, read_json(folder / "sources.json")["hashes"])    # lines for the terminal; [] where nothing changed
"""

from ..errors import UserError
from ..recipe import Sources
from .gather import note_files
from .note import Tally

LENGTH = 16  # hexadecimal digits of a hash that are kept
NAMED = 3  # files that a line names
ADVICE = "the run goes on with them as they were; `mipo-mlx train RECIPE --fresh` reads them anew"


def hashes(sources: Sources) -> dict[str, str]:
    """The hash of every file of the recipe's notes that has a reader, under its name; {} for a data set."""
    if sources.dataset or not sources.notes:
        return {}
    return {file.source: file.sha256()[:LENGTH] for file in note_files(sources, Tally())}


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


def _list(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
