"""The words of others within a note: block quotes, quoted and forwarded mail, epigraphs, quotations.

Lines that quote are cut from the text before Markdown is parsed; a MARK stays where they stood, so that what announces a quote
("As Thoreau wrote:") and what signs it ("- Thoreau, Walden") go too. Paragraphs that are nothing but a quotation are cut from
the blocks.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from ..text.words import split_sentences
from .note import Block
from .quoted_mail import announcement, mail_end, may_have_mail

MARK = "\ue000"  # a private character: no writing has it
QUOTE = re.compile(r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?((?:>[ \t]?)+)(.*)")
CALLOUT = re.compile(r"\[!([\w -]{1,40})(?:\|[^\]\n]{0,80})?\][+-]?(.*)")
# Callouts whose text is another's; those of all other kinds are the owner's own notes.
OTHERS = re.compile(
    r"quote|cite|quotation|blockquote|pdf|.*(?:agent|assistant|chatgpt|\bai\b|\bllm\b|\bbot\b|claude|gemini|copilot).*",
    re.IGNORECASE,
)
MACHINE = r"(?:ai|ki|ia|llm|(?:chat ?)?gpt[\w.-]*|claude|gemini|copilot|notebooklm|perplexity|人工智能|人工知能)"
TEXT = (
    "summar(?:y|ies)|summari[sz]ed|generated|written|insights?|overview|zusammenfassung|generiert|résumé|généré|resumen|generado|riassunto"
    "|generato|resumo|gerado|samenvatting|сводка|总结|摘要|生成|要約|요약"
)
GENERATED = re.compile(  # "AI Summary", "Zusammenfassung von ChatGPT", "AI-generated"; what stands under it is the assistant's
    rf"(?<![^\W_])(?:{MACHINE}[ _-]{{0,2}}(?:{TEXT})"
    rf"|(?:{TEXT}) ?(?:by|from|of|with|von|mit|de|par|por|di|da|door|van|от|\() ?{MACHINE})(?![^\W_])",
    re.IGNORECASE,
)
ANSWER = re.compile(  # the same as the whole of a label: "AI Answer", "ChatGPT's response"; "Why AI answers tire me" is the owner's
    rf"{MACHINE}(?:['’]s)?[ /_-]{{0,2}}(?:answers?|responses?|reply|replies|outputs?|antwort(?:en)?|réponses?|respuestas?"
    r"|risposta|resposta|ответ|回答|回复|答え|応答|답변)",
    re.IGNORECASE,
)
# A link to a place in a book or a page, which programs put behind what was marked there.
IN_A_BOOK = re.compile(
    r"(?:zotero|kindle|calibre|marginnote\d?app|skim)://|readwise\.io/(?:to_kindle|open)|//hyp\.is/|\[View (?:Highlight|Tweet)\]\("
)
OF_BOOKS = ("zotero:", "kindle:", "calibre:", "app:", "skim:", "readwise.io/", "//hyp.is/", "[View ")  # each match has one
# A box of MkDocs: its text stands four columns further in.
BOX = re.compile(r"([ \t]*)(?:!{3}|\?{3}\+?) ([\w-]{1,40})(?: [^\n]{0,200})?")
SENTENCE_ENDS = tuple('.!?…。！？"”»)')

OPENING, CLOSING = '"“„«‹»「『', '"”“»›«」』'
QUOTATION = re.compile(
    rf"(?:[-•*]\s+)?[*_]{{0,3}}[{OPENING}][^\n]+[{CLOSING}][.,]?[*_]{{0,3}}(?P<by>\s*(?:[—–―~-]{{1,3}}|\(|by )\s*\S.{{0,100}})?"
)
SIGNED = re.compile(r"(?:[-•*]\s+)?[*_]{0,3}\s*(?:[—–―~]|--)\s*[*_]{0,3}(?P<name>[^\W\d_a-z][^.!?\n]{1,80})[.*_]{0,4}")
NAME = re.compile(r"(?:[^\W\d_a-z][\w.’'-]*(?:, | |$)(?:(?:of|the|de|von|van|du|la|in|and|&) )*){2,8}")
# What names the source of a quotation, directly behind it: names and dates, and not a verb ("..." said Ada).
BEHIND = re.compile(
    rf"(?:[-•*]\s+)?[{OPENING}](?P<inside>[^\n{OPENING}{CLOSING}]{{30,3000}})[{CLOSING}][.,]?[*_]{{0,3}}\s+(?P<by>\S.{{2,100}})"
)
A_SOURCE = re.compile(
    r"[,;/|·()\s]*+(?:(?:[^\W\d_a-z][\w.’'-]*+|\d[\d./:-]*+|of|the|de|von|van|du|la|in|and|&)[,;/|·()\s]*+){2,14}"
)
MARKS = frozenset('"“”„«»「」')
STRAIGHT = re.compile(r"\"[^\"\n]{1,2000}\"")  # in text that has no other marks
WITHIN = re.compile(
    r"»[^«»\n]{1,2000}«|[\"“„«「][^\"“”»」\n]{1,2000}[\"“”»」]|[“「][^\"“”»」\n]{1,2000}$|^[^\"“”„«»「」\n]{1,2000}[”」]",
    re.MULTILINE,
)
FEWEST = 8  # words of a quotation without a name; a shorter one ("No way!") is speech in the owner's own story


def cut_lines(text: str, removed: Counter) -> str:
    """`text` with a MARK in place of the first line of every quote, and its other lines empty."""
    if "!!! " in text or "??? " in text or "???+ " in text:
        text = _boxes(text, removed)
    in_a_book = any(map(text.__contains__, OF_BOOKS)) and IN_A_BOOK.search(text)
    if not in_a_book and ">" not in text and not may_have_mail(text):
        return text
    lines = text.split("\n")
    number, fenced = 0, False
    while number < len(lines):
        line = lines[number]
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if not fenced and (end := mail_end(lines, number)):
            removed["quoted mails"] += 1
            lines[number:end] = [MARK, *[""] * (end - number - 1)]
            number = end
        elif in_a_book and not fenced and (begin := _begin_of_highlight(lines, number)) is not None:
            removed["quotes"] += 1
            number += 1
            lines[begin:number] = [MARK, *[""] * (number - begin - 1)]
        elif not fenced and (match := QUOTE.fullmatch(line)):
            number = _quote(lines, number, match, removed)
        else:
            number += 1
    return "\n".join(lines)


def _begin_of_highlight(lines: list[str], number: int) -> int | None:
    """The line on which what was marked in a book or a page begins, where its link ends this line; else None."""
    line = lines[number]
    mark = IN_A_BOOK.search(line) if "://" in line else None
    if mark and mark[0].startswith("["):  # Readwise's link closes an item of several paragraphs
        return _begin_of_item(lines, number)
    return number if mark and len(line.partition("://")[0].split()) > 4 else None


def _begin_of_item(lines: list[str], number: int) -> int:
    """The line on which the item of a list begins that a line belongs to; the line itself outside of a list."""
    for begin in range(number, -1, -1):
        line = lines[begin]
        if line == MARK or not _goes_on(line):
            return begin
        if line.strip() and not line[0].isspace():
            break
    return number


def _boxes(text: str, removed: Counter) -> str:
    """`text` with a MARK in place of each box that quotes, and with the text of other boxes in line with what is around them."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        box = BOX.fullmatch(lines[number])
        number += 1
        if not box:
            continue
        begin, deeper = number, (f"{box[1]}    ", f"{box[1]}\t")
        while number < len(lines) and (not lines[number].strip() or lines[number].startswith(deeper)):
            number += 1
        quoted = bool(OTHERS.fullmatch(box[2]))
        removed["quotes"] += quoted
        lines[begin - 1] = MARK if quoted else ""
        inside = lines[begin:number]
        lines[begin:number] = ["" if quoted else re.sub(rf"^{box[1]}(?: {{4}}|\t)", box[1], line) for line in inside]
    return "\n".join(lines)


