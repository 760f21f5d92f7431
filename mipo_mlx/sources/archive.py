"""Files within archives, unpacked in memory: .zip (Notion, WhatsApp, Google Takeout, ChatGPT), .textpack, and Joplin's .jex.

Nothing is written to the disk. Limits keep an archive that unpacks to far more than it weighs from filling the memory.
"""

import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from .choice import Choice
from .decode import as_name, nfc
from .encodings import legacy
from .licences import CODE
from .note import NotANote, Skip, Tally
from .note_file import NoteFile
from .vault import SETTING, logseq_folders, rules_of

ENDINGS = {".zip", ".textpack", ".bear2bk", ".jex"}
TRASH = {"__macosx", "trash", "node_modules", "__pycache__"}
MOST = 200_000  # files in an archive
INNER = 512 << 20  # bytes of an archive within an archive
SWOLLEN, SMALL = 200, 8 << 20  # times its packed size, and bytes, above which a file is not unpacked
CORRUPT = (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError, zlib.error)
DEEPEST = 2  # archives within one another: Notion's exports are two


@dataclass(frozen=True)
class _Member:
    name: str
    open: Callable[[], BinaryIO]
    why_not: str | None = None


def is_archive(file: NoteFile) -> bool:
    return file.ending in ENDINGS


def files_in(file: NoteFile, tally: Tally, choice: Choice, depth: int = 0) -> Iterator[NoteFile]:
    """The files of an archive, sorted, under its own name; what the recipe or a vault's settings leave out is counted.

    Raises Skip for an archive that cannot be opened, and NotANote for one of code.
    """
    members = {member.name: member for member in _members(file)}
    if any(PurePosixPath(name).name in CODE and len(PurePosixPath(name).parts) <= 2 for name in members):
        raise NotANote("archives of code")

    def text(root: str, name: str) -> str | None:
        member = members.get(root + name)
        if member is None or member.why_not:
            return None
        try:
            with member.open() as handle:
                return handle.read(SETTING).decode(errors="replace")
        except CORRUPT:
            return None  # a vault whose settings cannot be read is read without them

    outside = {name.partition(".obsidian/")[0] for name in members if "/.obsidian/" in f"/{name}"}
    graphs = {name.removesuffix("logseq/config.edn") for name in members if name.endswith("logseq/config.edn")}
    pages: list[str] = []
    for root in sorted(outside | graphs):
        choice = choice.with_vault(rules_of(partial(text, root), f"{file.source}/{root}", tally))
        pages += [f"{root}{folder}/" for folder in logseq_folders(text(root, "logseq/config.edn") or "")] if root in graphs else []
    for name in sorted(members):
        member, path = members[name], PurePosixPath(name)
        own_of_logseq = any(name.startswith(f"{root}logseq/") for root in graphs)
        if file.ending == ".jex" and path.parts[0] == "resources":
            tally.leave(f"{file.source}/{name}", "attachments of Joplin's notes")
            continue
        if own_of_logseq or any(part.startswith(".") or part.lower() in TRASH for part in path.parts):
            tally.leave(f"{file.source}/{name}", "hidden or trash")
            continue
        place = file.archive or file.path
        inner = NoteFile(
            as_name(f"{file.source}/{name}"),
            PurePosixPath(file.source) / path,
            member.open,
            logseq=name.startswith(tuple(pages)),
            archive=Path(place),
        )
        if why := choice.why_not(inner.source):
            tally.leave(inner.source, why)
        elif member.why_not:
            tally.skip(inner.source, member.why_not)
        elif is_archive(inner) and depth < DEEPEST:
            yield from files_in(_in_memory(inner), tally, choice, depth + 1)
        else:
            yield inner


def _in_memory(file: NoteFile) -> NoteFile:
    data = file.bytes(INNER)
    return replace(file, open=lambda: io.BytesIO(data))


def _members(file: NoteFile) -> Iterator[_Member]:
    """Every file of the archive. The archive stays open for as long as one of its members can be asked for."""
    try:
        if file.ending == ".jex":
            yield from _of_tar(tarfile.open(fileobj=file.open()))
        else:
            yield from _of_zip(zipfile.ZipFile(file.open()))
    except CORRUPT as error:
        raise Skip(f"an archive that cannot be opened ({type(error).__name__})") from None


def _of_zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    if len(archive.infolist()) > MOST:
        raise Skip(f"an archive of more than {MOST:,} files")
    for info in archive.infolist():
        if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
            continue
        why = None
        if info.flag_bits & 1:
            why = "encrypted; unpack it"
        elif info.file_size > max(SMALL, SWOLLEN * info.compress_size):
            why = f"unpacks to {info.file_size >> 20:,} MB, {SWOLLEN} times its size; unpack it yourself if you trust it"
        yield _Member(_name(info), cast(Callable[[], BinaryIO], partial(archive.open, info)), why)


def _of_tar(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        if info.isfile():
            yield _Member(nfc(info.name.removeprefix("./")), cast(Callable[[], BinaryIO], partial(archive.extractfile, info)))


def _name(info: zipfile.ZipInfo) -> str:
    """The name of a file in a .zip: many programs write UTF-8 without saying so, or an encoding of their own."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return nfc(info.filename)
    data = info.filename.encode("cp437", errors="replace")
    try:
        return nfc(data.decode())
    except UnicodeDecodeError:
        guess = legacy(data)
        return nfc(guess[0]) if guess else "".join(char if char.isascii() else "_" for char in info.filename)
