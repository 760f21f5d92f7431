"""Markdown and plain text files, one note each."""

import re
from pathlib import Path

from ..markdown import SPACE, parse, plain_text
from ..note import Block, Note, Tally
from ..text import read_text

ITEM = re.compile(r"\s*(?:[-*+•–]|\d+[.)])\s+")


def read_markdown(path: Path, source: str, tally: Tally) -> list[Note]:
    matter, blocks, removed = parse(read_text(path, source, tally))
    tally.removed.update(removed)
    return [Note(source, source, title_of(matter.get("title"), blocks, path), blocks)]


def read_plain(path: Path, source: str, tally: Tally) -> list[Note]:
    return [Note(source, source, stem_title(path), paragraphs(read_text(path, source, tally)))]


def paragraphs(text: str, first_line: int = 1) -> list[Block]:
    """Blocks of plain text: paragraphs end at a blank line, and every list item is one."""
    blocks: list[Block] = []
    held: list[str] = []
    begin = first_line

    def flush() -> None:
        joined, linked = plain_text(SPACE.sub(" ", " ".join(held)).strip())
        if joined:
            blocks.append(Block(joined, begin, linked=linked))
        held.clear()

    for number, line in enumerate(text.split("\n"), first_line):
        if not line.strip() or ITEM.match(line):
            flush()
        if not held:
            begin = number
        held.append(line)
    flush()
    return blocks


def title_of(given: object, blocks: list[Block], path: Path) -> str:
    """The front matter's title, else the first heading of the first level, else the file's name."""
    if isinstance(given, str) and given.strip():
        return SPACE.sub(" ", given).strip()
    return next((block.text for block in blocks if block.level == 1), stem_title(path))


def stem_title(path: Path) -> str:
    """`2. sour-dough_bread.md` -> `sour dough bread`."""
    return re.sub(r"^\d+[.)]\s*", "", SPACE.sub(" ", re.sub(r"[-_]+", " ", path.stem)).strip())