def _quote(lines: list[str], begin: int, match: re.Match, removed: Counter) -> int:
    """Cut the quote that begins on a line, or keep a callout's own text; returns the line behind it."""
    callout = CALLOUT.match(match[2])
    end = begin + 1
    above = announcement(lines, begin)
    lines[above:begin] = [""] * (begin - above)
    while (
        end < len(lines) and (inner := QUOTE.fullmatch(lines[end])) and not (CALLOUT.match(inner[2]) and inner[1].count(">") == 1)
    ):
        end += 1
    if not callout or OTHERS.fullmatch(callout[1].strip()) or is_generated(callout[2]):
        # The lines of a wrapped quote need no mark: they belong to it until a sentence ends.
        while (
            end < len(lines) and lines[end].strip() and not lines[end - 1].rstrip().endswith(SENTENCE_ENDS) and _goes_on(lines[end])
        ):
            end += 1
        removed["quotes"] += 1
        lines[begin:end] = [f"{MARK}", *[""] * (end - begin - 1)]
        return end
    depth = match[1].count(">")
    lines[begin] = callout[2].strip()
    within = False
    for number in range(begin + 1, end):
        inner = QUOTE.fullmatch(lines[number])
        deeper = bool(inner and inner[1].count(">") > depth)
        if inner and not deeper:
            lines[number] = inner[2]
        elif inner:
            own = CALLOUT.match(inner[2])
            if own and not OTHERS.fullmatch(own[1].strip()):
                lines[number] = own[2].strip()
            else:
                removed["quotes"] += not within
                lines[number] = "" if within else MARK
        within = deeper
    return end


