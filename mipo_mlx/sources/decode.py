"""Bytes to text in NFC: UTF-8 first, then what a byte-order mark or NULs show as UTF-16, then legacy encodings.

A text with wrong letters is worse than none: bytes whose encoding is not certain are refused.
"""

import codecs
import re
import unicodedata

from ..errors import ESCAPES
from .encodings import legacy
from .note import Skip

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Control characters that writing has no use for; a handful of them in a hundred bytes means a binary file.
CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x0b\x1b"))
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # they show text in another order than it has
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
UNKNOWN = "in an encoding that cannot be told for certain; save it as UTF-8"
# UTF-8 that was read as Windows-1252 and saved again: "FÃ¼r" for "Für", "donâ€™t" for "don't".
TWICE = re.compile(r"(?:[ÂÃÄÅ][\u0080-\u00bfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™]|â[€‚„][\u0080-\u00bfŒœŠšŸŽžƒˆ˜–—‘’‚“”„†‡•…‰‹›€™])+")
CLUSTER = re.compile(r"[^\w\x00-\x7f]{31,}")  # a stretch without letters: all marks that combine with a letter are in such
MARKS_HELD = 30  # on one letter, as in Unicode's stream-safe text; no writing has more
# Marks of direction and width without a shape, and Apple's sign for an attachment.
SHAPELESS = re.compile("[\u200b\u2060\ufeff\ufffc\u00ad]")


def decode(data: bytes) -> tuple[str, str]:
    """(text with \\n line ends, encoding). Raises Skip for bytes that are not writing, or in an unknown encoding."""
    text, encoding = _decode(data)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.isascii() else nfc(SHAPELESS.sub("", text)), encoding


def _decode(data: bytes) -> tuple[str, str]:
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), encoding.removesuffix("-sig")
            except UnicodeDecodeError:
                raise Skip(f"begins like {encoding.removesuffix('-sig').upper()}, but is not") from None
    if b"\0" in data and (wide := _utf_16(data)):
        return wide
    if b"\0" in data or len(data.translate(None, delete=CONTROLS)) < 0.98 * len(data):
        raise Skip("not text (binary)")
    try:
        if b"\x1b$" in data or b"\x1b(J" in data:  # Japanese in seven bits, which is UTF-8 by its form
            return data.decode("iso2022_jp"), "iso-2022-jp"
        return _once(data.decode()), "utf-8"
    except UnicodeDecodeError:
        pass
    mended = data.decode("utf-8", errors="replace")
    if sum(char > "\x7f" and char != "\ufffd" for char in mended) > 4 * mended.count("\ufffd"):
        lines = ("" if "\ufffd" in line else line for line in mended.split("\n"))
        return _once("\n".join(lines)), "utf-8 without its broken lines"
    guess = legacy(data)
    if guess is None:
        raise Skip(UNKNOWN)
    return guess


def writable(text: str) -> str:
    """`text` in NFC, as UTF-8 can hold it: halves of surrogate pairs, which JSON and file names may have, become U+FFFD.

    What steers a terminal goes, and other control characters become spaces; line ends are \\n, and tabs stay.
    """
    if STEERING.search(text):
        text = STEERING.sub(" ", ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    return text if text.isascii() else nfc(TURNING.sub("", text).encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def as_name(text: str) -> str:
    """The name of a file as messages and records show it: `writable`, on one line."""
    if text.isascii() and text.isprintable():
        return text
    return writable(text).replace("\n", " ").replace("\t", " ")


def nfc(text: str) -> str:
    """`text` with each letter and its marks as one character, where there is one: "é" has two forms that look alike."""
    return text if text.isascii() else unicodedata.normalize("NFC", CLUSTER.sub(_few_marks, text))


def _few_marks(match: re.Match) -> str:
    """A stretch of signs with at most MARKS_HELD marks in a row: to sort them takes time with the square of their number."""
    kept, marks = [], 0
    for char in match[0]:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= MARKS_HELD:
            kept.append(char)
    return "".join(kept)


def is_me(name: str, me: str) -> bool:
    """Whether `me` names this writer, but for case and form: a name or an address, or several between commas."""
    key = nfc(name).strip().casefold()
    return bool(key) and any(nfc(one).strip().casefold() == key for one in (me, *me.split(",")))


def _utf_16(data: bytes) -> tuple[str, str] | None:
    """UTF-16 without a mark: the space and the line end have a NUL beside them, on the same side throughout."""
    for encoding in ("utf-16-le", "utf-16-be"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        sample = text[:20_000]
        writing = sum(unicodedata.category(char)[0] in "LMNPZS" or char in "\n\r\t" for char in sample)
        if sample and writing >= 0.95 * len(sample) and any(char in sample for char in " \n") and "\0" not in text:
            return text, encoding
    return None


def _once(text: str) -> str:
    """`text` where UTF-8 that was encoded twice is mended."""
    if text.isascii():
        return text

    def mended(match: re.Match) -> str:
        try:
            return match[0].encode("cp1252").decode()
        except UnicodeError:
            return match[0]

    return TWICE.sub(mended, text)
