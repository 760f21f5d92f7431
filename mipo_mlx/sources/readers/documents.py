"""Word and PDF files, through mammoth and pypdf (the extra `documents`); a PDF's lines are its page numbers."""

import io
import logging
import re
from collections import Counter
from dataclasses import replace

from ..licences import refuse_licence
from ..note import Block, Note, Skip, Tally
from ..note_file import NoteFile
from .html import parse_html
from .plain import paragraphs, stem_title

LIMIT = 64 << 20  # bytes
EXTRA = "needs the extra documents; in the folder of mipo-mlx run: pip install -e '.[documents]'"
HYPHEN = re.compile(r"(?<=[a-zà-ÿ])-\n(?=[a-zà-ÿ])")
OPENING = re.compile(r"(?=<(?:p|h[1-6]|li|tr|ul|ol|table)\b)")
MIN_PAGES = 3  # before a line that repeats is taken for a running head


def read_docx(file: NoteFile, tally: Tally) -> list[Note]:
    """Headings, paragraphs, lists and tables of a Word file; `line` is the paragraph's number."""
    try:
        import mammoth
    except ImportError:
        raise Skip(EXTRA) from None
    data = file.bytes(LIMIT)
    try:
        html = mammoth.convert_to_html(io.BytesIO(data), convert_image=lambda _: []).value
    except Exception as error:  # zipfile, XML and key errors of its parts; all mean the same to the user
        raise Skip(f"not a Word file that can be read ({type(error).__name__})") from None
    title, blocks = parse_html("\n".join(part for part in OPENING.split(html) if part), tally)
    refuse_licence("\n".join(block.text for block in blocks[:40]))
    return [Note(file.source, file.source, title or stem_title(file.path), blocks)]


def read_pdf(file: NoteFile, tally: Tally) -> list[Note]:
    """The text of a PDF's pages, without running heads and page numbers."""
    try:
        import pypdf
    except ImportError:
        raise Skip(EXTRA) from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs every oddity of a file that it can read
    data = file.bytes(LIMIT)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Skip("encrypted; save a copy without a password")
        pages = [page.extract_text() or "" for page in reader.pages]
    except Skip:
        raise
    except Exception as error:  # broken files raise nearly anything, from recursion errors to struct errors
        raise Skip(f"not a PDF that can be read ({type(error).__name__})") from None
    blocks = [block for number, page in enumerate(_without_heads(pages), 1) for block in page_blocks(page, number)]
    if not blocks:
        raise Skip("no text in it (scanned pages?)")
    refuse_licence("\n".join(block.text for block in blocks[:40]))
    title = (reader.metadata.title or "").strip() if reader.metadata else ""
    return [Note(file.source, file.source, title or stem_title(file.path), blocks)]


def page_blocks(text: str, number: int) -> list[Block]:
    return [replace(block, line=number) for block in paragraphs(HYPHEN.sub("", text))]


def _without_heads(pages: list[str]) -> list[str]:
    """The pages without running heads and page numbers: lines that, but for numbers, stand on more than half of the pages."""

    def shape(line: str) -> str:
        return re.sub(r"\d+", "#", line.strip())

    count = Counter(line for page in pages for line in {shape(line) for line in page.split("\n")})
    heads = {line for line, times in count.items() if times > len(pages) / 2} if len(pages) >= MIN_PAGES else set()
    return ["\n".join(line for line in page.split("\n") if not line.strip() or shape(line) not in heads) for page in pages]
