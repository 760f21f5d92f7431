"""Markdown to blocks of plain text: front matter, links, images, code, tables, and the marks of Obsidian and similar programs.

markdown-it-py parses. Its input has no wiki links, quotes, comments, tags and plug-in text any more: these are cut line for
line, so that every block keeps its place in the file.
"""

import re
from collections import Counter
from dataclasses import replace
from html import unescape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from .forms import between, cut, in_lines
from .matter import front_matter
from .note import Block
from .plugins import own_part
from .quoted import MARK, announced, cut_lines, own_blocks, settle

KEEP_CODE = 80  # characters: a shorter code block is part of the sentence, a longer one is left out
PARSER = MarkdownIt("commonmark", {"html": True, "maxNesting": 12}).enable("table")
PARSER.normalizeLink = lambda url: url  # type: ignore[method-assign]  # nobody reads where a link leads
MARKED_UP = re.compile(r"[*_`\[<&\\]")  # what CommonMark makes something of within a paragraph, beside line breaks


def _inline_marks(state: StateCore) -> None:
    """Parse the marks within paragraphs, in place of markdown-it's own step: a paragraph without any is one text, and quicker."""
    for token in state.tokens:
        if token.type == "inline" and MARKED_UP.search(token.content):
            token.children = []
            state.md.inline.parse(token.content, state.md, state.env, token.children)
        elif token.type == "inline":
            token.children = [Token("text", "", 0, content=token.content.replace("\n", " "))]


PARSER.core.ruler.at("inline", _inline_marks)

EMBED = re.compile(r"!\[\[[^\[\]\n]*\]\]")
WIKI_LINK = re.compile(r"#?\[\[(?! )(?:[^\[\]|\n]*\|)?([^\[\]|\n]+)\]\]")
# A line of links to other notes and nothing else, as a list of links has it.
LINKS_ALONE = re.compile(
    r"^([ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)((?:#?\[\[[^\[\]\n]{1,300}\]\][ \t,;|/&·→-]*+)+)$", re.MULTILINE
)
HIGHLIGHT = re.compile(r"==(\S(?:[^=\n]*\S)?)==")
TAG_LINE = re.compile(r"^[ \t]*(?:tags:[ \t]*)?#[^\W\d][\w/-]*(?:[ \t,]+#[^\W\d][\w/-]*)*[ \t,]*$", re.MULTILINE | re.IGNORECASE)
TAG = re.compile(r"#(?<![\w#&/]#)([^\W\d_][\w/-]*)")
ADDRESS = re.compile(r"\b(?:https?|ftp)://(?:[^\s/@]*@)?(?:www\.)?([^\s/<>()\"'`]+)[^\s<>\"'`]*|\bwww\.([^\s/<>()]+)[^\s<>]*")
HTML_TAG = re.compile(r"<[^<>]+>")
HTML_HEADING = re.compile(r"<h([1-6])(?:[ \t][^<>]{0,200})?>((?:[^<]|<(?!/?h[1-6])){0,300})</h[1-6]>", re.IGNORECASE)
IMAGE_TAG = re.compile(r"<(?:img|video|audio|iframe|embed|object)\b", re.IGNORECASE)
# Fences of diagrams, queries and plug-ins: none of them is a sentence, however short.
NO_WORDS = re.compile(
    r"mermaid|js-engine|dot|graphviz|plantuml|puml|ditaa|d2|dataview(?:js)?|tasks|query|base|kanban|excalidraw|compressed-json|json|ya?ml|toml|csv|math"
    r"|latex|tikz|chart|tracker|button|meta-bind.*|ad-.*|admonition|leaflet|map|timeline|toc|folder-overview|smart-.*|abc|lilypond|vega.*",
    re.IGNORECASE,
)
ENDLESS = 10_000  # characters of a paragraph that no person wrote as one: its marks are dropped, its words kept
DENSE, MARKED = 500, 0.3  # characters, and the share of marks among them, from which a paragraph counts as endless, too
MARK_CHARS = "[]!*_<&`\\~"
MARKS = re.compile(f"[{re.escape(MARK_CHARS)}]")
OWN_LINE = re.compile(r"[ \t]*(?:[-*+][ \t]|>|#{1,6}[ \t]|\d{1,9}[.)][ \t]|[-*+#]?$)")
DELIMITER = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")  # below a table's head
# What markdown-it takes for a filled line and for a sign, and what it may take for any text and for each character. In microseconds
# of a slow core.
A_LINE, A_SIGN, ANY_TEXT, A_CHARACTER = 70, 12, 500_000, 2.5
SIGNS = "!#$%&*+-:<=>@[\\]^_`{}~"
EMPHASIS = re.compile(r"[*`~\\]+")
HEADING = re.compile(r"[ \t]*(#{1,6})[ \t]+(.*)")
ITEM = re.compile(r"[ \t]*([-*+]|\d{1,9}[.)])[ \t]+(.*)")
BEGINNING = re.compile(r"[ \t]*(?:[-*+>]|#{1,6}|\d{1,9}[.)])?(?:[ \t]+|$)")
FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
HELD = re.compile("\ue001(\\d+)\ue001")  # stands for an endless paragraph
SPACE = re.compile(r"\s+")


