"""One file of the owner's: its name, and its bytes or text, whether it lies on the disk or in an archive."""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from .decode import as_name, decode
from .note import Note, Skip, Tally

LIMIT = 4 << 20  # bytes; the longest novel has about this many, so a larger "note" is a dump or a log
DATALESS = 0x40000000  # macOS: the file's content is in iCloud, and reading it would begin a download
POINTERS = (  # how that begins which stands in place of a large file, behind dots and slashes, and the command that fetches it
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself; run `git lfs pull`"),
    (b"annex/objects/", "a git-annex pointer, not the file itself; run `git annex get`"),
    (b"git/annex/objects/", "a git-annex link, not the file itself; run `git annex get`"),
)
POINTER = 1024  # bytes that a pointer has at most
NOT_DOWNLOADED = "still in {}, not downloaded; open its folder and choose to download it"


@dataclass(frozen=True)
class NoteFile:
    """A file as readers take it. `open` gives its bytes as a stream."""

    source: str  # name relative to the notes folder, in NFC
    path: PurePosixPath | Path  # for its name and ending; on the disk, its place
    open: Callable[[], BinaryIO]
    logseq: bool = False  # a page or a journal of a Logseq graph
    archive: Path | None = None  # the archive on the disk that it is in
    reader: "Callable[[NoteFile, Tally], list[Note]] | None" = None  # the reader of its kind
    elsewhere: bool = False  # its bytes are in a cloud alone
    read: list[str] = field(default_factory=list, compare=False, repr=False)  # the hash of its bytes, where all were read

    @staticmethod
    def on_disk(path: Path, source: str | None = None, logseq: bool = False) -> "NoteFile":
        if _flags(path) & DATALESS:  # even its first bytes would begin a download, and wait for it
            return NoteFile(as_name(source or path.name), path, partial(not_here, "iCloud"), logseq, elsewhere=True)
        return NoteFile(as_name(source or path.name), path, partial(_open, path), logseq)

    @property
    def ending(self) -> str:
        return self.path.suffix.lower()

    @property
    def stem(self) -> str:
        return as_name(self.path.stem)

    def beginning(self, count: int) -> bytes:
        """The first `count` bytes; fewer, or none, where there are no more or the file cannot be read."""
        try:
            with self.open() as handle:
                return handle.read(count)
        except Exception:  # broken archives raise nearly anything
            return b""

    def bytes(self, limit: int = LIMIT) -> bytes:
        """All bytes. Raises Skip for more than `limit`, for a file that cannot be read, and for a stand-in of a file."""
        try:
            with self.open() as handle:
                size = _size(handle)
                if size > limit:
                    raise Skip(
                        f"{size / 2**20:.0f} MB; files of more than {limit / 2**20:.0f} MB are not read, split it into notes"
                    )
                data = handle.read(limit + 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Skip("no permission to read it") from None
            raise Skip(f"cannot be read ({error.strerror})") from None
        except Exception as error:
            if self.archive is None or isinstance(error, Skip | MemoryError):
                raise
            raise Skip(f"broken in its archive ({type(error).__name__})") from None
        self.read[:] = [hashlib.sha256(data).hexdigest()]
        if len(data) > limit:
            raise Skip(f"more than {limit / 2**20:.0f} MB; split it into notes")
        if len(data) <= POINTER:
            for beginning, why in POINTERS:
                if data.lstrip(b"./\\").startswith(beginning):
                    raise Skip(why)
        return data

    def stamp(self) -> tuple[int, int]:
        """(size, time of the last change in ns) of the file, or of the archive that it is in; (0, 0) of a missing one."""
        place = self.archive or self.path
        try:
            stat = os.stat(place)
        except OSError:
            return 0, 0
        return stat.st_size, stat.st_mtime_ns

    def sha256(self) -> str:
        """The hash of its bytes; '' of a file that cannot be read. A file that a reader has read whole is not read again."""
        if self.read:
            return self.read[0]
        try:
            with self.open() as handle:
                digest = hashlib.sha256()
                while data := handle.read(1 << 20):
                    digest.update(data)
                return digest.hexdigest()
        except Exception:  # as above
            return ""

    def text(self, tally: Tally, limit: int = LIMIT) -> str:
        """The text, in NFC, with \\n line ends. Raises what `bytes` raises, and Skip where the file is not text."""
        text, encoding = decode(self.bytes(limit))
        if encoding != "utf-8":
            tally.recoded.append({"file": self.source, "as": encoding})
        return text


def not_here(cloud: str) -> BinaryIO:
    """In place of opening a file whose bytes are in `cloud`."""
    raise Skip(NOT_DOWNLOADED.format(cloud))


def _open(path: Path) -> BinaryIO:
    return open(path, "rb")


def _flags(path: Path) -> int:
    """macOS's flags of a file; 0 where it is missing, and on other systems."""
    try:
        return int(getattr(os.stat(path), "st_flags", 0))
    except OSError:
        return 0


def _size(handle: BinaryIO) -> int:
    """The size of an open file; 0 for one in an archive, whose stream is read up to the limit."""
    try:
        stat = os.fstat(handle.fileno())
    except (OSError, io.UnsupportedOperation, AttributeError):
        return 0
    if getattr(stat, "st_flags", 0) & DATALESS:  # since it was listed
        not_here("iCloud")
    return stat.st_size