def is_generated(label: str) -> bool:
    """Whether a heading or another label says that an assistant wrote what stands beneath it."""
    return bool(GENERATED.search(label) or ANSWER.fullmatch(label.strip(" \t*_#[]:：")))


def _goes_on(line: str) -> bool:
    return not re.match(r"[ \t]*(?:[-*+#|]|\d{1,9}[.)][ \t]|```)", line)


def settle(block: Block) -> Block:
    """A block without the MARKs of quotes, what announces them and what signs them; a MARK where nothing else is left."""
    if MARK not in block.text:
        return block
    kept: list[str] = []
    for place, part in enumerate(block.text.split(MARK)):
        part = part.strip()
        if place and (SIGNED.fullmatch(part) or part in "-—–"):
            part = ""
        if kept and kept[-1].endswith(":"):
            kept[-1] = announced(kept[-1])
        kept.append(part)
    text = " ".join(part for part in kept if part)
    return replace(block, text=text or MARK, linked=min(block.linked, len(text)), code=min(block.code, len(text)))


def announced(text: str) -> str:
    """`text` without its last sentence where that ends in a colon: what it announces was cut."""
    return " ".join(split_sentences(text)[:-1]) if text.endswith(":") else text


def own_blocks(blocks: list[Block], removed: Counter) -> list[Block]:
    """The blocks without quotations: paragraphs within quotation marks, and what stands above a name behind a dash."""
    kept: list[Block] = []
    for block in blocks:
        text = "" if block.level or block.text == MARK else block.text
        if text and SIGNED.fullmatch(text) and len(text.split()) <= 10 and _can_be_quoted(kept, removed):
            continue
        if text and _is_quotation(text):
            removed["quotations"] += 1
            if kept and not kept[-1].level and kept[-1].text.endswith(":") and (rest := announced(kept[-1].text)) != kept[-1].text:
                kept[-1:] = [replace(kept[-1], text=rest)] if rest else []
            kept.append(replace(block, text=MARK))
            continue
        kept.append(block)
    return [block for block in kept if block.text != MARK]


def _is_quotation(text: str) -> bool:
    if text.isascii() and '"' not in text:  # all other marks and dashes of quotations are beyond ASCII
        return False
    behind = BEHIND.fullmatch(text)
    if behind and len(behind["inside"].split()) >= FEWEST and A_SOURCE.fullmatch(behind["by"]):
        return True
    match = QUOTATION.fullmatch(text)
    if match:
        inner = text[: match.start("by")] if match["by"] else text
        opened = sum(inner.count(char) for char in '"')
        closing = "“" if inner.lstrip("-•* _")[:1] == "„" else ""  # of German, Czech and others
        begun = sum(inner.count(char) for char in "“„«「" if char != closing)
        alone = opened in (0, 2) and begun <= 1  # not `"Yes," I said, "but ..."`
        return alone and (bool(match["by"]) or len(text.split()) >= FEWEST or len(text) >= 40 and " " not in text)
    # `Not all who wander are lost. — J. R. R. Tolkien`
    words, dash, name = max((text.rpartition(dash) for dash in "—–―"), key=lambda parts: len(parts[0]))
    return bool(dash and words.rstrip().endswith(SENTENCE_ENDS) and len(name) <= 100 and NAME.fullmatch(name.strip()))


def _can_be_quoted(kept: list[Block], removed: Counter) -> bool:
    """Take the paragraph above a name off `kept`, where it can be a quotation: at the beginning of a note or a section."""
    if not kept or kept[-1].level:
        return bool(kept)
    if kept[-1].text == MARK:
        return True
    texts = sum(not block.level for block in kept)
    if texts <= 1 or kept[-2].level:
        removed["quotations"] += 1
        kept[-1:] = []
        return True
    return False


def outside_quotations(text: str) -> Iterator[str]:
    """The stretches of a text that stand outside quotation marks. A quotation may begin or end beyond a line of the text."""
    at = 0
    if MARKS.isdisjoint(text):
        yield text
        return
    for match in (STRAIGHT if text.isascii() else WITHIN).finditer(text):
        yield text[at : match.start()]
        at = match.end()
    yield text[at:]
