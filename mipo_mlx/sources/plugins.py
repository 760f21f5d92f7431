"""Files in a vault that a plug-in keeps, known by their front matter: what is the owner's in them, and what is not.

Drawings keep the text that was written into them. Prompts for assistants, articles that were clipped from the web and
highlights of books are other people's text, and no notes.
"""

import re
from collections import Counter
from typing import Any

from .forms import without_sections
from .note import NotANote
from .voice import first_person

PROMPTS = ("copilot-command", "promptinfo", "system_commands_template", "smart-prompt")  # beginnings of keys
DRAWINGS = ("tldraw-file", "excalibrain", "ink-file", "handwritten-ink")
PLACE = {
    "source",
    "url",
    "link",
    "source_url",
    "source-url",
    "sourceurl",
    "original",
    "original_url",
    "clipped_from",
    "uri",
    "webpage",
}
WRITTEN_BY = {
    "author",
    "authors",
    "published",
    "site",
    "site_name",
    "sitename",
    "publisher",
    "byline",
    "publication",
    "clipped",
    "domain",
}
CLIPPED = {
    "clipping", "clippings", "webclip", "web-clip", "webclipping", "web-clipping", "article", "articles", "readwise", "omnivore",
    "pocket", "instapaper", "raindrop", "hypothesis", "highlights", "kindle", "matter", "readlater", "read-later",
}  # fmt: skip
HIGHLIGHTS = re.compile(r"^#{1,3} (?:New )?Highlights\b.*$", re.MULTILINE)
METADATA = re.compile(r"^\s*(?:[-*] )?(?:\*\*)?(?:Full Title|Author|Category|ASIN|Reference)(?:\*\*)?::? ", re.MULTILINE)
SOURCE = re.compile(
    r"^[ \t>*_]*(?:source|quelle|fuente|fonte|bron|original|источник|来源|出典)[*_]*[:：][*_]* *<?https?://\S+$", re.M | re.I
)
CATALOGUED = {"isbn", "isbn10", "isbn13", "isbn_10", "isbn_13", "imdb", "imdbid", "imdb_id", "tmdb", "tmdb_id", "igdb", "goodreads"}
BLURB = re.compile(  # the heading of what a catalogue says of a book or a film
    r"#{1,6} +\W*(?:abstract|description|summary|synopsis|plot|overview|blurb|about(?: the author)?|beschreibung|klappentext"
    r"|inhalt|handlung"
    r"|descripción|sinopsis|argumento|résumé|intrigue|descrizione|trama|descrição|sinopse|内容简介|简介|あらすじ|内容紹介|줄거리)\W*",
    re.IGNORECASE,
)
KINDLE = re.compile(r"^- [^\n|]{4,80} \| [^\n]{6,120}$", re.MULTILINE)
REMARK = re.compile(r"- .*?(?:\b(?:note|notiz|nota|notitie|anteckning|notatka|not)\b|заметк|メモ|笔记|筆記|메모)", re.IGNORECASE)
CARDS = re.compile(
    r"\A(?:#(?:separator|html|guid column|notetype column|deck column|tags column|columns|deck|notetype):.*\n){2,}"
)  # of Anki
PAPERS = {"citekey", "citation-key", "citationkey", "zotero-key", "zotero_key", "itemkey", "zotero", "doi", "arxiv", "pmid"}
ABSTRACT = re.compile(r"^> ?\[!abstract\][^\n]*(?:\n>[^\n]*)*", re.MULTILINE | re.IGNORECASE)
HEADING = re.compile(r"#{1,6} (.*)|%%.*")
SIGNS = re.compile(r"(#+)")
TEXT_ELEMENTS, DATA = "text elements", ("excalidraw data", "element links", "embedded files", "embedded images", "drawing")


