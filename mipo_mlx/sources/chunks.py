"""Notes to passages: cut at headings, then at paragraphs and sentences to a token length. A scrap says why it is one."""

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

from ..text.words import how_many, split_sentences
from .note import Block, Note, Passage, Tally, changed
from .voice import first_person

CountTokens = Callable[[str], int]
DATE_OR_NUMBER = re.compile(r"[\d\s./:,_-]*(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day)?[\d\s./:,_-]*", re.IGNORECASE)
HEADING_WORDS = 12  # a longer heading is a paragraph: CommonMark makes a heading of any paragraph right above ---
WIDEST = 64  # characters a token, above which a text is too long for certain
LETTERS = 0.7  # share of letters and spaces in prose, at least
MOSTLY = 0.5  # share of a passage's characters from which it counts as a link list, or as code
FEWEST_LINKS = 3  # entries of a list of links with descriptions
LEAST_DRAWN, DRAWN = 40, 0.25  # characters of a drawing of letters; the share of those that are the same as the one before
FEWEST_LISTED, WORD_LIST, IN_ORDER = 12, 60, 0.9  # words of a list; how many are looked at; the share that is in order


def cut(note: Note, count_tokens: CountTokens, limit: int, minimum: int, tally: Tally) -> list[Passage]:
    """The passages of one note, each of at most `limit` tokens; `scrap` says of some why they are no contexts."""
    count_tokens = lru_cache(4096)(count_tokens)  # a passage is measured as a section, as a piece and as a whole
    passages = []
    note = _with_short_headings(note, count_tokens, limit // 4)
    if note.whole:
        groups = [("", blocks) for blocks in _whole(note, count_tokens, limit, tally)]
    else:
        sections = _join_short(list(_sections(note)), count_tokens, limit, minimum)
        groups = [(heading, piece) for heading, blocks in sections for piece in _pieces(heading, blocks, count_tokens, limit)]
    for heading, blocks in groups:
        tally.passages += 1
        blocks = _without_numbers(blocks)
        text = compose(heading, blocks)
        tokens = count_tokens(text)
        why = "too short" if tokens < minimum else scrap(blocks)
        parts = tuple(block.text for block in blocks)
        passages.append(Passage(text, note.name, note.source, blocks[0].line, tokens, why, parts=parts))
    return passages


def scrap(blocks: list[Block]) -> str | None:
    """The reason to drop a passage, whatever its length; None to keep it."""
    characters = max(1, sum(len(block.text) for block in blocks))
    if sum(block.linked for block in blocks) > MOSTLY * characters:
        return "link list"
    if _describes_links([block for block in blocks if block.leads], characters):
        return "link list"
    if sum(block.code for block in blocks) > MOSTLY * characters:
        return "mostly code"
    letters = sum(how_many(block.text, _is_letter_or_space) for block in blocks)
    return "not prose" if letters < LETTERS * characters or _is_word_list(blocks) or _is_drawing(blocks) else None


def _without_numbers(blocks: list[Block]) -> list[Block]:
    """The blocks of words, where rows of numbers beside them would make the passage no prose; else all."""
    words = [block for block in blocks if how_many(block.text, _is_letter_or_space) >= LETTERS * len(block.text)]
    return words if len(words) < len(blocks) and words and scrap(blocks) == "not prose" else blocks


def _is_drawing(blocks: list[Block]) -> bool:
    """Whether letters follow their like so often as in a picture that is drawn with letters; in words of any language few do."""
    text = "".join(block.text for block in blocks)
    return len(text) >= LEAST_DRAWN and sum(map(operator.eq, text, text[1:])) > DRAWN * len(text)


def _is_letter_or_space(char: str) -> bool:
    return char.isalpha() or char.isspace()


def _describes_links(entries: list[Block], characters: int) -> bool:
    """Whether most of a passage are entries that begin with a link, and what stands behind it does not speak of its author."""
    if len(entries) < FEWEST_LINKS or sum(len(block.text) for block in entries) <= MOSTLY * characters:
        return False
    return sum(first_person(block.text) > 0 for block in entries) < len(entries) / 3


def _is_word_list(blocks: list[Block]) -> bool:
    """Whether the words stand in the order of the alphabet, as in a dictionary, an index or a list of names."""
    listed = [word for block in blocks for word in block.text.casefold().split()[:WORD_LIST]][:WORD_LIST]
    if len(listed) < FEWEST_LISTED or listed[0] > listed[-1]:
        return False
    return sum(map(operator.le, listed, listed[1:])) >= IN_ORDER * (len(listed) - 1)


def compose(heading: str, blocks: list[Block]) -> str:
    """The heading as a first sentence, then the blocks, each on a line of its own."""
    text = "\n".join(block.text for block in blocks)
    if not heading or text.lower().startswith(heading.lower()):
        return text
    return f"{heading} {text}" if heading[-1] in ".!?:…" else f"{heading}. {text}"


def title_words(title: str) -> str:
    """The heading without spaces around it; '' for a date or a number."""
    return "" if DATE_OR_NUMBER.fullmatch(title) else title.strip()


def _with_short_headings(note: Note, count_tokens: CountTokens, room: int) -> Note:
    """The note with a title of at most `room` tokens, and with text in place of headings that are really paragraphs."""

    def is_text(block: Block) -> bool:
        if not block.level:
            return False
        words = len(block.text.split())
        sentence = words > 3 and block.text.endswith((".", "。"))
        return sentence or words > HEADING_WORDS or not fits(block.text, count_tokens, room)

    blocks = [replace(block, level=0) if is_text(block) else block for block in note.blocks]
    return changed(note, blocks=blocks, title=next(fill([note.title], count_tokens, max(1, room)), ""))


def _sections(note: Note) -> Iterator[tuple[str, list[Block]]]:
    """(title and innermost heading, blocks) for each stretch between headings that has text."""
    title, heading, blocks = title_words(note.title), "", []
    for block in note.blocks:
        if not block.level:
            blocks.append(block)
            continue
        if blocks:
            yield _joined(title, heading), blocks
        heading, blocks = title_words(block.text), []
    if blocks:
        yield _joined(title, heading), blocks


def _joined(title: str, heading: str) -> str:
    if not heading or heading.lower() == title.lower():
        return title
    return f"{title}: {heading}" if title else heading


def _join_short(sections: list, count_tokens: CountTokens, limit: int, minimum: int) -> list[tuple[str, list[Block]]]:
    """A section below the minimum is joined with the next one, if both fit into one passage."""
    joined: list[tuple[str, list[Block]]] = []
    for heading, blocks in sections:
        if joined and fits(compose(*joined[-1]), count_tokens, minimum - 1):
            before, earlier = joined[-1]
            inner = heading.removeprefix(before).lstrip(": ")
            first = replace(blocks[0], text=compose(inner, blocks[:1]))
            together = (before, [*earlier, first, *blocks[1:]])
            if fits(compose(*together), count_tokens, limit):
                joined[-1] = together
                continue
        joined.append((heading, blocks))
    return joined


def _pieces(heading: str, blocks: list[Block], count_tokens: CountTokens, limit: int) -> Iterator[list[Block]]:
    """Runs of `blocks`: the text of each, heading included, has at most `limit` tokens."""
    if fits(compose(heading, blocks), count_tokens, limit):
        yield blocks
        return
    room = limit - count_tokens(f"{heading}. ") if heading else limit
    run: list[Block] = []
    used = -1
    for block in _small(blocks, count_tokens, room):
        length = count_tokens(block.text)
        if run and used + 1 + length > room:  # 1 for the line break
            yield run
            run, used = [], -1
        run.append(block)
        used += 1 + length
    if run:
        yield run


def _small(blocks: list[Block], count_tokens: CountTokens, room: int) -> Iterator[Block]:
    """The blocks; one of more than `room` tokens is cut at sentence ends, and an endless sentence at words."""
    for block in blocks:
        if fits(block.text, count_tokens, room):
            yield block
            continue
        share = len(block.text)
        for text in fill(split_sentences(block.text), count_tokens, room):
            part = len(text) / share
            yield replace(block, text=text, linked=round(block.linked * part), code=round(block.code * part))


def fill(sentences: list[str], count_tokens: CountTokens, room: int) -> Iterator[str]:
    """Sentences joined into texts of at most `room` tokens; a longer sentence is cut at words, a longer word into characters.

    Each sentence is counted once, so that the time grows with the length of the text.
    """
    held, used = "", 0
    for sentence in sentences:
        length = count_tokens(f" {sentence}" if held else sentence) if len(sentence) <= WIDEST * room else room + 1
        if held and used + length <= room:
            held, used = f"{held} {sentence}", used + length
            continue
        yield from _whole_or_halves(held, count_tokens, room)
        held, used = sentence, length
    yield from _whole_or_halves(held, count_tokens, room)


def _whole_or_halves(text: str, count_tokens: CountTokens, room: int) -> Iterator[str]:
    if not text:
        return
    if fits(text, count_tokens, room):
        yield text
    elif len(words := text.split()) > 1:
        for half in _halves(words):  # not `fill`: where counts do not add up, it would join the halves again, without end
            yield from _whole_or_halves(half, count_tokens, room)
    else:  # one endless word: a token rarely has less than a character, so `room` characters fit
        yield from (text[at : at + room] for at in range(0, len(text), room))


def fits(text: str, count_tokens: CountTokens, room: int) -> bool:
    """Whether a text has at most `room` tokens; it is not counted where its characters or its words settle that.

    A token has at least one character of plain text, and never words on both sides of a space.
    """
    if text.isascii() and len(text) < room:
        return True
    return len(text) <= WIDEST * room and len(text.split()) <= room and count_tokens(text) <= room


def _halves(words: list[str]) -> list[str]:
    middle = (len(words) + 1) // 2
    return [" ".join(words[:middle]), " ".join(words[middle:])]


def _whole(note: Note, count_tokens: CountTokens, limit: int, tally: Tally) -> Iterator[list[Block]]:
    blocks = [block for block in note.blocks if not block.level]
    if not blocks:
        return
    if count_tokens(compose("", blocks)) > limit:
        tally.removed["ends of rows over context_tokens"] += 1
        blocks = next(_pieces("", blocks, count_tokens, limit))
    yield blocks
