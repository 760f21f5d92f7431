"""Pages and journals of a Logseq graph: outlines of bullets with properties, block references and task marks."""

import re
from collections import Counter
from dataclasses import replace
from urllib.parse import unquote

from ..markdown import parse
from ..note import Block, Note, Tally
from ..note_file import NoteFile
from ..quoted import MARK
from .plain import labels, own_text

PROPERTY = re.compile(r"^[ \t]*(?:-[ \t]+)?([\w./-]+)::(?:[ \t]+(.*))?$", re.MULTILINE)
DRAWER = re.compile(r"^[ \t]*:(?:LOGBOOK|PROPERTIES):[ \t]*$(?:\n(?!\s*:END:).*){0,400}\n[ \t]*:END:[ \t]*$", re.MULTILINE)
QUERY = re.compile(
    r"^[ \t]*(?:-[ \t]+)?#\+BEGIN_(?:QUERY|QUOTE|SRC|EXPORT)\b.*$(?:\n(?!\s*#\+END_).*){0,400}\n[ \t]*#\+END_\w+[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
MARKER = re.compile(r"^[ \t]*#\+(?:BEGIN|END)_\w+[ \t]*$", re.MULTILINE | re.IGNORECASE)
PLANNING = re.compile(r"^[ \t]*(?:SCHEDULED|DEADLINE):[ \t]*<[^>\n]*>[ \t]*$", re.MULTILINE)
TASK = re.compile(r"^([ \t]*-[ \t]+)(?:TODO|DOING|DONE|LATER|NOW|WAITING|CANCELED|CANCELLED|IN-PROGRESS)[ \t]+", re.MULTILINE)
HICCUP = re.compile(r"\[:[a-z][\w.-]{0,20}(?: \{[^\n]{0,300}?\}+)?[^\[\]\n]{0,300}\]")
MARKS = re.compile(  # what only a page of Logseq has
    r"^[ \t]+(?:collapsed:: (?:true|false)|id:: [0-9a-f]{8}-[0-9a-f-]{27}|:LOGBOOK:)[ \t]*$|^[ \t]*- \{\{(?:query|embed|renderer) "
    r"|^[ \t]*(?:- )?#\+BEGIN_QUERY\b",
    re.MULTILINE,
)
SIGNS = ("collapsed::", "id::", ":LOGBOOK:", "{{", "#+BEGIN")  # each of MARKS has one
CARD = re.compile(r"(?<![ \t])[ \t]++#?(?:#card\b|\[\[card\]\])", re.IGNORECASE)
BULLET = re.compile(r"[ \t]*-(?:[ \t]|$)")
HIGHLIGHT = "ls-type:: annotation"  # a property of what was marked in a PDF: the words of its author
PRIORITY = re.compile(r"\[#[A-C]\][ \t]*")


def is_page(text: str) -> bool:
    """Whether a text is an outline of Logseq's, wherever it lies."""
    return any(map(text.__contains__, SIGNS)) and ("\n- " in text or text.startswith("- ")) and bool(MARKS.search(text))


def read_logseq(file: NoteFile, tally: Tally, text: str, me: str | None = None) -> list[Note]:
    properties = {match[1].lower(): (match[2] or "").strip() for match in PROPERTY.finditer(text)}
    of_article = {"author", "url"} <= properties.keys()  # a page that a service for highlights made
    text = _without_highlights(text, of_article, tally.removed) if of_article or HIGHLIGHT in text else text
    _, blocks, removed = parse(_plain(own_text(file, text, tally.removed, me)))
    tally.removed.update(removed)
    tally.removed["properties"] += len(properties)
    # The outline's bullets are the page's paragraphs; "- " before each would say nothing.
    blocks = [replace(block, text=re.sub(r"^- ", "", block.text)) for block in blocks]
    title = properties.get("title") or unquote(file.stem).replace("___", "/").replace("_", " ")
    named = labels(dict(properties), text)
    return [Note(file.source, file.source, title, [block for block in blocks if _says_something(block)], labels=named)]


def _without_highlights(text: str, of_article: bool, removed: Counter) -> str:
    """The outline without what was marked in a PDF, line breaks kept; what its reader wrote beneath stays.

    of_article: an item that begins as a quote is one to its end, over all of its paragraphs.
    """
    lines = text.split("\n")
    items = [number for number, line in enumerate(lines) if BULLET.match(line)]
    for begin, end in zip(items, [*items[1:], len(lines)], strict=True):
        quoted = of_article and lines[begin].partition("-")[2].lstrip().startswith(">")
        if quoted or any(line.strip() == HIGHLIGHT for line in lines[begin:end]):
            lines[begin:end] = [f"{lines[begin].partition('-')[0]}- {MARK}", *[""] * (end - begin - 1)]
            removed["quotes"] += 1
    return "\n".join(lines)


def _plain(text: str) -> str:
    for pattern in (DRAWER, QUERY):
        text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
    for pattern, kept in ((HICCUP, ""), (MARKER, ""), (PLANNING, ""), (PROPERTY, ""), (TASK, r"\1"), (PRIORITY, ""), (CARD, "")):
        text = pattern.sub(kept, text)
    return text


def _says_something(block: Block) -> bool:
    return bool(block.text.strip("- \t"))
