"""What memory keeps of a file: its passages, and all its words.

Passages leave out code, tables of figures and lists of links, since nobody learns from them how the owner writes. A note of
which nothing else is left would never be found, so memory keeps these of it. Training does not. The words of others stay out.
"""

from collections import Counter
from dataclasses import replace

from ..recipe import Sources
from ..sources import forms
from ..sources.chunks import CountTokens, cut
from ..sources.matter import front_matter
from ..sources.note import Block, Note, Passage, Skip, Tally
from ..sources.note_file import NoteFile
from ..sources.own_choice import BY_OWNER, OwnChoice
from ..sources.plugins import own_part
from ..sources.readers import MARKDOWN
from ..sources.redact import without_secrets

FENCES = ("```", "~~~")
NO_TEXT = ("#", ">", "![", *FENCES)  # how a line begins that says nothing itself, or is another's
PIECES = 8  # of a note that is kept whole: a program of a thousand lines is found by its beginning and by all its words


def remembered(
    file: NoteFile, notes: list[Note], sources: Sources, count_tokens: CountTokens, own: OwnChoice
) -> tuple[list[Passage], str]:
    """(the passages of a file, all its words with its code); no words of a file of which the owner dropped a passage."""
    tally = Tally()
    every = _cut(notes, sources, count_tokens)
    kept = list(own.applied(every, tally))
    words = "" if tally.dropped[BY_OWNER] else _all_words(file, sources)
    if not kept:
        if notes and any(fence in words for fence in FENCES):
            every = _cut([replace(notes[0], blocks=_lines(words))], sources, count_tokens)
        long = [replace(passage, scrap=None) for passage in every if passage.tokens >= sources.min_tokens]
        kept = list(own.applied(long[:PIECES], Tally()))
    return kept, words if kept else ""


def passages_of(notes: list[Note], sources: Sources, count_tokens: CountTokens, own: OwnChoice) -> list[Passage]:
    """The passages of notes as training has them."""
    return list(own.applied(_cut(notes, sources, count_tokens), Tally()))


def _cut(notes: list[Note], sources: Sources, count_tokens: CountTokens) -> list[Passage]:
    return [p for note in notes for p in cut(note, count_tokens, sources.context_tokens, sources.min_tokens, Tally())]


def _lines(text: str) -> list[Block]:
    """The lines of a Markdown text but its front matter, headings, fences, quotes, pictures and encoded data, a block each."""
    matter, body, offset = front_matter(text)
    body = forms.cut(own_part(matter or {}, body, Counter()), Counter())
    lines = ((number, " ".join(line.split())) for number, line in enumerate(body.split("\n"), 1 + offset))
    return [Block(line, number) for number, line in lines if line and not line.startswith(NO_TEXT)]


def _all_words(file: NoteFile, sources: Sources) -> str:
    """The text of a Markdown file with its code, which its passages leave out; "" for other kinds."""
    if file.ending not in MARKDOWN:
        return ""
    try:
        text = file.text(Tally())
    except Skip:
        return ""
    return without_secrets(text, sources)
