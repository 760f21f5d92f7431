"""The files of a notes folder in a fixed order, without what nobody counts as a note and without what the owner leaves out."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .choice import Choice
from .decode import as_name
from .note import Skip, Tally
from .note_file import NoteFile, not_here
from .vault import SETTING, logseq_folders, rules_of

# Left alone beside everything that begins with a dot (.git, .obsidian, .trash, .stversions, ...).
TRASH = {"trash", "$recycle.bin", "recently deleted", "node_modules", "__pycache__"} | set(
    "papierkorb corbeille papelera lixeira cestino prullenbak papperskorgen roskakori kosz koš корзина кошик "
    "回收站 垃圾桶 ゴミ箱 휴지통".split()
)
# A file that a cloud service has not brought to this machine: .Name.md.icloud, Name.md.nextcloud.
PLACEHOLDER = re.compile(r"\.(.+)\.icloud|(.+)\.(?:nextcloud|owncloud|cloudf?)")


@dataclass
class _Folder:
    """A folder that waits to be read."""

    path: Path
    logseq: tuple[Path, ...] = ()  # folders of pages and journals of the Logseq graph that it is in


@dataclass
class _Walk:
    root: Path
    choice: Choice
    tally: Tally
    seen: set[tuple[int, int]] = field(default_factory=set)
    links: list[_Folder] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """The name relative to the root, for files and messages: a name on the disk need not be UTF-8."""
        return as_name(path.relative_to(self.root).as_posix())

    def files(self) -> Iterator[NoteFile]:
        self.seen = {identity(folder) for folder in (self.root.resolve(), *self.root.resolve().parents)}
        folders = [_Folder(self.root)]
        while folders or self.links:
            folder = folders.pop() if folders else self._enter()
            if folder:
                inner: list[_Folder] = []
                yield from self._of(folder, inner)
                folders.extend(reversed(inner))

    def _of(self, folder: _Folder, inner: list[_Folder]) -> Iterator[NoteFile]:
        """The files of one folder; its folders are added to `inner`, and links to folders to `links`."""
        entries = self._entries(folder.path)
        folder.logseq += self._settings(folder.path, {entry.name for entry in entries})
        for entry in entries:
            path = Path(entry.path)
            placeholder = PLACEHOLDER.fullmatch(entry.name)
            if placeholder and entry.is_file():
                named = path.with_name(placeholder[1] or placeholder[2])
                cloud = "iCloud" if placeholder[1] else "the cloud"
                yield NoteFile(self.name(named), named, partial(not_here, cloud), elsewhere=True)
            elif entry.name.startswith(".") or entry.name.lower() in TRASH:
                self.tally.leave(self.name(path), "hidden or trash")
            elif path.is_dir():
                self._folder(entry, path, folder, inner)
            elif path.is_file():
                try:
                    why = self.choice.why_not(self.name(path))
                except Skip as reason:
                    self.tally.skip(self.name(path), str(reason))
                    continue
                if why:
                    self.tally.leave(self.name(path), why)
                else:
                    yield NoteFile.on_disk(path, self.name(path), any(place in path.parents for place in folder.logseq))
            else:
                self.tally.leave(self.name(path), "broken links and special files")

    def _folder(self, entry: os.DirEntry, path: Path, parent: _Folder, inner: list[_Folder]) -> None:
        if _is_run(path):
            self.tally.leave(f"{self.name(path)}/", "folders of runs")
        elif entry.is_dir(follow_symlinks=False) and path.name == "logseq" and (path / "config.edn").exists():
            self.tally.leave(f"{self.name(path)}/", "hidden or trash")  # Logseq's own settings and backups
        else:
            folder = _Folder(path, parent.logseq)
            if entry.is_dir(follow_symlinks=False):
                self.seen.add(identity(path))
                inner.append(folder)
            else:  # a link: after every real folder, so that a note is read under its own name
                self.links.append(folder)

    def _settings(self, folder: Path, names: set[str]) -> tuple[Path, ...]:
        """Take in the settings of a vault that begins here; returns the folders of its Logseq pages and journals."""

        def text(name: str) -> str | None:
            try:
                if not (folder / name).is_file():  # such as a pipe, which nobody may ever write to
                    return None
                with open(folder / name, encoding="utf-8", errors="replace") as handle:
                    return handle.read(SETTING)
            except OSError:
                return None

        if names & {".obsidian", "logseq", ".vscode"}:
            beneath = "" if folder == self.root else f"{self.name(folder)}/"
            self.choice = self.choice.with_vault(rules_of(text, beneath, self.tally))
        config = text("logseq/config.edn") if "logseq" in names else None
        return () if config is None else tuple(folder / name for name in logseq_folders(config))

    def _enter(self) -> _Folder | None:
        folder = self.links.pop(0)
        key = identity(folder.path)
        if key in self.seen:
            self.tally.leave(f"{self.name(folder.path)}/", "links that loop or repeat")
            return None
        self.seen.add(key)
        return folder

    def _entries(self, folder: Path) -> list[os.DirEntry]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.tally.skip(f"{self.name(folder)}/", f"cannot be opened ({error.strerror})")
            return []


def walk(root: Path, tally: Tally, choice: Choice | None = None) -> Iterator[NoteFile]:
    """Every file beneath `root`, sorted; links are followed once, and never into a folder above.

    `tally` counts what is left alone.
    """
    yield from _Walk(root, choice or Choice(()), tally).files()


def identity(path: Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def _is_run(path: Path) -> bool:
    """A run of `mipo-mlx train` is no note: its report and samples would be trained on."""
    return all(os.path.isfile(path / name) for name in ("recipe.yaml", "manifest.json"))  # False, too, where nobody may look
