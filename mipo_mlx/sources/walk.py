"""The files of a notes folder in a fixed order, without what no person counts as a note."""

import os
from collections.abc import Iterator
from pathlib import Path

from .decode import writable
from .note import Tally

# Left alone beside everything that begins with a dot (.git, .obsidian, .trash, .stversions, ...).
TRASH = {"trash", "$recycle.bin", "recently deleted", "node_modules", "__pycache__"}


def walk(root: Path, tally: Tally) -> Iterator[tuple[Path, str]]:
    """(path, name relative to `root`) of every file, sorted; links are followed once, and never into a folder above."""
    above = [root.resolve(), *root.resolve().parents]
    seen = {identity(folder) for folder in above}
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else _enter(links, seen, tally)
        if folder is None:
            continue
        inner = []
        for entry in _entries(folder, root, tally):
            path = Path(entry.path)
            if entry.name.startswith(".") or entry.name.lower() in TRASH:
                tally.left_alone["hidden or trash"] += 1
            elif entry.is_dir(follow_symlinks=False):
                if _is_logseq_own(path):
                    tally.left_alone["hidden or trash"] += 1
                elif _is_run(path):
                    tally.left_alone["folders of runs"] += 1
                else:
                    seen.add(identity(path))
                    inner.append(path)
            elif path.is_dir() and _is_run(path):
                tally.left_alone["folders of runs"] += 1
            elif path.is_dir():  # a link: after every real folder, so that a note is read under its own name
                links.append(path)
            elif path.is_file():
                yield path, _name(path, root)
            else:
                tally.left_alone["broken links and special files"] += 1
        folders.extend(reversed(inner))


def identity(path: Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def _enter(links: list[Path], seen: set[tuple[int, int]], tally: Tally) -> Path | None:
    folder = links.pop(0)
    key = identity(folder)
    if key in seen:
        tally.left_alone["links that loop or repeat"] += 1
        return None
    seen.add(key)
    return folder


def _entries(folder: Path, root: Path, tally: Tally) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        tally.skip(f"{_name(folder, root)}/", f"cannot be opened ({error.strerror})")
        return []


def _name(path: Path, root: Path) -> str:
    """The name relative to `root`, for files and messages: a name on the disk need not be UTF-8."""
    return writable(path.relative_to(root).as_posix())


def _is_logseq_own(path: Path) -> bool:
    """Logseq keeps its settings and backups in a folder `logseq` beside `pages`."""
    return path.name == "logseq" and (path / "config.edn").exists()


def _is_run(path: Path) -> bool:
    """What `mipo-mlx train` makes of notes is no note: its report and samples would be trained on."""
    return all(os.path.isfile(path / name) for name in ("recipe.yaml", "manifest.json"))  # False, too, where nobody may look
