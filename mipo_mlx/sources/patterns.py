"""Patterns of file names that a vault or a recipe brings: no pattern and no name makes them take long.

Python's own engine tries ways again and again, so `(a+)+$` takes it for ever. It gets patterns that leave it hardly a choice. RE2,
which Arrow brings along, gets the others: its time grows with the length of the name alone, but it knows no lookahead.
"""

import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from .note import Skip

LONGEST = 1000  # characters of a pattern
CHOICES = re.compile(r"[*+?{]")
AGAIN = re.compile(r"\)[*+{]")  # a group that is repeated
PATIENCE = 5.0  # seconds of computing for all patterns of a vault and all names


class Pattern(Protocol):
    def search(self, text: str, /) -> Any: ...


@dataclass(frozen=True)
class Linear:
    """A pattern for RE2, small and capital letters alike."""

    text: str

    @cached_property
    def _match(self) -> Any:
        from pyarrow import scalar
        from pyarrow.compute import match_substring_regex

        return lambda name: match_substring_regex(scalar(name), pattern=self.text, ignore_case=True).as_py()

    def search(self, name: str) -> bool:
        return bool(self._match(name))


def compiled(text: str) -> Pattern:
    """The pattern, for a search in which small and capital letters are alike. Raises ValueError for one that nobody understands."""
    if len(text) > LONGEST:
        raise ValueError(f"longer than {LONGEST:,} characters")
    if len(CHOICES.findall(text)) <= 1 and not AGAIN.search(text):
        try:
            return re.compile(text, re.IGNORECASE)
        except (re.error, RecursionError, OverflowError):
            pass  # JavaScript names its groups in another way
    pattern = Linear(re.sub(r"\\u([0-9a-fA-F]{4})", r"\\x{\1}", text))
    try:
        pattern.search("")
    except ValueError:  # Arrow's ArrowInvalid is one
        raise ValueError("not understood") from None
    return pattern


@dataclass
class Patience:
    """What is left of the time for the patterns of a vault."""

    left: float  # seconds


@dataclass(frozen=True)
class OfVault:
    """A pattern of a vault's settings, for names beneath its folder."""

    folder: str  # seen from the notes folder, with a slash behind it; "" for the notes folder itself
    pattern: Pattern
    patience: Patience

    def search(self, name: str) -> bool:
        """Raises Skip where the vault's patterns have taken too long: nobody can say whether its owner left this file out."""
        if not name.startswith(self.folder):
            return False
        if self.patience.left <= 0:
            raise Skip("nobody can say whether its vault's settings exclude it: their patterns take too long; simplify them")
        begin = time.thread_time()
        try:
            return bool(self.pattern.search(name[len(self.folder) :]))
        finally:
            self.patience.left -= time.thread_time() - begin
