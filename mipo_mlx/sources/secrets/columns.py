"""Columns of a table whose heading announces secrets: pipes, tabs, semicolons, commas, or spaces between the cells."""

import re
from collections.abc import Iterator

from . import CODE, KEY, LONGEST_LINE, PASSWORD, WORD, Span
from .phrases import find, may_announce
from .values import PROSE, is_mixed, is_no_value, looks_made_up

BETWEEN = (re.compile(r"\|"), re.compile(r"\t"), re.compile(";"), re.compile(","), re.compile(r" {2,}"))
RULE = re.compile(r"[\s|:;,+=-]+")
NO_HEADING = re.compile(r"[\d/=<>{}\[\]$@\\]")
MARKS = " \t*_`\"'"
MOST = 40  # columns


def columns(text: str, lower: str, names: set[str]) -> Iterator[Span]:
    """The cells beneath a heading such as "Password", line for line, to the first line that has fewer cells or none.

    names: the words of the text.
    """
    if not may_announce(lower, names):
        return
    at = 0
    held: tuple[re.Pattern, int, dict[int, str]] | None = None
    for line, low in zip(text.split("\n"), lower.split("\n"), strict=True):
        if held and not RULE.fullmatch(line or "-"):
            cells = _cells(line, held[0])
            if len(cells) == held[1] and len(line) <= LONGEST_LINE:
                for place, kind in held[2].items():
                    begin, end = cells[place]
                    if _is_secret(line[begin:end], kind):
                        yield at + begin, at + end, kind
            else:
                held = None
        if not held:
            held = _heading(line, low)
        at += len(line) + 1


def _heading(line: str, low: str) -> tuple[re.Pattern, int, dict[int, str]] | None:
    """(what stands between cells, number of cells, kind of secret by place) of a row of headings; None for another line."""
    if not 5 <= len(line) <= 300:
        return None
    for between in BETWEEN:
        if not between.search(line):
            continue
        cells = _cells(line, between)
        if not 2 <= len(cells) <= MOST:
            continue
        texts = [low[begin:end] for begin, end in cells]
        if any(len(WORD.findall(text)) > 4 or NO_HEADING.search(text) for text in texts):
            continue
        if between.pattern in (",", " {2,}") and not all(texts):
            continue
        kinds = {place: kind for place, text in enumerate(texts) if (kind := _kind(text))}
        prose = any(word in PROSE for text in texts for word in WORD.findall(text)) and between.pattern == ","
        if kinds and not prose:
            return between, len(cells), kinds
    return None


def _kind(name: str) -> str | None:
    """What a heading announces: the whole name of the column, or its end, as in "wifi password"."""
    for phrase, _, end in find(name):
        if end == len(name) and phrase.kind in (PASSWORD, CODE, KEY):
            return phrase.kind
    return None


def _cells(line: str, between: re.Pattern) -> list[tuple[int, int]]:
    """(begin, end) of each cell without the spaces and marks around it; the pipes at a line's ends make no cell."""
    cells: list[tuple[int, int]] = []
    begin = len(line) - len(line.lstrip())
    for stop in [*(match.span() for match in between.finditer(line, begin)), (len(line), len(line))]:
        cells.append(_bare(line, begin, stop[0]))
        begin = stop[1]
        if len(cells) > MOST + 2:
            break
    if between.pattern == r"\|":
        cells = cells[1 if line.lstrip().startswith("|") else 0 : -1 if line.rstrip().endswith("|") else None]
    return cells


def _bare(line: str, begin: int, end: int) -> tuple[int, int]:
    while begin < end and line[begin] in MARKS:
        begin += 1
    while end > begin and line[end - 1] in MARKS:
        end -= 1
    return begin, end


def _is_secret(cell: str, kind: str) -> bool:
    if len(cell) < 3 or len(cell) > 120 or is_no_value(cell):
        return False
    if kind == CODE:
        return sum(char.isdigit() for char in cell) >= 3
    if kind == KEY:
        return is_mixed(cell)
    prose = any(word.lower() in PROSE for word in WORD.findall(cell))
    return not prose or " " not in cell and looks_made_up(cell)
