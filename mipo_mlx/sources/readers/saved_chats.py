"""Chats that a program saved in a layout of its own, without names before the turns: Perplexity, aider, Claude Code, gptel, [INST].

Each layout is known by a mark that only this program writes. `dialogues` reads those that name their speakers.
"""

import re
from collections import Counter

from ..forms import without_sections
from ..note import NotANote
from ..quoted import is_generated

GPTEL = re.compile(
    r"^(?:[ \t]*:GPTEL_BOUNDS:|(?:%|#|;|<!--)?[ \t]*(?:eval: \(gptel-mode|gptel--bounds))", re.MULTILINE | re.IGNORECASE
)
INSTRUCTION = re.compile(r"[ \t]*(?:<s>)?[ \t]*\[INST\](?P<text>.*)")
DRAFTS = re.compile(  # what Bard's page shows between a question and its answer
    r"\W*(?:(?:view|show) (?:other )?drafts|andere entwürfe ansehen|afficher (?:les )?autres (?:suggestions|brouillons)"
    r"|ver otr[ao]s "
    r"(?:versiones|respuestas)|ver (?:outros )?rascunhos|mostra altre bozze"
    r"|他の回答案を表示|查看其他草稿|顯示其他草稿|다른 답변 보기)\W*",
    re.IGNORECASE,
)
# One of these is in every match of DRAFTS.
OF_DRAFTS = "draft entwürfe suggestions brouillons versiones respuestas rascunhos bozze 回答案 草稿 답변".split()
FEWEST = 2
HEADING = re.compile(r"(#{1,6}) (.{2,80})")
ITEM = re.compile(r"([ \t]*)[-*+] (?:#{1,6} )?(.{2,60})")  # a label in an outline: what is indented further stands beneath it
FOLDED = re.compile(r"<summary>\s*(?:<\w+>)?([^<>\n]{2,80})", re.IGNORECASE)  # the label of what is folded in HTML
Turns = dict[int, tuple[str, str]]  # number of the line -> ("user" or "assistant", what stands behind its mark)


def turns_of_program(lines: list[str]) -> Turns:
    """The turns of a text that one of these programs saved; none of another text."""
    beginning = "\n".join(lines[:40])
    if "# aider chat started at" in beginning:
        return _marked(lines, "#### ")
    if any("\u2042" in line for line in lines) and ("pplx" in beginning or any("[^1_1]" in line for line in lines)):
        return _marked(lines, "# ")
    if sum(line.startswith("\u23fa") for line in lines) >= FEWEST:  # what Claude Code shows before an answer
        return _marked(lines, "> ")
    lower = "\n".join(lines).lower()
    drafting = enumerate(lines) if any(map(lower.__contains__, OF_DRAFTS)) else ()
    if drafts := [number for number, line in drafting if len(line) < 60 and DRAFTS.fullmatch(line)]:
        return {number: ("user", line) for number, line in enumerate(lines) if line.startswith("#")} | dict.fromkeys(
            drafts, ("assistant", "")
        )
    if any("[/INST]" in line for line in lines):
        return _instructions(lines)
    return {}


def refuse_unmarked(text: str) -> None:
    """Raises NotANote for a chat of gptel: which characters are the assistant's stands in numbers that edits make wrong."""
    ends = text[:4000] + "\n" + text[-1000:]
    if "gptel" in ends.lower() and GPTEL.search(ends):
        raise NotANote("chats with an assistant whose turns are not marked")


def without_generated(lines: list[str], removed: Counter) -> list[str]:
    """The lines without those under a heading or an item of an outline that says that an assistant wrote them."""
    kept, count = without_sections(lines, HEADING, lambda match: is_generated(match[2]))
    for number, line in enumerate(kept):
        if "<" in line and (folded := FOLDED.search(line)) and is_generated(folded[1]):
            end = next((place for place in range(number, len(kept)) if "</details>" in kept[place]), number)
            begin = number - (number > 0 and kept[number - 1].strip().lower().startswith("<details"))
            kept[begin : end + 1] = [""] * (end + 1 - begin)
            count += 1
    depth = -1  # of the label whose items are cut
    for number, line in enumerate(kept):
        text = line.lstrip()
        indent = len(line) - len(text)
        if depth >= 0 and text and indent <= depth:
            depth = -1
        item = ITEM.fullmatch(line) if depth < 0 and text.startswith(("-", "*", "+")) else None
        if item and len(item[2].split()) <= 6 and is_generated(item[2]):
            depth, count = indent, count + 1
        if depth >= 0:
            kept[number] = ""
    if count:
        removed["texts of an assistant"] += count
    return kept


def _marked(lines: list[str], mark: str) -> Turns:
    """The owner's lines begin with `mark`, all others are the assistant's."""
    turns: Turns = {0: ("assistant", "")}
    own = False
    for number, line in enumerate(lines):
        if line.startswith(mark):
            turns[number], own = ("user", line[len(mark) :]), True
        elif own and line.strip():
            turns[number], own = ("assistant", ""), False
    return turns


def _instructions(lines: list[str]) -> Turns:
    turns: Turns = {}
    for number, line in enumerate(lines):
        opening = INSTRUCTION.match(line)
        if opening:
            text, closing, _ = opening["text"].partition("[/INST]")
            turns[number] = ("user", text)
            if closing and number + 1 < len(lines):
                turns[number + 1] = ("assistant", "")
        elif "[/INST]" in line:
            turns[number] = ("assistant", "")
    return turns
