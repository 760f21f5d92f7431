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


def by_line(text: str, wanted: re.Pattern, detect: Callable[[str], Iterator[Span]]) -> Iterator[Span]:
    """What `detect` finds in each line in which `wanted` matches, at its place in the text."""
    for at, line in _lines(text, wanted):
        yield from ((at + begin, at + end, kind) for begin, end, kind in detect(line))


def _lines(text: str, wanted: re.Pattern) -> Iterator[tuple[int, str]]:
    """(place, line) of every line in which `wanted` matches: most lines of most notes have nothing to look at closely."""
    at = 0
    while match := wanted.search(text, at):
        begin, end = max(at, text.rfind("\n", at, match.start()) + 1), text.find("\n", match.end())
        at = len(text) if end < 0 else end + 1
        for first, last in _pieces(text, begin, len(text) if end < 0 else end):
            yield first, text[first:last]
        if at >= len(text):
            return


def _pieces(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """A line as it is, or cut at spaces."""
    while end - begin > LONGEST_LINE:
        space = text.rfind(" ", begin + LONGEST_LINE // 2, begin + LONGEST_LINE)
        cut = space + 1 if space > 0 else begin + LONGEST_LINE
        yield begin, cut
        begin = cut
    yield begin, end
