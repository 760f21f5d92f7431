"""One small reader for each kind of file, found by its ending (and, where that says little, by a look inside)."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ..note import Note, Tally
from . import plain

Reader = Callable[[Path, str, Tally], list[Note]]

READERS: dict[str, Reader] = {
    ".md": plain.read_markdown,
    ".markdown": plain.read_markdown,
    ".mdown": plain.read_markdown,
    ".txt": plain.read_plain,
    ".text": plain.read_plain,
}


def reader_for(path: Path) -> Reader | None:
    """The reader of a file, None where it is no kind of note that we know."""
    return READERS.get(path.suffix.lower())


def headings_as_notes(notes: list[Note]) -> list[Note]:
    """A journal in one file: where there is a single note, each of its sections is a note of its own."""
    if len(notes) != 1 or notes[0].whole:
        return notes
    (note,) = notes
    depth = min((level for level, count in Counter(b.level for b in note.blocks if b.level).items() if count > 1), default=0)
    if not depth:
        return notes
    parts: list[Note] = [Note(note.name, note.source, note.title, [])]
    for block in note.blocks:
        if 0 < block.level <= depth:
            parts.append(Note(f"{note.name}#{len(parts)} {block.text}", note.source, "", []))
        parts[-1].blocks.append(block)
    return [part for part in parts if any(not block.level for block in part.blocks)]