def parse(text: str) -> tuple[dict[str, Any], list[Block], Counter]:
    """(front matter, blocks, what was cut out). Blocks carry line numbers of `text`; no block has a line break.

    Raises NotANote for a file that a plug-in keeps for itself.
    """
    matter, body, offset = front_matter(text)
    removed = Counter(["broken front matter"] if matter is None else [])
    body = own_part(matter or {}, body, removed)
    body = _plain(body, removed)
    if _is_slow(body):
        blocks = _Walker(removed, offset, []).by_lines(body)
    else:
        body, endless = _without_endless(body)
        blocks = _Walker(removed, offset, endless).walk(PARSER.parse(body))
    return matter or {}, own_blocks(blocks, removed), +removed


def _is_slow(text: str) -> bool:
    """Whether a long text has so many lines and signs that markdown-it would take long: lists of words, drawings of signs."""
    if len(text) * A_SIGN <= ANY_TEXT:
        return False
    lines = sum(bool(line.strip()) for line in text.split("\n"))
    return A_LINE * lines + A_SIGN * sum(map(text.count, SIGNS)) > ANY_TEXT + A_CHARACTER * len(text)


def _plain(text: str, removed: Counter) -> str:
    """`text` without the marks that CommonMark does not know, and without what is not its owner's; line breaks stay."""
    text = cut_lines(cut(text, removed), removed)
    for opening, closing in (("<script", "</script>"), ("<style", "</style>")):
        text, _ = between(text, opening, closing)
    text, quotes = between(text, "<blockquote", "</blockquote>")
    removed["quotes"] += quotes
    removed["images and embeds"] += len(IMAGE_TAG.findall(text)) if "<" in text else 0
    text, images = EMBED.subn("", text)
    removed["images and embeds"] += images
    if "[[" in text:
        text = LINKS_ALONE.sub(lambda match: match[1] + WIKI_LINK.sub(_as_link, match[2]), text)
        text = WIKI_LINK.sub(_link_text, text)
    text = in_lines(TAG_LINE, "", text, lambda line: "#" in line) if "#" in text else text
    return HIGHLIGHT.sub(r"\1", text) if "==" in text else text


def _link_text(match: re.Match) -> str:
    """What a reader sees of a wiki link: the name of the note, without the heading or block in it."""
    name, _, part = match[1].strip().partition("#")
    return name.strip() or part.strip("#^ ")


def _as_link(match: re.Match) -> str:
    """The same as a link of Markdown, so that its block counts as one of a list of links."""
    return f"[{_link_text(match)}](#)"


