"""The records of this folder: notes of cleaned blocks, passages, and the counts that become sources.json."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from ..errors import UserError
from ..records import Context

R = TypeVar("R", "Block", "Note")
BROKEN = "that cannot be read"
NAMED = 1000  # parts of files that cannot be read: more are counted and not named


class Skip(Exception):
    """A file that cannot be used; the text gives the reason in a few words, for the list of skipped files."""


class NotANote(Skip):
    """A file that is no note, which nobody needs to mend: the text says what kind it is, and `left_alone` counts it."""


@dataclass(frozen=True)
class Block:
    """A paragraph, list item, table row or heading as plain text on one line."""

    text: str
    line: int  # first line in the file, from 1
    level: int = 0  # 1 to 6: a heading; 0: text
    linked: int = 0  # how many characters of `text` are link text or addresses
    code: int = 0  # how many characters of `text` are code
    leads: bool = False  # whether it begins with a link, as an entry of a list of links does


@dataclass(frozen=True)
class Note:
    """One piece of writing: a file, a conversation, a mail, a row of a table."""

    name: str  # contexts of one name are never wrong contexts for each other, and are on one side of the split
    source: str  # file, relative to the notes folder
    title: str
    blocks: list[Block]
    whole: bool = False  # True: one context (a row of a table), cut at the end of a sentence where it is too long
    labels: frozenset[str] = frozenset()  # #tag, key: and key: value of the front matter, lower case; for sources.exclude


@dataclass(frozen=True)
class Passage:
    """A context before the split gives it a side."""

    text: str
    note: str
    source: str
    line: int
    tokens: int
    scrap: str | None = None  # why its form makes it no context, such as "link list"; None for a good one
    rank: float = 0.0  # how much it seems to tell of its author (rank.py)
    signs: dict[str, float] = field(default_factory=dict, compare=False)  # what its rank is the sum of, in words for people
    parts: tuple[str, ...] = ()  # its paragraphs without the heading: the owner's choice knows them again

    def as_context(self, id: str, side: str) -> Context:
        return Context(id, self.text, self.note, self.source, self.line, side, self.tokens, self.rank)


def changed(record: R, **values: Any) -> R:
    """The record with these values; itself where it has them, which takes a tenth of the time."""
    return replace(record, **values) if any(getattr(record, name) != value for name, value in values.items()) else record


@dataclass
class Tally:
    """Counts of files, passages and secrets, with reasons for all that is left out; becomes sources.json."""

    read: int = 0  # files
    skipped: list[dict[str, str]] = field(default_factory=list)  # what cannot be read: files that look like notes, parts
    left_alone: Counter = field(default_factory=Counter)  # hidden folders, links that loop, files of other kinds
    recoded: list[dict[str, str]] = field(default_factory=list)  # files that are not UTF-8, and their encodings
    removed: Counter = field(default_factory=Counter)  # images, code blocks and the like, cut out of notes
    passages: int = 0  # before any is dropped
    dropped: Counter = field(default_factory=Counter)  # passages, by reason
    gone: list[tuple[Passage, str]] = field(default_factory=list)  # these passages, each with its reason
    alone: list[tuple[str, str]] = field(default_factory=list)  # (file, reason) of those of left_alone that have a name
    redacted: Counter = field(default_factory=Counter)  # secrets, by kind
    hashes: dict[str, str] = field(default_factory=dict)  # of every file that was read or skipped, by its name

    def skip(self, file: str, why: str) -> None:
        self.skipped.append({"file": file, "why": why})

    def spare(self, place: str, why: str, parts: str = "rows") -> None:
        """Count and name a part of a file that cannot be read. place: the file and the part's number in it."""
        kind = f"{parts} {BROKEN}"
        if self.removed[kind] < NAMED:
            self.skip(place, why)
        self.removed[kind] += 1

    def leave(self, file: str, why: str) -> None:
        """Count a file that is left alone, and keep its name for the page of `mipo-mlx notes`."""
        self.left_alone[why] += 1
        self.alone.append((file, why))

    @contextmanager
    def sparing(self, parts: str, place: str) -> Iterator[None]:
        """One bad part of a file costs itself: it is counted and named, and those beside it are read. parts: "mails", "chats"."""
        try:
            yield
        except (Skip, UserError, MemoryError):
            raise
        except Exception as error:  # libraries raise nearly anything over broken parts; the error's text may quote the note
            self.spare(place, f"cannot be read ({type(error).__name__})", parts)

    @property
    def broken(self) -> int:
        """How many parts of files cannot be read."""
        return sum(count for what, count in self.removed.items() if what.endswith(BROKEN))

    def add(self, other: "Tally") -> None:
        """Add the counts of another tally."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, dict):  # counters too
                mine.update(theirs)
            else:
                setattr(self, each.name, mine + theirs)

    def drop(self, passage: Passage, why: str) -> None:
        self.dropped[why] += 1
        self.gone.append((passage, why))

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
            "passages": {"all": self.passages, "dropped": _sorted(self.dropped)},
        }


def _sorted(counter: Counter) -> dict[str, int]:
    return {key: counter[key] for key in sorted(counter) if counter[key]}
