"""One small reader for each kind of file, found by its ending and, where that says little, by a look inside."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..decode import read_text
from ..note import Note, Tally
from . import chats, documents, html, logseq, mail, notion, org, plain

Reader = Callable[[Path, str, Tally], list[Note]]

PLAIN, MARKDOWN = {".txt", ".text"}, {".md", ".markdown", ".mdown"}
READERS: dict[str, Reader] = {
    ".htm": html.read_html,
    ".html": html.read_html,
    ".org": org.read_org,
    ".docx": documents.read_docx,
    ".pdf": documents.read_pdf,
}
# Files that hold other people's words too: whose are the user's is told by `sources.me`.
SHARED = {".mbox": mail.read_mbox, ".eml": mail.read_eml}
ENDINGS = ", ".join(sorted((*PLAIN, *MARKDOWN, *READERS, *SHARED)))


def reader_for(path: Path, me: str | None = None) -> Reader | None:
    """The reader of a file, None where it is no kind of note that we know. `me`: the user's name or address in chats and mail."""
    ending = path.suffix.lower()
    if ending in MARKDOWN:
        if logseq.is_logseq(path):
            return logseq.read_logseq
        return notion.read_notion if notion.is_notion(path) else plain.read_markdown
    if ending in PLAIN:
        return partial(_read_text_file, me=me)
    if ending in SHARED:
        return partial(SHARED[ending], me=me)
    if ending == ".json" and path.stem.startswith("conversations"):
        return chats.read_conversations
    if not ending and _begins_like_mbox(path):
        return partial(mail.read_mbox, me=me)  # Thunderbird's folders have no ending
    return READERS.get(ending)


def _read_text_file(path: Path, source: str, tally: Tally, me: str | None) -> list[Note]:
    text = read_text(path, source, tally)
    return chats.read_whatsapp(text, path, source, me) if chats.is_whatsapp(text) else [plain.text_note(text, path, source)]


def _begins_like_mbox(path: Path) -> bool:
    return _first_bytes(path, 5) == b"From "


def _first_bytes(path: Path, count: int) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(count)
    except OSError:
        return b""


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