def _without_endless(text: str) -> tuple[str, list[str]]:
    """(`text` with a sign in place of each endless paragraph, these paragraphs without their marks).

    To parse them takes time that grows with the square of their length, or many microseconds a character.
    """
    if len(text) <= ENDLESS and _marks(text) <= MARKED * DENSE:
        return text, []
    lines, held = text.split("\n"), list[str]()
    begin, size, fence, table = 0, 0, "", False
    for number, line in enumerate([*lines, ""]):
        mark = FENCE.match(line)
        table = bool(line.strip()) and (table or "|" in line and bool(DELIMITER.fullmatch(line)))
        if OWN_LINE.match(line) or mark or fence or table:
            if not fence and (size > ENDLESS or size > DENSE and _marks(*lines[begin:number]) > MARKED * size):
                opening = BEGINNING.match(lines[begin])
                first = lines[begin][opening.end() :] if opening else lines[begin]
                held.append(MARKS.sub(" ", " ".join([first, *lines[begin + 1 : number]])))
                lines[begin:number] = [f"{opening[0] if opening else ''}\ue001{len(held) - 1}\ue001", *[""] * (number - begin - 1)]
            beside = mark or fence or not line.strip()
            begin, size = (number + 1, -len(line)) if beside else (number, 0)
            if mark and (not fence or mark[1].startswith(fence)):
                fence = "" if fence else mark[1]
        size += len(line)
    return "\n".join(lines), held


def _marks(*lines: str) -> int:
    return sum(line.count(char) for line in lines for char in MARK_CHARS)


