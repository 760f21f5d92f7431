"""Notes of programs that export all of them to one file, or each to a file of data: Day One, Google Keep, Simplenote, Evernote.

What lies in their trash is left out, and pictures and attachments are counted.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..forms import between
from ..note import NotANote, Note, Skip, Tally
from ..note_file import NoteFile
from .html import parse_html
from .plain import entry_blocks
from .rows import json_values

OUTLINE, DEEPEST = 4, 100  # levels of an outline that are kept apart, and that are read
LIMIT = 256 << 20  # bytes: Evernote keeps attachments within the file
# What the beginning of a .json file has of each program.
SIGNS = (
    (b'"entries"', b'"creationDate"'),
    (b'"isTrashed"', b'"textContent"'),
    (b'"isTrashed"', b'"listContent"'),
    (b'"activeNotes"',),
    (b'"items"', b'"content_type"', b'"uuid"'),
    (b'"string"', b'"title"', b'"children"'),
)
CLIPPED = re.compile(r"<source>(?:web\.clip|Clearly)[^<]*</source>", re.IGNORECASE)  # Evernote's clipper
ENEX_TITLE, ENEX_TAG = re.compile(r"<title>([^<]*)</title>"), re.compile(r"<tag>([^<]*)</tag>")


def is_journal(file: NoteFile) -> bool:
    """Whether a JSON file begins like the notes of one of these programs."""
    beginning = file.beginning(1 << 16)
    return any(all(sign in beginning for sign in signs) for signs in SIGNS)


def read_journal(file: NoteFile, tally: Tally) -> list[Note]:
    """A note for each entry of a JSON file; `line` is the entry's number. Raises Skip where it is JSON of another kind."""
    rows = list(_entries(json_values(file, tally, LIMIT), tally))
    if not rows:
        raise NotANote(".json files")
    notes = []
    for number, (key, title, text, tags) in enumerate(rows, 1):
        name = f"{file.source}#{key or number}" if len(rows) > 1 else file.source
        labels = frozenset(f"#{tag.casefold()}" for tag in tags)
        with tally.sparing("notes", f"{file.source}#{number}"):
            if blocks := entry_blocks(text, number, tally):
                notes.append(Note(name, file.source, title, blocks, labels=labels))
    return notes


def read_enex(file: NoteFile, tally: Tally) -> list[Note]:
    """A note for each of Evernote's; `line` is that on which it begins. Raises Skip for a file that is no export."""
    if b"<en-export" not in file.beginning(1 << 16).replace(b"\0", b""):
        raise Skip("no export of Evernote; export the notes again")
    text, attachments = between(file.text(tally, LIMIT), "<resource>", "</resource>")
    tally.removed["images and embeds"] += attachments
    notes, at, line = [], 0, 1
    for number, (begin, entry) in enumerate(_inside(text, "<note>", "</note>"), 1):
        line += text.count("\n", at, begin)
        at = begin
        with tally.sparing("notes", f"{file.source}#{number}"):
            if CLIPPED.search(entry):
                tally.removed["articles clipped from the web"] += 1
                continue
            entry, locked = between(entry, "<en-crypt", "</en-crypt>")
            tally.removed["encoded data"] += locked
            content = next((inner.strip() for _, inner in _inside(entry, "<content>", "</content>")), "")
            html = content.removeprefix("<![CDATA[").removesuffix("]]>") if content.startswith("<![CDATA[") else ""
            title, blocks = ENEX_TITLE.search(entry), parse_html(html, tally)[1]
            if blocks:
                labels = frozenset(f"#{tag.casefold()}" for tag in ENEX_TAG.findall(entry))
                here = [replace(block, line=line) for block in blocks]
                notes.append(Note(f"{file.source}#{number}", file.source, title[1] if title else "", here, labels=labels))
    return notes


def _inside(text: str, opening: str, closing: str) -> Iterator[tuple[int, str]]:
    """(place, text) of each stretch between an opening and the next closing, in linear time."""
    end = 0
    while (begin := text.find(opening, end)) >= 0 and (end := text.find(closing, begin)) >= 0:
        yield begin, text[begin + len(opening) : end]


def _entries(values: Any, tally: Tally) -> Iterator[tuple[str, str, str, list[str]]]:
    """(key, title, Markdown, tags) of every entry that is not in the trash."""
    if isinstance(values, list):  # Roam: pages of items within items
        for page in values:
            if isinstance(page, dict) and isinstance(page.get("title"), str):
                yield page["title"], page["title"], "\n".join(_outline(page.get("children"))), []
    if not isinstance(values, dict):
        return
    if isinstance(values.get("nodes"), list):  # a canvas of Obsidian's
        for node in values["nodes"]:
            if isinstance(node, dict) and node.get("type") == "text" and isinstance(node.get("text"), str):
                yield str(node.get("id") or ""), "", node["text"], []
    if isinstance(values.get("items"), list):  # Standard Notes
        for item in values["items"]:
            inside = item.get("content") if isinstance(item, dict) and item.get("content_type") == "Note" else None
            if isinstance(inside, str):
                raise Skip("an encrypted export of Standard Notes; export it decrypted")
            if isinstance(inside, dict) and not inside.get("trashed") and not item.get("deleted"):
                yield str(item.get("uuid") or ""), str(inside.get("title") or ""), str(inside.get("text") or ""), []
    if isinstance(values.get("entries"), list):  # Day One
        for entry in values["entries"]:
            if isinstance(entry, dict) and isinstance(entry.get("text"), str):
                yield str(entry.get("uuid") or ""), "", entry["text"].replace("\u2028", "\n"), _names(entry.get("tags"))
    elif isinstance(values.get("activeNotes"), list):  # Simplenote
        tally.removed["notes in the trash"] += len(values.get("trashedNotes") or [])
        for entry in values["activeNotes"]:
            if isinstance(entry, dict) and isinstance(entry.get("content"), str):
                title, _, text = entry["content"].partition("\n")
                yield (
                    str(entry.get("id") or ""),
                    title if text.strip() else "",
                    text if text.strip() else title,
                    _names(entry.get("tags")),
                )
    elif "isTrashed" in values:  # Google Keep
        if values["isTrashed"]:
            raise NotANote("notes in the trash")
        listed = values.get("listContent") or []
        items = [f"- {item['text']}" for item in listed if isinstance(item, dict) and item.get("text")]
        text = values.get("textContent") if isinstance(values.get("textContent"), str) else ""
        tally.removed["images and embeds"] += len(values.get("attachments") or [])
        yield "", str(values.get("title") or ""), "\n".join([text or "", *items]), _names(values.get("labels"))


def _outline(items: Any, depth: int = 0) -> Iterator[str]:
    """The lines of an outline of Roam's, each an item of Markdown; what stands too deep is on the last level."""
    for item in items if isinstance(items, list) else []:
        text = item.get("string") if isinstance(item, dict) else None
        text = between(text, "```", "```")[0] if isinstance(text, str) else ""
        if text.strip():
            quoted = text.lstrip().startswith(">")
            yield text if quoted else f"{'  ' * min(depth, OUTLINE)}- {text}"
        if isinstance(item, dict) and depth < DEEPEST:
            yield from _outline(item.get("children"), depth + 1)


def _names(tags: Any) -> list[str]:
    """Tags as they are written: names, or objects with a name."""
    every = tags if isinstance(tags, list) else []
    names = (tag.get("name") if isinstance(tag, dict) else tag for tag in every)
    return [name for name in names if isinstance(name, str)]
