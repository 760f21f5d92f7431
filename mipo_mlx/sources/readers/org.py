"""Org-mode: each line becomes a line of Markdown, so that blocks keep their place in the file."""

import re

from ..licences import refuse_list
from ..note import Note, Tally
from ..note_file import NoteFile
from .plain import labels, markdown_blocks, title_of
from .saved_chats import refuse_unmarked

HEADING = re.compile(r"^(\*+)\s+(?:(?:TODO|DONE|NEXT|WAITING|CANCELLED|CANCELED|HOLD|SOMEDAY)\s+)?(?:\[#\w\]\s*)?(.*)$")
TAGS = re.compile(r"\s+:[\w@#%:]+:\s*$")
TAGGED = re.compile(r"(?:^#\+FILETAGS:|^\*+ .*?)[ \t]+(:[\w@#%:]+:)[ \t]*$", re.MULTILINE | re.IGNORECASE)
MACRO = re.compile(r"\{\{\{[^{}\n]{0,400}\}\}\}")
STAMP = re.compile(r"[<\[]\d{4}-\d\d-\d\d[^>\]\n]*[>\]](?:--[<\[]\d{4}-\d\d-\d\d[^>\]\n]*[>\]])?")
PLANNING = re.compile(r"^\s*(?:SCHEDULED|DEADLINE|CLOSED|CLOCK):")
LINK = re.compile(r"\[\[([^\[\]]+)\](?:\[([^\[\]]+)\])?\]")
KEYWORD = re.compile(r"^\s*#\+(\w+):\s*(.*)$")
BLOCK = re.compile(r"^\s*#\+(begin|end)_(\w+)", re.IGNORECASE)
OTHERS = ("quote", "response")  # blocks with the words of others: a quote, what an assistant answered
RESULT = re.compile(r"\s*: |\s*:$")  # what a program printed
DRAWER = re.compile(r"^\s*:[\w-]+:\s*$")
EMPHASIS = re.compile(r"(?<![\w*/=~+])([*/=~+])(\S(?:[^\n]{0,200}?\S)?)\1(?![\w*/=~+])")
ITEM = re.compile(r"^(\s*)[-+]\s+(?:\[[ X-]\]\s+)?")
IMAGE = re.compile(r"\.(?:png|jpe?g|gif|svg|webp)$", re.IGNORECASE)


def read_org(file: NoteFile, tally: Tally) -> list[Note]:
    text = file.text(tally)
    refuse_list(text)
    refuse_unmarked(text)
    title, written = to_markdown(text)
    _, blocks = markdown_blocks(file, tally, written)
    tags = {f"#{tag.casefold()}" for line in TAGGED.findall(text) for tag in re.findall(r"[\w@%]+", line)}
    return [Note(file.source, file.source, title_of(title, blocks, file.path), blocks, labels=labels({}, "") | tags)]


def to_markdown(text: str) -> tuple[str, str]:
    """(#+TITLE, the same number of lines as Markdown)."""
    title, lines = "", []
    drawer = comment = quote = False
    fence = ""
    for line in text.split("\n"):
        if not (drawer or comment or quote or line.strip()):
            lines.append(line)
            continue
        mark = BLOCK.match(line)
        keyword = KEYWORD.match(line)
        if drawer or DRAWER.match(line):
            drawer = line.strip().upper() != ":END:"
            lines.append("")
        elif mark:
            kind = mark[2].lower()
            comment = kind == "comment" and mark[1].lower() == "begin"
            quote = kind in OTHERS and mark[1].lower() == "begin"
            if kind in ("src", "example", "export"):
                fence = "```" if mark[1].lower() == "begin" else ""
                lines.append("```")
            else:
                lines.append("")
        elif fence:
            lines.append(line)
        elif keyword:
            title = keyword[2].strip() if keyword[1].upper() == "TITLE" else title
            lines.append("")
        elif comment or RESULT.match(line) or PLANNING.match(line) or line.startswith("# ") or re.fullmatch(r"\s*#|\s*-{5,}", line):
            lines.append("")
        else:
            lines.append(f"> {line}" if quote else _line(line))
    return title, "\n".join(lines)


def _line(line: str) -> str:
    heading = HEADING.match(line)
    if heading:
        line = TAGS.sub("", heading[2])
    line = MACRO.sub("", line)
    line = LINK.sub(lambda m: "" if IMAGE.search(m[1]) else m[2] or m[1].removeprefix("file:"), STAMP.sub("", line))
    line = EMPHASIS.sub(lambda m: f"`{m[2]}`" if m[1] in "=~" else m[2], line)
    if heading:
        return f"{'#' * min(6, len(heading[1]))} {line}"
    line = ITEM.sub(r"\1- ", line)
    if not line.lstrip().startswith("|"):
        return line
    cells = [] if re.fullmatch(r"\s*\|[-+|]+\s*", line) else [cell.strip() for cell in line.split("|")]
    return ", ".join(cell for cell in cells if cell)
