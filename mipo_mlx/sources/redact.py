"""Secrets in notes: keys, passwords, PINs and codes, card, account, id and phone numbers, e-mail addresses, seed phrases.

A secret is replaced by its kind in brackets and counted, and is never printed or written. The detectors in `secrets/` work
offline. They are patterns: they miss secrets that nothing announces and that look like ordinary words. docs/privacy.md has a table
of what is found and what is not.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from ..recipe import Sources
from .note import Block, Note, changed
from .secrets import Span, words_of
from .secrets.announced import announced
from .secrets.apart import is_asked
from .secrets.carriers import carriers
from .secrets.checked import checked
from .secrets.columns import columns
from .secrets.keys import keys
from .secrets.phones import phones
from .secrets.phrases import find, lowered
from .secrets.seeds import seeds

SHORT = 120  # characters: names and titles, of which there are many
MIGHT = re.compile(r"\d|@|=|://| -p|\bat\b|\[at|\(at|\w{16}|(?:\w{3,}\W{1,3}){11}")


def redact_note(note: Note, counts: Counter) -> Note:
    """The note with every secret in its text, title, name and file name replaced by its kind; `counts` counts them by kind.

    The blocks are read as one text: a password may stand in the line below its word, or in a column of a table.
    """
    name, source = note.name, redact_name(note.source)
    row = name.removeprefix(f"{note.source}:").isdigit()  # of many in one file, of which the file's name alone tells
    if source != note.source if row else redact(name, Counter()) != name:  # two notes named after two addresses stay two notes
        name = hashlib.sha256(name.encode()).hexdigest()[:12]
    blocks = _blocks(note.blocks, counts)
    return changed(note, name=name, source=source, title=redact(note.title, counts), blocks=blocks)


@lru_cache(1 << 16)  # reading, hashing and memory each ask for the name of every file
def redact_name(name: str) -> str:
    """A file's name with its secrets replaced. Its ending is no part of an address: `week@2025.md` is none."""
    parts = name.split("/")
    stem, dot, ending = parts[-1].rpartition(".")
    last = f"{redact(stem, Counter())}{dot}{ending}" if dot and stem else redact(parts[-1], Counter())
    return "/".join([*(redact(part, Counter()) for part in parts[:-1]), last])


def redact(text: str, counts: Counter) -> str:
    """`text` with each secret replaced by its kind in brackets; `counts` counts them by kind."""
    if len(text) < SHORT and not MIGHT.search(text):
        lower = lowered(text)
        if not text or next(find(lower), None) is None and not is_asked(lower):
            return text
    return _replaced(text, _apart(spans(text)), counts)


def without_secrets(text: str, sources: Sources) -> str:
    """`text` with its secrets replaced, unless the recipe has `sources.redact` off."""
    return redact(text, Counter()) if sources.redact else text


def spans(text: str) -> Iterator[Span]:
    """(begin, end, kind) of every secret; they may overlap."""
    lower = lowered(text)
    words = words_of(lower)
    names = set(words)
    yield from keys(text)
    yield from carriers(text, lower)
    yield from checked(text)
    yield from announced(text, lower, names)
    yield from columns(text, lower, names)
    yield from phones(text)
    yield from seeds(text, words)


def _blocks(blocks: list[Block], counts: Counter) -> list[Block]:
    text = "\n".join(block.text for block in blocks)
    every = list(_apart(spans(text)))
    if not every:
        return blocks
    clean, at, first = [], 0, 0
    for block in blocks:
        end = at + len(block.text)
        while first < len(every) and every[first][1] <= at:
            first += 1
        mine, place = [], first
        while place < len(every) and every[place][0] < end:
            mine.append((max(every[place][0] - at, 0), min(every[place][1] - at, len(block.text)), every[place][2]))
            place += 1
        clean.append(replace(block, text=_replaced(block.text, mine, counts)) if mine else block)
        at = end + 1
    return clean


def _replaced(text: str, spans: Iterable[Span], counts: Counter) -> str:
    parts, end = [], 0
    for begin, stop, kind in spans:
        parts += [text[end:begin], f"[{kind}]"]
        end = stop
        counts[kind] += 1
    return "".join([*parts, text[end:]])


def _apart(spans: Iterable[Span]) -> Iterator[Span]:
    """The spans in order; of two that overlap or go on, the first (and longer) one takes in the other."""
    held: Span | None = None
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if held and (span[0] < held[1] or span[0] == held[1] and span[2] == held[2]):
            held = (held[0], max(held[1], span[1]), held[2])
            continue
        if held:
            yield held
        held = span
    if held:
        yield held
