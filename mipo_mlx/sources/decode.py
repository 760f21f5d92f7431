"""Bytes to text: UTF-8 first, then what a byte-order mark says, then Windows-1252 where it looks like writing."""

import codecs
import errno
import os
from pathlib import Path

from .note import Skip, Tally

LIMIT = 4 << 20  # bytes; the longest novel has about this many, so a larger "note" is a dump or a log
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Control characters that writing has no use for; a handful of them in a hundred bytes means a binary file.
CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x0b\x1b"))


def read_text(path: Path, source: str, tally: Tally, limit: int = LIMIT) -> str:
    """The text of a file with \\n line ends. Raises Skip where it is too large, unreadable or not text."""
    text, encoding = decode(read_bytes(path, limit))
    if encoding != "utf-8":
        tally.recoded.append({"file": source, "as": encoding})
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_bytes(path: Path, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes."""
    try:
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            if size > limit:
                raise Skip(f"{size / 2**20:.0f} MB; files of more than {limit / 2**20:.0f} MB are not read, split it into notes")
            return handle.read()
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Skip("no permission to read it") from None
        raise Skip(f"cannot be read ({error.strerror})") from None


def decode(data: bytes) -> tuple[str, str]:
    """(text, encoding). Raises Skip for bytes that are not writing."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), encoding.removesuffix("-sig")
            except UnicodeDecodeError:
                raise Skip(f"begins like {encoding.removesuffix('-sig').upper()}, but is not") from None
    if b"\0" in data or len(data.translate(None, delete=CONTROLS)) < 0.98 * len(data):
        raise Skip("not text (binary)")
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return _mended(data)


def writable(text: str) -> str:
    """`text` as UTF-8 can hold it: halves of surrogate pairs, which JSON and file names may bring along, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mended(data: bytes) -> tuple[str, str]:
    """UTF-8 with a few broken bytes stays UTF-8 without them; otherwise every high byte is one Windows-1252 letter."""
    mended = data.decode("utf-8", errors="ignore")
    wide = sum(char > "\x7f" for char in mended)
    broken = len(data) - len(mended.encode())
    if wide > 4 * broken:
        return mended, "utf-8 without its broken bytes"
    high = sum(byte > 0x7F for byte in data)
    if high > 0.4 * len(data):
        raise Skip("in an encoding that is neither UTF-8, UTF-16 nor Windows-1252; save it as UTF-8")
    try:
        return data.decode("cp1252"), "windows-1252"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"
