"""HTML pages and Apple Notes exported as HTML: headings, paragraphs, list items and table rows, with their lines."""

import re
from dataclasses import replace
from html.parser import HTMLParser

from ..forms import between, cut
from ..licences import WHY, is_of_a_package, refuse_licence
from ..markdown import KEEP_CODE, SPACE, plain_text
from ..matter import front_matter
from ..note import Block, NotANote, Note, Tally
from ..note_file import NoteFile
from ..quoted import own_blocks
from . import pages
from .dialogues import own_turns, without_others
from .plain import labels, own_title, stem_title

LIMIT = 16 << 20  # bytes
HIDDEN = {"script", "style", "head", "nav", "footer", "aside", "template", "svg", "button", "select", "noscript", "blockquote"}
BREAKS = {f"h{level}" for level in range(1, 7)} | set(
    "p div section article main header blockquote pre ul ol li table tr dl dt dd figure figcaption hr body".split()
)
VOID = set("br hr img input meta link wbr source area base col embed track".split())

CELL = 60  # characters
# What a browser or a program writes into a page of the web that it saves.
SAVED = re.compile(
    r"<!--\s*(?:saved from url=\(\d+\)https?:|Page saved with SingleFile|Mirrored from |Saved by .{0,30} from https?:)"
    r"|data-scrapbook-source=",
    re.IGNORECASE,
)
# Template code at the beginning of a line or of an attribute, and how often a page of a site's layout has it.
LAYOUT, LAYOUTS = re.compile(r"^[ \t]*(?:\{\{|\{%|<%)|=[\"'](?:\{\{|\{%|<%)", re.MULTILINE), 3


def read_html(file: NoteFile, tally: Tally, me: str | None = None) -> list[Note]:
    """The note of a page, or the owner's messages of a chat that was saved as a page."""
    text = file.text(tally, LIMIT)
    if (chat := pages.read_chat(text, file, tally, me)) is not None:
        return chat
    matter, body, offset = front_matter(text)  # of a page that a generator such as Jekyll reads
    if is_of_a_package(file.path):
        raise NotANote(WHY)
    if not matter and len(LAYOUT.findall(text)) >= LAYOUTS:
        raise NotANote("layouts of a site")
    if SAVED.search(text[:20_000]):
        raise NotANote("articles clipped from the web")
    if "<!doctype netscape-bookmark" in text[:200].lower():
        raise NotANote("bookmarks of a browser")
    title, blocks = parse_html("\n" * offset + body, tally)
    title = str((matter or {}).get("title") or title)
    refuse_licence("\n".join(block.text for block in blocks[:40]))
    lines = [f"{'#' * block.level} {block.text}" if block.level else block.text for block in blocks]
    own = without_others(own_turns(lines, tally.removed), file.stem, me, tally.removed)
    changed = zip(blocks, lines, own, strict=True)
    kept = [block if line == left else replace(block, text=left) for block, line, left in changed if left]
    return [
        own_title(Note(file.source, file.source, title or stem_title(file.path), kept, labels=labels(matter or {}, "\n".join(own))))
    ]


def parse_html(text: str, tally: Tally) -> tuple[str, list[Block]]:
    """(title, blocks) of a page, without scripts, menus, forms and the words of others."""
    parser = _Blocks(tally)
    text, properties = between(text, '<table class="properties">', "</table>")  # of a page of Notion's
    tally.removed["properties"] += properties
    parser.feed(_harmless(cut(text, tally.removed)))
    parser.close()
    parser.flush()
    heading = next((block.text for block in parser.blocks if block.level == 1), "")
    return heading or SPACE.sub(" ", parser.title).strip(), own_blocks(parser.blocks, tally.removed)


def _harmless(text: str) -> str:
    """`text` without what makes Python's parser slow: declarations, and `<` and `&` that begin nothing."""
    text, _ = between(text, "<![CDATA[", "]]>")
    text, _ = between(text, "<script", "</script>")
    text, _ = between(text, "<style", "</style>")
    text = re.sub(r"<[!?][^<>]{0,5000}>", " ", text)
    return re.sub(r"<(?!/?[A-Za-z][^<>]{0,5000}>)", " ", text)


class _Blocks(HTMLParser):
    def __init__(self, tally: Tally) -> None:
        super().__init__(convert_charrefs=True)
        self.tally, self.title = tally, ""
        self.blocks: list[Block] = []
        self.parts: list[str] = []
        self.line = 1
        self.linked = self.code = self.level = self.length = 0
        self.hidden = self.in_link = self.in_code = self.in_row = 0
        self.in_title = False
        self.lists: list[int] = []  # one entry for each open list: the next number, or -1 for bullets
        self.bullet = ""

    def flush(self) -> None:
        text = SPACE.sub(" ", "".join(self.parts)).strip()
        if text and self.code > KEEP_CODE and self.code > len(text) / 2:
            self.tally.removed["code blocks"] += 1
        elif text:
            bullet, self.bullet = ("", self.bullet) if self.level else (self.bullet, "")
            linked, code = min(self.linked, len(text)), min(self.code, len(text))
            self.blocks.append(Block(bullet + text, self.line, self.level, linked, code))
        self.parts, self.linked, self.code, self.length = [], 0, 0, 0

    def _inside_cell(self, tag: str) -> bool:
        """Whether this break is inside a table's cell of a few words; paragraphs of a page laid out by tables stay apart."""
        return self.in_row > 0 and tag in ("p", "div") and self.length < CELL

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "title":
            self.in_title = True
        if tag in HIDDEN:
            self.hidden += 1
            self.tally.removed["quotes"] += tag == "blockquote"
        self.in_row += tag == "tr"
        if tag in BREAKS and not self._inside_cell(tag):
            self.flush()
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self.level = int(tag[1])
        elif tag == "br":
            self.parts.append(" ")
        elif tag == "img":
            self.tally.removed["images and embeds"] += 1
        elif tag in ("ul", "ol"):
            self.lists.append(1 if tag == "ol" else -1)
        elif tag == "li":
            number = self.lists[-1] if self.lists else -1
            self.bullet = "- " if number < 0 else f"{number}. "
            if number > 0:
                self.lists[-1] += 1
        elif tag in ("td", "th") and self.length:
            self.parts.append(", ")
        self.in_link += tag == "a"
        self.in_code += tag in ("pre", "code", "samp", "kbd")

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if tag == "title":
            self.in_title = False
        self.in_row -= tag == "tr" and self.in_row > 0
        if tag in BREAKS and not self._inside_cell(tag):
            self.flush()
            self.level = 0
        if tag in HIDDEN:
            self.hidden = max(0, self.hidden - 1)
        if tag in ("ul", "ol") and self.lists:
            self.lists.pop()
        if tag == "li":
            self.bullet = ""
        self.in_link -= tag == "a" and self.in_link > 0
        self.in_code -= tag in ("pre", "code", "samp", "kbd") and self.in_code > 0

    def handle_data(self, data: str) -> None:
        if self.in_title:
            self.title += data
        if self.hidden:
            return
        if not self.length and data.strip():
            before = data[: len(data) - len(data.lstrip())]
            self.line = self.getpos()[0] + before.count("\n")
        text, addresses = (data, 0) if self.in_code else plain_text(data)
        self.parts.append(text)
        length = len(text.strip())
        self.length += length
        self.linked += length if self.in_link else addresses
        self.code += length if self.in_code else 0
