"""Markdown and plain text files, one note each."""

import re
from dataclasses import replace
from pathlib import Path

from ..decode import read_text
from ..markdown import SPACE, parse, plain_text
from ..note import Block, Note, Tally

ITEM = re.compile(r"\s*(?:[-*+•–]|\d+[.)])\s+")


def read_markdown(path: Path, source: str, tally: Tally) -> list[Note]:
    matter, blocks, removed = parse(read_text(path, source, tally))
    tally.removed.update(removed)
    return [Note(source, source, title_of(matter.get("title"), blocks, path), blocks)]


def text_note(text: str, path: Path, source: str) -> Note:
    return own_title(Note(source, source, stem_title(path), paragraphs(text)))


def own_title(note: Note) -> Note:
    """Without a first line that repeats the title, as in notes exported under the name of their first line."""
    first = note.blocks[0].text if note.blocks and not note.blocks[0].level else ""
    return replace(note, blocks=note.blocks[1:]) if first.lower() == note.title.lower() else note


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
        if line.strip():
            begin = begin if held else number
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
