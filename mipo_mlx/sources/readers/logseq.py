"""Pages and journals of a Logseq graph: outlines of bullets with properties, block references and task marks."""

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from ..decode import read_text
from ..markdown import parse
from ..note import Block, Note, Tally

PROPERTY = re.compile(r"^\s*(?:-\s+)?([\w./-]+)::(?:[ \t]+(.*))?$", re.MULTILINE)
DRAWER = re.compile(r"^\s*:(?:LOGBOOK|PROPERTIES):.*?:END:[ \t]*$", re.MULTILINE | re.DOTALL)
PLANNING = re.compile(r"^\s*(?:SCHEDULED|DEADLINE):\s*<[^>\n]*>[ \t]*$", re.MULTILINE)
TASK = re.compile(r"^(\s*-\s+)(?:TODO|DOING|DONE|LATER|NOW|WAITING|CANCELED|CANCELLED)\s+", re.MULTILINE)
PRIORITY = re.compile(r"\[#[A-C]\]\s*")
MACRO = re.compile(r"\{\{.*?\}\}")
LABELLED_REFERENCE = re.compile(r"\[([^\[\]\n]+)\]\(\(\([0-9a-fA-F-]{36}\)\)\)")
REFERENCE = re.compile(r"\(\([0-9a-fA-F-]{36}\)\)")
TAG = re.compile(r"#\[\[([^\[\]\n]+)\]\]")


def is_logseq(path: Path) -> bool:
    """A page of a graph: in `pages` or `journals`, beside Logseq's own folder."""
    return any(
        folder.name in ("pages", "journals") and (folder.parent / "logseq" / "config.edn").exists() for folder in path.parents
    )


def read_logseq(path: Path, source: str, tally: Tally) -> list[Note]:
    text = read_text(path, source, tally)
    properties = {match[1].lower(): (match[2] or "").strip() for match in PROPERTY.finditer(text)}
    _, blocks, removed = parse(_plain(text))
    tally.removed.update(removed)
    tally.removed["properties"] += len(properties)
    # The outline's bullets are the page's paragraphs; "- " before each would say nothing.
    blocks = [replace(block, text=re.sub(r"^- ", "", block.text)) for block in blocks]
    title = properties.get("title") or unquote(path.stem).replace("___", "/").replace("_", " ")
    return [Note(source, source, title, [block for block in blocks if _says_something(block)])]


def _plain(text: str) -> str:
    text = DRAWER.sub(lambda match: "\n" * match[0].count("\n"), text)
    for pattern, kept in ((PLANNING, ""), (PROPERTY, ""), (TASK, r"\1"), (PRIORITY, ""), (MACRO, ""), (LABELLED_REFERENCE, r"\1")):
        text = pattern.sub(kept, text)
    return TAG.sub(r"\1", REFERENCE.sub("", text))


def _says_something(block: Block) -> bool:
    return bool(block.text.strip("- \t"))
