"""Chats that were saved as a page: Telegram's export and Google's list of prompts to Gemini."""

import re
from html import unescape
from html.parser import HTMLParser

from ..note import Note, Skip, Tally
from ..note_file import NoteFile
from .exports import activity_prompts
from .messengers import notes_of_days, owner_of

VOID = {"br", "img", "hr", "input", "meta", "link", "source"}
CELL = re.compile(r"<div class=\"content-cell[^\"]*mdl-typography--body-1\">(.*?)<br", re.DOTALL)
TAG = re.compile(r"<[^<>]*>")


def read_chat(text: str, file: NoteFile, tally: Tally, me: str | None) -> list[Note] | None:
    """The notes of a chat that was saved as a page; None for another page. Raises Skip where the owner is not known."""
    head = text[:200_000]
    if 'class="from_name"' in head and "message default" in head:
        parser = _Telegram()
        parser.feed(text)
        parser.close()
        user = owner_of([writer for _, _, writer, _ in parser.messages], me, file)
        tally.removed["messages of others"] += sum(writer != user for _, _, writer, _ in parser.messages)
        return notes_of_days(((line, day, words) for line, day, writer, words in parser.messages if writer == user), file)
    if "content-cell" in head and re.search("gemini|bard", head, re.IGNORECASE):
        titles = [unescape(TAG.sub("", cell)).strip() for cell in CELL.findall(text)]
        return notes_of_days(activity_prompts((title, "") for title in titles if title), file)
    if re.search(r"class=\"[^\"]*(?:message|chat)[^\"]*\"", head) and re.search(
        r"class=\"[^\"]*(?:from|sender|author|user)[-_]?name", head
    ):
        raise Skip("looks like a chat that was saved as a page; export it as text or JSON instead")
    return None


class _Telegram(HTMLParser):
    """(line, day, writer, text) of each message; one without a name is the last writer's."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.messages: list[tuple[int, str, str, str]] = []
        self.open: list[str] = []  # the kind of each open element: name, text, forwarded or ''
        self.writer, self.day, self.parts, self.line = "", "", list[str](), 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in VOID:
            if tag == "br" and "text" in self.open:
                self.parts.append("\n")
            return
        values = dict(attrs)
        classes = (values.get("class") or "").split()
        if "date" in classes and values.get("title"):
            self.day = values["title"].split(" ")[0]
        kind = (
            "name" if "from_name" in classes else "text" if classes == ["text"] else "forwarded" if "forwarded" in classes else ""
        )
        if kind in ("name", "text"):
            self.parts, self.line = [], self.getpos()[0]
        self.open.append(kind)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or not self.open:
            return
        kind = self.open.pop()
        words = "".join(self.parts).strip()
        if kind == "name" and "forwarded" not in self.open:
            self.writer = words
        elif kind == "text" and words and "forwarded" not in self.open:
            self.messages.append((self.line, self.day, self.writer, words))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("name", "text") or "text" in self.open:
            self.parts.append(data)
