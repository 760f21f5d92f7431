"""Pages of Notion and Joplin that bring fields of their own: below the title, or below the text."""

import re
from pathlib import PurePath

from ..note import NotANote, Note, Skip, Tally
from ..note_file import NoteFile
from .plain import labels, markdown_blocks, title_of

NAME = re.compile(r"^(.*?) ?[0-9a-f]{32}$")
PROPERTY = re.compile(r"^[A-Z][^:\n]{0,40}: \S.*$")
# Joplin's raw export: the title, the text, then `id: ...`, `parent_id: ...` and so on to `type_: 1` (a note).
JOPLIN = re.compile(r"(?:\A|\n)id: [0-9a-f]{32}\n(?:[a-z_]+:[^\n]*\n)*type_: (\d+)\s*\Z")


def is_notion(path: PurePath) -> bool:
    return bool(NAME.match(path.stem))


def read_notion(file: NoteFile, tally: Tally, text: str, me: str | None = None) -> list[Note]:
    """The note of a page: 32 hex digits in its name, and its properties as `Key: value` lines below its title."""
    text, count = without_properties(text)
    _, blocks = markdown_blocks(file, tally, text, me)
    tally.removed["properties"] += count
    name = NAME.match(file.path.stem)
    title = title_of(None, blocks, PurePath(name[1] if name else file.path.stem))
    return [Note(file.source, file.source, title, blocks, labels=labels({}, text))]


def without_properties(text: str) -> tuple[str, int]:
    """(`text` with its property lines emptied, how many): the lines right under the first heading, if all are `Key: value`."""
    lines = text.split("\n")
    start = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if not lines[start].startswith("# "):
        return text, 0
    begin = next((number for number in range(start + 1, len(lines)) if lines[number].strip()), len(lines))
    end = next((number for number in range(begin, len(lines)) if not lines[number].strip()), len(lines))
    if not all(PROPERTY.match(line) for line in lines[begin:end]):
        return text, 0
    lines[begin:end] = [""] * (end - begin)
    return "\n".join(lines), end - begin


def joplin_text(text: str, tally: Tally) -> str | None:
    """The text of a note in Joplin's raw export, its title as a heading; None for another file.

    Raises NotANote for a notebook, a tag, or what else Joplin keeps in such a file, and Skip for an encrypted note.
    """
    match = JOPLIN.search(text, max(0, len(text) - 4000)) if "\ntype_: " in text else None
    if not match:
        return None
    if match[1] != "1":
        raise NotANote("Joplin's notebooks, tags and resources")
    if "encryption_applied: 1" in match[0]:
        raise Skip("encrypted by Joplin; decrypt it there and export it again")
    tally.removed["properties"] += match[0].count("\n")
    title, _, body = text[: match.start()].partition("\n")
    return f"# {title}\n{body}"
