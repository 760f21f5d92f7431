"""One small reader for each kind of file, found by its ending and, where that says little, by a look inside."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..licences import WHY, is_of_a_package
from ..note import NotANote, Note, Tally
from ..note_file import NoteFile
from . import documents, exports, html, journals, logseq, mail, messengers, notion, org, plain

Reader = Callable[[NoteFile, Tally], list[Note]]

PLAIN, MARKDOWN = {".txt", ".text"}, {".md", ".markdown", ".mdown", ".mkd", ".mdx"}
READERS: dict[str, Callable[..., list[Note]]] = {  # readers of files that may hold other people's words take `me` too
    ".htm": html.read_html,
    ".html": html.read_html,
    ".org": org.read_org,
    ".docx": documents.read_docx,
    ".pdf": documents.read_pdf,
    ".mbox": mail.read_mbox,
    ".eml": mail.read_eml,
    ".enex": journals.read_enex,
    ".canvas": journals.read_journal,
}
SHARED = {".htm", ".html", ".mbox", ".eml"}
DAY = re.compile(  # a heading of a journal: 2024-05-01, 1.5.2024, Friday 3 May, 3 mai 2024, 2024年5月1日
    r"\b\d{4}[-./]\d{1,2}[-./]\d{1,2}\b|\b\d{1,2}[-./] ?\d{1,2}[-./] ?(?:\d{4}|\d\d)\b|\d{1,2}月\d{1,2}日"
    r"|\b\d{1,2}(?:st|nd|rd|th|\.)? (?:of |de )?[^\W\d]{3,10}\b(?:,? (?:de )?\d{4})?$|^(?:\w+,? )?[^\W\d]{3,10} "
    r"\d{1,2}(?:st|nd|rd|th)?(?:,? \d{4})?$"
)
ENDINGS = ", ".join(sorted((*PLAIN, *MARKDOWN, *READERS)))


def reader_for(file: NoteFile, me: str | None = None) -> Reader | None:
    """The reader of a file, None where it is no kind of note that is known. `me`: the owner's name in chats and mail."""
    ending = file.ending
    if ending in PLAIN and file.stem.startswith("Standard Notes") and journals.is_journal(file):
        return journals.read_journal  # its backup: JSON, and larger than writing may be
    if ending in PLAIN | MARKDOWN:
        return partial(_read_writing, me=me)
    if ending in READERS:
        return partial(READERS[ending], me=me) if ending in SHARED else READERS[ending]
    if ending == ".json" and journals.is_journal(file):
        return journals.read_journal
    if ending == ".json" and (file.stem.startswith("conversations") or exports.is_export(file)):
        return partial(exports.read_export, me=me)
    if not ending and file.beginning(5) == b"From ":
        return partial(mail.read_mbox, me=me)  # Thunderbird's folders have no ending
    return None


def _read_writing(file: NoteFile, tally: Tally, me: str | None) -> list[Note]:
    """Text or Markdown: by what is in it a chat, a page of a program that has its own marks, or a note."""
    if is_of_a_package(file.path):
        raise NotANote(WHY)
    text = file.text(tally)
    if text.startswith("{") and journals.is_journal(file):
        return journals.read_journal(file, tally)
    if messengers.is_messages(text):
        return messengers.read_messages(text, file, tally, me)
    if file.ending in PLAIN:
        return plain.read_text(file, tally, text, me)
    if file.logseq or logseq.is_page(text):
        return logseq.read_logseq(file, tally, text, me)
    joplin = notion.joplin_text(text, tally)
    if joplin is None and notion.is_notion(file.path):
        return notion.read_notion(file, tally, text, me)
    return plain.read_markdown(file, tally, text if joplin is None else joplin, me)


def headings_as_notes(notes: list[Note]) -> list[Note]:
    """A journal in one file: where there is a single note, each of its sections is a note of its own."""
    if len(notes) != 1 or notes[0].whole:
        return notes
    depth = min((level for level, count in Counter(b.level for b in notes[0].blocks if b.level).items() if count > 1), default=0)
    return _at_headings(notes[0], depth) if depth else notes


def days_as_notes(note: Note) -> list[Note]:
    """A journal among other notes: where most headings of a level are dates, each of these sections is a note of its own."""
    levels = Counter(block.level for block in note.blocks if block.level)
    for level, count in sorted(levels.items()):
        dates = sum(block.level == level and bool(DAY.search(block.text)) for block in note.blocks)
        if dates >= 3 and dates > count / 2 and not note.whole:
            return _at_headings(note, level)
    return [note]


def _at_headings(note: Note, depth: int) -> list[Note]:
    parts: list[Note] = [replace(note, blocks=[])]
    for block in note.blocks:
        if 0 < block.level <= depth:
            parts.append(replace(note, name=f"{note.name}#{len(parts)} {block.text}", title="", blocks=[]))
        parts[-1].blocks.append(block)
    return [part for part in parts if any(not block.level for block in part.blocks)]
