"""Detectors of secrets in notes: each takes a text and yields (begin, end, kind) for every secret that it knows.

Every detector takes time that grows with the length of the text: no pattern has a repetition within a repetition without a bound.
"""

import re
from collections.abc import Callable, Iterator

KEY, PASSWORD, CODE, SEED = "key or token", "password", "PIN or code", "seed phrase"
CARD, ACCOUNT, IDENTITY = "card number", "account number", "id number"
EMAIL, PHONE = "e-mail address", "phone number"
Span = tuple[int, int, str]
MISSING = "sources.redact: the package {0} is missing; run: pip install {0}, or set redact: false"
LONGEST_LINE = 2_000  # characters; a longer line is looked at in pieces, so that no pattern takes long
WORD = re.compile(r"[^\W\d_]+")
SPACES = {code: " " for code in range(128) if not chr(code).isalpha()}


def by_line(text: str, wanted: Callable[[str], object], detect: Callable[[str], Iterator[Span]]) -> Iterator[Span]:
    """What `detect` finds in each line that is `wanted`, at its place in the text: most lines of most notes have nothing."""
    at = 0
    for line in text.split("\n"):
        if wanted(line):
            for first, last in _pieces(text, at, at + len(line)):
                yield from ((first + begin, first + end, kind) for begin, end, kind in detect(text[first:last]))
        at += len(line) + 1


def words_of(lower: str) -> list[str]:
    """The words of a text in lower case, letters alone: what `WORD` finds."""
    return lower.translate(SPACES).split() if lower.isascii() else WORD.findall(lower)


def _pieces(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """A line as it is, or cut at spaces."""
    while end - begin > LONGEST_LINE:
        space = text.rfind(" ", begin + LONGEST_LINE // 2, begin + LONGEST_LINE)
        cut = space + 1 if space > 0 else begin + LONGEST_LINE
        yield begin, cut
        begin = cut
    yield begin, end
