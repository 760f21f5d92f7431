"""Made-up secrets, and harmless text that looks like them: secrets.jsonl and harmless.jsonl.

In secrets.jsonl the marks « and » stand around each secret. The mark ‖ breaks a key in two, so that no scanner takes the file
for a leak. Both files were written before the patterns that find the secrets.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mipo_mlx.files import read_jsonl

HERE = Path(__file__).parent
SECRET = re.compile("«(.*?)»", re.DOTALL)
KINDS = re.compile(r"\[[\w -]+\]")
PIECE = re.compile(r"[^\W_]{3,}|\d+")


@dataclass(frozen=True)
class Case:
    kind: str
    text: str
    secrets: tuple[str, ...] = ()

    def left(self, redacted: str) -> list[str]:
        """The secrets that can still be read in a redacted text, whole or in pieces of three characters and more."""
        redacted = KINDS.sub("", redacted)
        there = Counter(PIECE.findall(self.around))
        here = Counter(PIECE.findall(redacted))
        return [s for s in self.secrets if s in redacted or any(here[p] > there[p] for p in PIECE.findall(s))]

    @property
    def around(self) -> str:
        """The text without its secrets: what may stay."""
        text = self.text
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, " ")
        return text


def secrets() -> list[Case]:
    return [_marked(row) for row in read_jsonl(HERE / "secrets.jsonl")]


def missed() -> list[Case]:
    return [_marked(row) for row in read_jsonl(HERE / "missed.jsonl")]


def languages() -> set[str]:
    return {row["language"] for row in read_jsonl(HERE / "secrets.jsonl")}


def harmless() -> list[Case]:
    return [Case(row["kind"], row["text"]) for row in read_jsonl(HERE / "harmless.jsonl")]


def _marked(row: dict[str, str]) -> Case:
    text = row["text"].replace("‖", "")
    return Case(row["kind"], text.replace("«", "").replace("»", ""), tuple(SECRET.findall(text)))