class _Walker:
    """Turns markdown-it's flat token list into blocks."""

    def __init__(self, removed: Counter, offset: int, endless: list[str]) -> None:
        self.removed, self.offset, self.endless = removed, offset, endless
        self.blocks: list[Block] = []
        self.level = 0
        self.bullet = ""  # mark of the list item whose first paragraph comes next
        self.cells: list[Block] | None = None  # of the table row that is being read

    def walk(self, tokens: list[Token]) -> list[Block]:
        ordered: list[int | None] = []  # one entry for each open list: the next number, or None for bullets
        line = 0
        for token in tokens:
            line = token.map[0] if token.map else line
            kind = token.type
            if kind == "inline":
                self._inline(token, line)
            elif kind == "heading_open":
                self.level = int(token.tag[1:])
            elif kind == "heading_close":
                self.level = 0
            elif kind in ("fence", "code_block"):
                self._code(token, line)
            elif kind == "html_block":
                self._html(token, line)
            elif kind in ("bullet_list_open", "ordered_list_open"):
                ordered.append(int(token.attrGet("start") or 1) if kind == "ordered_list_open" else None)
            elif kind in ("bullet_list_close", "ordered_list_close"):
                ordered.pop()
            elif kind == "list_item_open":
                number = ordered[-1]
                self.bullet = "- " if number is None else f"{number}. "
                ordered[-1] = None if number is None else number + 1
            elif kind == "tr_open":
                self.cells = []
            elif kind == "tr_close":
                self._row(line)
        return self.blocks

    def by_lines(self, text: str) -> list[Block]:
        """The blocks of a text by the beginnings of its lines, in a fraction of markdown-it's time. Marks in a line are dropped."""
        for fence in ("\n```", "\n~~~"):
            text, count = between(text, fence, fence)
            self.removed["code blocks"] += count
        held: list[str] = []
        begin = 0
        for number, line in enumerate([*text.split("\n"), ""]):
            heading, item = HEADING.match(line), ITEM.match(line)
            if heading or item or not line.strip():
                if held:
                    words, linked = plain_text(MARKS.sub(" ", EMPHASIS.sub("", " ".join(held))))
                    self._add(Block(words, begin, linked=linked))
                held = []
            if heading:
                self._add(Block(heading[2], number, len(heading[1])))
            elif line.strip():
                begin = begin if held else number
                self.bullet = f"{item[1]} " if item else self.bullet if held else ""
                held.append(item[2] if item else line)
        return self.blocks

    def _add(self, block: Block) -> None:
        text = " ".join(block.text.split())
        if not text:
            return
        bullet = "" if block.level or self.cells is not None else self.bullet
        self.bullet = "" if not block.level else self.bullet
        target = self.blocks if self.cells is None else self.cells
        line = block.line + 1 + self.offset
        if text.startswith(MARK) and self.cells is None:
            self._leave_nothing_announced()
        own = settle(Block(text, line, block.level, min(block.linked, len(text)), min(block.code, len(text)), block.leads))
        if own.text == MARK:
            bullet = ""
        if own.text != MARK or self.cells is None:  # own_blocks takes the mark away
            target.append(replace(own, text=bullet + own.text) if bullet else own)

    def _html(self, token: Token, line: int) -> None:
        for place, part in enumerate(HTML_HEADING.split(token.content)):  # text, level, heading, text, ...
            if place % 3 == 1:
                level = int(part)
                continue
            text, addresses = plain_text(unescape(HTML_TAG.sub(" ", part)))
            linked = len(text) if "<a " in part else addresses
            begin = line + part.count("\n", 0, len(part) - len(part.lstrip()))
            self._add(Block(text, begin, level if place % 3 else 0, linked))
            line += part.count("\n")

    def _code(self, token: Token, line: int) -> None:
        content = token.content.strip()
        if content and len(content) <= KEEP_CODE and "\n" not in content and not NO_WORDS.fullmatch(token.info.strip(" {}")):
            self._add(Block(content, line, code=len(content)))
        elif content:
            self.removed["code blocks"] += 1
            self._leave_nothing_announced()

    def _leave_nothing_announced(self) -> None:
        """Cut "Then I ran this:" off the paragraph before code or a quote that is left out."""
        before = self.blocks[-1] if self.blocks else None
        if before and not before.level and before.text.endswith(":"):
            kept = announced(before.text)
            self.blocks[-1:] = [replace(before, text=kept)] if kept else []

    def _row(self, line: int) -> None:
        cells, self.cells = self.cells or [], None
        if cells:
            text = ", ".join(cell.text for cell in cells)
            self._add(Block(text, line, linked=sum(c.linked for c in cells), code=sum(c.code for c in cells)))

    def _inline(self, token: Token, line: int) -> None:
        if (held := HELD.fullmatch(token.content)) and int(held[1]) < len(self.endless):
            text, linked = plain_text(self.endless[int(held[1])])
            self._add(Block(text, line, self.level, linked))
            return
        parts: list[str] = []
        linked = code = depth = 0
        leads = False
        for child in token.children or []:
            piece = ""
            if child.type == "text":
                piece, addresses = plain_text(child.content)
                leads |= bool(addresses and not any(parts) and ADDRESS.match(child.content))
                linked += len(piece) if depth else addresses
            elif child.type == "code_inline":
                piece = child.content
                code += len(piece)
            elif child.type in ("softbreak", "hardbreak"):
                piece = " "
            elif child.type == "link_open":
                leads |= not any(parts)
                depth += 1
            elif child.type == "link_close":
                depth -= 1
            elif child.type == "image":
                self.removed["images and embeds"] += 1
            elif child.type == "html_inline" and child.content.lower().startswith("<br"):
                piece = " "
            parts.append(piece)
        self._add(Block("".join(parts), line, self.level, linked, code, leads))


def plain_text(text: str) -> tuple[str, int]:
    """(text with addresses shortened to their host and without the # of tags; characters of addresses)."""
    linked = 0

    def host(match: re.Match) -> str:
        nonlocal linked
        name = match[1] or match[2]
        linked += len(name)
        return name

    text = ADDRESS.sub(host, text) if "//" in text or "www." in text else text
    return TAG.sub(r"\1", text) if "#" in text else text, linked
