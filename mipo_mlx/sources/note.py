"""What every reader makes of a file: notes of cleaned blocks, each block with the line it came from."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


class Skip(Exception):
    """This file cannot be used; the text says why, in a few words, for the list of skipped files."""


@dataclass(frozen=True)
class Block:
    """A paragraph, list item, table row or heading as plain text on one line."""

    text: str
    line: int  # first line in the file, from 1
    level: int = 0  # 1 to 6: a heading; 0: text
    linked: int = 0  # how many characters of `text` are link text or addresses
    code: int = 0  # how many characters of `text` are code


@dataclass(frozen=True)
class Note:
    """One piece of writing: a file, a conversation, a mail, a row of a table."""

    name: str  # contexts of one name never count as wrong ones for each other, and stay on one side of the split
    source: str  # file, relative to the notes folder
    title: str
    blocks: list[Block]
    whole: bool = False  # True: one context, shortened at a sentence's end if need be (rows of a table)


@dataclass(frozen=True)
class Passage:
    """A context in the making: not yet on a side of the split."""

    text: str
    note: str
    source: str
    line: int
    tokens: int


@dataclass
class Tally:
    """What was read, left out and why; becomes sources.json."""

    read: int = 0  # files
    skipped: list[dict[str, str]] = field(default_factory=list)  # files that should be notes and could not be read
    left_alone: Counter = field(default_factory=Counter)  # hidden folders, links that loop, files of other kinds
    recoded: list[dict[str, str]] = field(default_factory=list)  # files that are not UTF-8, and what they were read as
    removed: Counter = field(default_factory=Counter)  # images, code blocks and the like, cut out of notes
    found: int = 0  # passages, before any was dropped
    dropped: Counter = field(default_factory=Counter)  # passages, under each reason
    redacted: Counter = field(default_factory=Counter)  # secrets, under each kind

    def skip(self, file: str, why: str) -> None:
        self.skipped.append({"file": file, "why": why})

    def to_row(self) -> dict[str, Any]:
        return {
            "files": {
                "read": self.read,
                "skipped": self.skipped,
                "left_alone": _sorted(self.left_alone),
                "recoded": self.recoded,
            },
            "removed": _sorted(self.removed),
            "redacted": _sorted(self.redacted),
            "passages": {"found": self.found, "dropped": _sorted(self.dropped)},
        }


def _sorted(counter: Counter) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter) if counter[key]}