def own_part(matter: dict[str, Any], body: str, removed: Counter) -> str:
    """`body` without what a plug-in put there, line breaks kept. Raises NotANote for a file that holds nothing of its owner's."""
    keys = {str(key).lower(): value for key, value in matter.items()}
    if any(key.startswith(PROMPTS) for key in keys):
        raise NotANote("prompts for assistants")
    if keys.keys() & set(DRAWINGS):
        raise NotANote("drawings without text")
    if _is_clipping(keys):
        raise NotANote("articles clipped from the web")
    if (
        "kindle-sync" in keys
        or str(keys.get("doc_type")).startswith("hypothesis")
        or "Highlights" in body
        and HIGHLIGHTS.search(body)
        and len(METADATA.findall(body)) >= 2
    ):
        raise NotANote("highlights of books and articles")
    cited = any(
        re.match(r"[\"'<]*https?://", str(keys.get(key))) for key in ("source", "source_url", "source-url", "quelle", "fuente")
    )
    if (cited or "://" in body[:600] and SOURCE.search(body[:600])) and not first_person(body):
        raise NotANote("articles clipped from the web")
    if keys.keys() & (CATALOGUED | PAPERS):
        body = _without_blurbs(ABSTRACT.sub(lambda match: "\n" * match[0].count("\n"), body), removed)
    if "excalidraw-plugin" in keys or "excalidraw-plugin" in body[:400] and "# Text Elements" in body:
        removed["parts of drawings"] += 1
        return _drawing(body)
    return body


def without_clippings(text: str) -> str:
    """The text without the highlights of an e-book reader: entries of a title, a line with a date behind a bar, and the words.

    The remarks that its owner typed there stay. Raises NotANote where there is none, and for cards that Anki exported.
    """
    if CARDS.match(text):
        raise NotANote("cards to learn by heart")
    if text.count("\n==========") < 2 or len(KINDLE.findall(text[:20_000])) < 2:
        return text
    entries = [entry.lstrip("\n\ufeff") for entry in text.split("\n==========")]
    parts = [entry.split("\n", 2) for entry in entries]
    own = [part[2].strip() for part in parts if len(part) == 3 and REMARK.match(part[1].partition("|")[0])]
    if not own:
        raise NotANote("highlights of books and articles")
    return "\n\n".join(own)


def _without_blurbs(body: str, removed: Counter) -> str:
    """The note on a book or a film without what its catalogue says of it, line breaks kept."""
    lines, count = without_sections(body.split("\n"), SIGNS, lambda match: BLURB.fullmatch(match.string.rstrip()))
    if count:
        removed["texts of catalogues"] += count
    return "\n".join(lines)


def tags_of(matter: dict[str, Any]) -> set[str]:
    """The tags of front matter, lower case, without #: a list, or words between commas or spaces."""
    tags: set[str] = set()
    for key in ("tags", "tag", "keywords", "categories", "category"):
        value = next((value for name, value in matter.items() if str(name).lower() == key), None)
        several = value if isinstance(value, list) else re.split(r"[,\s]+", value) if isinstance(value, str) else []
        tags |= {str(tag).lstrip("#").strip().casefold() for tag in several if str(tag).strip()}
    return tags


def _is_clipping(keys: dict[str, Any]) -> bool:
    """A page's address in the front matter, and beside it its author, its date or a tag of clippings."""
    addresses = [str(value) for key, value in keys.items() if key in PLACE]
    if not any(re.match(r"[\"'<\[]*https?://", address) for address in addresses):
        return False
    kinds = tags_of(keys) | {str(keys.get(key)).casefold() for key in ("type", "kind")}
    return any(keys.get(key) for key in WRITTEN_BY) or bool(kinds & CLIPPED)


def _drawing(body: str) -> str:
    """What was written into an Excalidraw drawing, and above its data; element ids are cut with the other marks of blocks."""
    lines = body.split("\n")
    own = True
    for number, line in enumerate(lines):
        heading = HEADING.fullmatch(line.strip())
        if heading:
            name = (heading[1] or "drawing").strip().lower()
            own = name == TEXT_ELEMENTS or (own and name not in DATA)
        if not own or (heading and name == TEXT_ELEMENTS) or "EXCALIDRAW VIEW" in line:
            lines[number] = ""
    return "\n".join(lines)
