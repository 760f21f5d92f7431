"""Notion's Markdown export: 32 hex digits in names, and a page's properties as `Key: value` lines under its title."""

import re
from pathlib import Path

from ..decode import read_text
from ..markdown import parse
from ..note import Note, Tally
from .plain import title_of

NAME = re.compile(r"^(.*?) ?[0-9a-f]{32}$")
PROPERTY = re.compile(r"^[A-Z][^:\n]{0,40}: \S.*$")


def is_notion(path: Path) -> bool:
    return bool(NAME.match(path.stem))


def read_notion(path: Path, source: str, tally: Tally) -> list[Note]:
    text, count = without_properties(read_text(path, source, tally))
    _, blocks, removed = parse(text)
    tally.removed.update(removed)
    tally.removed["properties"] += count
    name = NAME.match(path.stem)
    return [Note(source, source, title_of(None, blocks, Path(name[1] if name else path.stem)), blocks)]


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
