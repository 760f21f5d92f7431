"""A broken row costs itself: it is counted and named, and the rows beside it are read.

Rows are lines of JSONL, entries of a JSON list, rows of a table, votes. Where no row can be used, the fault is the file's or the
recipe's, and the first row's reason ends the command.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from ..errors import Failure, UserError
from ..files import numbered_rows
from ..progress import Reporter
from ..records import BASE, NEITHER, TUNED, VOTES, Ballot
from .decode import as_name, decode
from .note import Skip, Tally

T = TypeVar("T")
R = TypeVar("R")
NOT_TEXT = "not text in UTF-8"
OF_VOTE = frozenset(field.name for field in fields(Ballot))
MOST = 20  # columns that a message names
SHOWN = 5  # rows that a warning names
HOPELESS = 10_000  # rows: where none of so many can be used, no later one is tried


def sound(rows: Iterable[tuple[str, T]], work: Callable[[str, T], R], tally: Tally, name: str | None = None) -> Iterator[R]:
    """work(place, row) of every row for which it raises no UserError.

    Raises the first of these where it raises one for each row, or for the first 10,000. rows: (file:number, row). `tally` gets each
    row that is left out, with its reason. name: of the file, as `tally` names it.
    """
    first, any_sound = None, False
    for tried, (place, row) in enumerate(rows, 1):
        try:
            result = work(place, row)
        except UserError as error:
            first = first or error
            if tried >= HOPELESS and not any_sound:
                raise first from None
            tally.spare(place if name is None else f"{name}:{number_of(place)}", str(error).removeprefix(f"{place}: "))
            continue
        any_sound = True
        yield result
    if first and not any_sound:
        raise first


def columns_of(row: Iterable[Any]) -> str:
    """The names of a row's columns, for a message of one line."""
    names = [as_name(str(name))[:40] for name in itertools.islice(row, MOST + 1)]
    return ", ".join(names[:MOST]) + ", ..." * (len(names) > MOST) or "none"


def number_of(place: str) -> int:
    return int(place.rpartition(":")[2])


def warn_of_spared(what: str, tally: Tally, reporter: Reporter) -> None:
    """One line on the rows that `tally` counts as left out, and the first of them. what: "pairs", "votes"."""
    if tally.broken:
        first = "; ".join(f"{row['file']}: {row['why']}" for row in tally.skipped[:SHOWN])
        more = f"; and {tally.broken - SHOWN:,} more" if tally.broken > SHOWN else ""
        reporter.warn(f"{tally.broken:,} {what} left out, as they cannot be used: {first}{more}")


def read_votes(folder: Path, tally: Tally | None = None) -> list[tuple[int, Ballot]]:
    """(line, vote) of a run's votes. A broken or damaged line costs itself: no command can make a vote again. `tally` names it."""
    votes: list[tuple[int, Ballot]] = []
    for number, row in numbered_rows(folder / VOTES):
        if isinstance(row, dict) and _is_vote(row):
            votes.append((number, Ballot(**{name: value for name, value in row.items() if name in OF_VOTE})))
        elif tally is not None:
            tally.spare(f"{VOTES}:{number}", "damaged" if isinstance(row, Failure) else "no vote")
    return votes


def _is_vote(row: dict[str, Any]) -> bool:
    texts = all(isinstance(row.get(name), str) for name in ("request", "tuned", "base", "adapters"))
    lists = [row.get("prompt"), row.get("passages"), row.get("sources", [])]
    passages = all(isinstance(value, list) for value in lists) and all(isinstance(passage, str) for passage in row["passages"])
    chosen = row.get("choice") in (TUNED, BASE, NEITHER) and row.get("first") in (TUNED, BASE)
    return texts and passages and chosen and isinstance(row.get("own"), bool)


def utf_8_lines(data: bytes) -> list[tuple[int, str | None]]:
    """(number from 1, text) of each line that is not blank; None for one that is not UTF-8. A mark at the beginning is left out."""
    lines = enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
    return [(number, _utf_8(line)) for number, line in lines if line.strip()]


def lines_of_notes(data: bytes) -> tuple[list[tuple[int, str | None]], str]:
    """The same for what an owner wrote, cleaned as `decode` does, and the encoding: a file in a legacy encoding is read too.

    A file of which some lines are UTF-8 beyond ASCII has no other encoding: its other lines are broken. Raises Skip where no line
    is text.
    """
    try:
        text, encoding = decode(data)
    except Skip:
        text, encoding = "", ""
    lines = [] if encoding == "utf-8" else utf_8_lines(data)
    if all(line is None for _, line in lines) or encoding and all(line is None or line.isascii() for _, line in lines):
        text, encoding = (text, encoding) if encoding else decode(data)  # the Skip again
        return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()], encoding
    return [(number, line and _cleaned(line)) for number, line in lines], "utf-8 without its broken lines"


def as_text(place: str, line: str | None) -> str:
    """The line. Raises UserError for one that is not text."""
    if line is None:
        raise UserError(f"{place}: {NOT_TEXT}")
    return line


def _utf_8(line: bytes) -> str | None:
    try:
        return None if b"\0" in line else line.decode()
    except UnicodeDecodeError:
        return None


def _cleaned(line: str) -> str | None:
    try:
        return decode(line.encode())[0]
    except Skip:
        return None
