"""Markdown and plain text files, one note each: what is not the owner's is cut, or the file is left to its own reader."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from ..forms import cut
from ..licences import refuse_licence, refuse_list
from ..markdown import ADDRESS, SPACE, TAG, parse, plain_text
from ..note import Block, NotANote, Note, Tally
from ..note_file import NoteFile
from ..plugins import tags_of, without_clippings
from ..quoted import cut_lines, own_blocks, settle
from .dialogues import own_turns, without_others
from .saved_chats import refuse_unmarked, without_generated
from .threads import without_threads

ITEM = re.compile(r"\s*(?:[-*+•–]|\d+[.)])\s+")


def read_markdown(file: NoteFile, tally: Tally, text: str, me: str | None = None) -> list[Note]:
    """The note of a Markdown file with this text."""
    matter, blocks = markdown_blocks(file, tally, text, me)
    return [Note(file.source, file.source, title_of(matter.get("title"), blocks, file.path), blocks, labels=labels(matter, text))]


def read_text(file: NoteFile, tally: Tally, text: str, me: str | None = None) -> list[Note]:
    """The note of a plain text file with this text."""
    text = own_text(file, text, tally.removed, me)
    blocks = paragraphs(text, removed=tally.removed)
    return [own_title(Note(file.source, file.source, stem_title(file.path), blocks, labels=labels({}, text)))]


def markdown_blocks(file: NoteFile, tally: Tally, text: str, me: str | None = None) -> tuple[dict[str, Any], list[Block]]:
    """(front matter, blocks) of a Markdown file's text, without the words of others."""
    matter, blocks, removed = parse(own_text(file, text, tally.removed, me))
    tally.removed.update(removed)
    return matter, blocks


def entry_blocks(text: str, number: int, tally: Tally) -> list[Block]:
    """The blocks of Markdown that is one of many entries in a file, all on line `number`; none of a plug-in's own data."""
    try:
        _, blocks, removed = parse(text)
    except NotANote as reason:
        tally.removed[str(reason)] += 1
        return []
    tally.removed.update(removed)
    return [replace(block, line=number) for block in blocks]


def own_text(file: NoteFile, text: str, removed: Counter, me: str | None) -> str:
    """The text without the words of assistants and other speakers. Raises Skip for a licence, a list or a dialogue of others."""
    refuse_licence(text)
    refuse_list(text)
    refuse_unmarked(text)
    lines = own_turns(without_clippings(text).split("\n"), removed)
    lines = without_others(without_generated(lines, removed), file.stem, me, removed)
    return "\n".join(without_threads(lines, removed))


def labels(matter: dict[str, Any], text: str) -> frozenset[str]:
    """What sources.exclude and include can name of a note: its tags, and the keys and values of its front matter."""
    tags = {f"#{tag.casefold()}" for tag in (TAG.findall(text) if "#" in text else ())} | {f"#{tag}" for tag in tags_of(matter)}
    keys = {f"{key}:".casefold() for key in matter}
    values = {
        f"{key}: {one}".casefold() for key, value in matter.items() for one in (value if isinstance(value, list) else [value])
    }
    return frozenset(tags | keys | values)


def own_title(note: Note) -> Note:
    """Without a first line that repeats the title, as in notes exported under the name of their first line."""
    first = note.blocks[0].text if note.blocks and not note.blocks[0].level else ""
    return replace(note, blocks=note.blocks[1:]) if first.lower() == note.title.lower() else note


def paragraphs(text: str, first_line: int = 1, removed: Counter | None = None) -> list[Block]:
    """Blocks of plain text: paragraphs end at a blank line, and every list item is one. `removed` counts what is cut."""
    blocks: list[Block] = []
    held: list[str] = []
    begin = first_line
    counts: Counter = Counter() if removed is None else removed

    def flush() -> None:
        if not held:
            return
        whole = SPACE.sub(" ", " ".join(held)).strip()
        joined, linked = plain_text(whole)
        if joined:
            leads = bool(linked and ADDRESS.match(ITEM.sub("", whole, count=1)))
            blocks.append(settle(Block(joined, begin, linked=linked, leads=leads)))
        held.clear()

    for number, line in enumerate(cut_lines(cut(text, counts), counts).split("\n"), first_line):
        if not line.strip() or ITEM.match(line):
            flush()
        if line.strip():
            begin = begin if held else number
            held.append(line)
    flush()
    return own_blocks(blocks, counts)


def title_of(given: object, blocks: list[Block], path: PurePath) -> str:
    """The front matter's title, else the first heading of the first level, else the file's name."""
    if isinstance(given, str) and given.strip():
        return SPACE.sub(" ", given).strip()
    return next((block.text for block in blocks if block.level == 1), stem_title(path))


def stem_title(path: PurePath) -> str:
    """`2. sour-dough_bread.md` -> `sour dough bread`; of a bundle (Soup.textbundle/text.md) the bundle's name."""
    stem = path.stem.removesuffix(".excalidraw")
    if path.parent.suffix in (".textbundle", ".textpack"):
        stem = path.parent.stem
    return re.sub(r"^\d+[.)]\s*", "", SPACE.sub(" ", re.sub(r"[-_]+", " ", stem)).strip())
