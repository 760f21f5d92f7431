"""What the owner keeps and drops by hand, on the page of `mipo-mlx notes`: notes-choice.jsonl in the folder of a run.

    {"keep": false, "place": "Work/"}                         a folder, or without the slash a file
    {"keep": true, "passage": ["5f0c..."], "file": "a.md"}    a passage, by the hashes of its paragraphs

A passage is known by its paragraphs, so a choice outlives an edit elsewhere in the file, another name of the file and another
`context_tokens`. A choice for a passage counts before one for its file, and that before one for its folder.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_jsonl, write_jsonl
from ..recipe import Sources
from ..text.words import parts
from .note import Passage, Tally

FILE = "notes-choice.jsonl"
BY_OWNER = "dropped by you"
FEWEST = 5  # words: a shorter paragraph ("Dear diary") stands in many passages and does not tell them apart
LENGTH = 16  # hexadecimal digits of a hash
FIRST = 10.0  # is added to the rank of a passage that the owner keeps: all others have less


@dataclass
class OwnChoice:
    """The marks of one or several files. A later mark for the same thing takes the place of an earlier one."""

    places: dict[str, bool] = field(default_factory=dict)  # a file, or a folder with a slash behind it -> keep
    passages: dict[tuple[str, ...], bool] = field(default_factory=dict)  # hashes of paragraphs -> keep
    files: dict[tuple[str, ...], str] = field(default_factory=dict)  # the file that a passage stood in, for people who read this

    def verdict(self, passage: Passage) -> bool | None:
        """True to keep, False to drop, None where the owner says nothing. One dropped paragraph drops its passage."""
        own = self.of_passage(passage)
        if own is not None:
            return own
        return next((self.places[place] for place in places_of(passage.source) if place in self.places), None)

    def of_passage(self, passage: Passage) -> bool | None:
        """The verdict by the marks for passages alone."""
        own = set(paragraph_keys(passage)) if self.passages else set()
        marks = [keep for keys, keep in self.passages.items() if own & set(keys)]
        return all(marks) if marks else None

    def applied(self, passages: Iterable[Passage], tally: Tally) -> Iterator[Passage]:
        """The passages that stay; the others are dropped under their reasons. What the owner keeps gets a rank above all others."""
        for passage in passages:
            keep = self.verdict(passage)
            if keep is False:
                tally.drop(passage, BY_OWNER)
            elif passage.scrap and not keep:
                tally.drop(passage, passage.scrap)
            else:
                yield replace(passage, rank=passage.rank + FIRST) if keep else passage

    def mark(self, keep: bool | None, place: str = "", passage: Passage | None = None) -> None:
        """Enter a choice for a place or for a passage; None takes it back."""
        if passage is not None:
            keys = paragraph_keys(passage)
            for known in [known for known in self.passages if set(known) & set(keys)]:
                del self.passages[known]
            if keep is not None:
                self.passages[keys], self.files[keys] = keep, passage.source
        elif keep is None:
            self.places.pop(place, None)
        else:
            self.places[place] = keep

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{"keep": keep, "place": place} for place, keep in sorted(self.places.items())]
        return rows + [{"keep": keep, "passage": list(k), "file": self.files.get(k, "")} for k, keep in self.passages.items()]

    def write(self, folder: Path) -> None:
        """Write the file anew, so that only its owner may read it."""
        path = folder / FILE
        write_jsonl(path, self.rows())
        path.chmod(0o600)

    def digest(self) -> str:
        """A hash of all marks; '' without any."""
        rows = sorted(json.dumps([row.get("place"), row.get("passage"), row["keep"]]) for row in self.rows())
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:LENGTH] if rows else ""


def read_choice(folder: Path, sources: Sources) -> OwnChoice:
    """The choice that `sources.choice` names, and above it that of the run in `folder`.

    Raises UserError for a file that is named and missing, and for a line that is no choice.
    """
    choice = OwnChoice()
    named = Path(sources.choice).expanduser() if sources.choice else None
    if named and not named.is_file():
        raise UserError(f"sources.choice: {named}: no such file; name the {FILE} of a run")
    for path in (named, folder / FILE):
        if path is not None:
            _read(path, choice)
    return choice


def copy(folder: Path, scratch: Path) -> None:
    """Put the choice of the run in `folder` where a trial reads the notes."""
    if (folder / FILE).exists():
        (scratch / FILE).write_bytes((folder / FILE).read_bytes())


def _read(path: Path, choice: OwnChoice) -> None:
    for number, row in enumerate(read_jsonl(path), 1):
        keep = row.get("keep") if isinstance(row, dict) else None
        place, keys = (row.get("place"), row.get("passage")) if isinstance(row, dict) else (None, None)
        if not isinstance(keep, bool) or not (isinstance(place, str) or isinstance(keys, list)):
            expected = '{"keep": false, "place": "Work/"}'
            raise UserError(f"{path}:{number}: no choice; expected a line such as {expected}")
        if isinstance(place, str):
            choice.places[place] = keep
        else:
            key = tuple(map(str, keys or []))
            choice.passages[key], choice.files[key] = keep, str(row.get("file", ""))


def paragraph_keys(passage: Passage) -> tuple[str, ...]:
    """The hashes of a passage's paragraphs, of their words alone; of the whole passage where all paragraphs are short."""
    texts = [parts(part) for part in passage.parts or [passage.text]]
    long = [words for words in texts if len(words) >= FEWEST] or [[word for words in texts for word in words]]
    return tuple(dict.fromkeys(hashlib.sha256(" ".join(words).encode()).hexdigest()[:LENGTH] for words in long))


def places_of(source: str) -> Iterator[str]:
    """The file, then its folders from within: a/b.md, a/ and "" for all notes."""
    yield source
    parts = source.split("/")[:-1]
    while parts:
        yield "/".join(parts) + "/"
        parts.pop()
    yield ""
