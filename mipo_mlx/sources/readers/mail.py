"""Mail: mbox folders and .eml files. Each mail of the user becomes a note, without quotes and signature."""

import email
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr

from ..decode import decode, is_me
from ..note import Note, Skip, Tally
from ..note_file import LIMIT, NoteFile
from ..quoted_mail import is_header, without_phone
from .html import parse_html
from .plain import paragraphs

EML_LIMIT = 32 << 20  # bytes; attachments are part of the file
LINE = 1 << 20  # bytes of a line that are read at once
SENT = re.compile(r"sent|gesendet|envoy|enviad|inviat|verzonden|skickat", re.IGNORECASE)
REPLY = re.compile(r"^(?:\s*(?:re|aw|fwd?|wg|sv|tr|rv)\s*(?:\[\d+\])?:\s*)+", re.IGNORECASE)


def read_mbox(file: NoteFile, tally: Tally, me: str | None = None) -> list[Note]:
    """The owner's mails in an mbox file; `line` is the mail's number in it."""
    return _notes(_mails(file, tally), file.source, tally, me, bool(SENT.search(file.stem)))


def read_eml(file: NoteFile, tally: Tally, me: str | None = None) -> list[Note]:
    return _notes([file.bytes(EML_LIMIT)], file.source, tally, me, bool(SENT.search(file.path.parent.name)))


def _mails(file: NoteFile, tally: Tally) -> Iterator[bytes]:
    """The bytes of each mail: it begins behind a line `From ...` at the beginning or after an empty line."""
    parts: list[bytes] = []
    size, empty = 0, True
    try:
        with file.open() as handle:
            while line := handle.readline(LINE):
                if empty and line.startswith(b"From "):
                    if parts:
                        yield b"".join(parts)
                    parts, size = [], 0
                elif size <= EML_LIMIT:
                    size += len(line)
                    parts.append(line)
                    if size > EML_LIMIT:  # its beginning has the words; attachments come behind
                        tally.removed["attachments of mails over 32 MB"] += 1
                empty = not line.strip()
    except OSError as error:
        raise Skip(f"cannot be read ({error.strerror})") from None
    if parts:
        yield b"".join(parts)


def _notes(mails: Iterable[bytes], source: str, tally: Tally, me: str | None, sent: bool) -> list[Note]:
    """`sent`: the folder's name says that the user wrote these mails."""
    notes, others = [], 0
    for number, data in enumerate(mails, 1):
        with tally.sparing("mails", f"{source}#{number}"):
            message = email.message_from_bytes(data)
            labels = _header(message, "X-Gmail-Labels")
            if not (_is_from(message, me) if me else sent or SENT.search(labels)):
                others += 1
                continue
            text = body(message, tally)
            if len(text) > LIMIT:  # a dump, not a letter
                tally.removed["ends of mails over 4 MB"] += 1
            blocks = paragraphs(own_words(text[:LIMIT]), removed=tally.removed)
            if blocks:
                title = REPLY.sub("", _header(message, "Subject")).strip()
                notes.append(Note(f"{source}#{number}", source, title, [replace(block, line=number) for block in blocks]))
    if others and not notes:
        raise Skip(f"no mail from {me} (sources.me)" if me else "whose mails are yours? write your address as sources.me")
    tally.left_alone["mails of others"] += others
    return notes


def _is_from(message: Message, me: str) -> bool:
    name, address = parseaddr(_header(message, "From"))
    return is_me(name, me) or is_me(address, me)


def _header(message: Message, name: str) -> str:
    try:
        return re.sub(r"\s+", " ", str(make_header(decode_header(message.get(name) or ""))))
    except (LookupError, ValueError, MessageError):
        return str(message.get(name) or "")


def body(message: Message, tally: Tally) -> str:
    """The plain text of a mail; its HTML as text where there is nothing else."""
    parts = {part.get_content_type(): part for part in reversed(list(_texts(message)))}
    if "text/plain" in parts:
        return _text(parts["text/plain"])
    if "text/html" in parts:
        return "\n\n".join(block.text for block in parse_html(_text(parts["text/html"]), tally)[1])
    return ""


def _texts(message: Message) -> Iterator[Message]:
    for part in message.walk():
        if not part.is_multipart() and part.get_content_disposition() != "attachment":
            yield part


def _text(part: Message) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    try:
        text = data.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):
        try:
            text = decode(data)[0]
        except Skip:
            return ""
    return text.replace("\r\n", "\n")


def own_words(text: str) -> str:
    """A mail's text without quotes, the lines that announce them, and the signature."""
    lines = text.split("\n")
    end = len(lines)
    for number, line in enumerate(lines):
        headers = " ".join(lines[number + 1 : number + 4])
        if line.rstrip("\n") in ("-- ", "--") or is_header(line) and ("@" in line or ":" in headers or "：" in headers):
            end = number
            break
    kept: list[str] = []
    for line in lines[:end]:
        if line.lstrip().startswith(">"):
            # "On Monday, Ana wrote:" in whatever language, on one line or wrapped over two or three.
            while kept and not kept[-1].strip():
                kept.pop()
            if kept and kept[-1].rstrip().endswith(":"):
                while kept and kept[-1].strip():
                    kept.pop()
            kept.append("")
        else:
            kept.append(line)
    return "\n".join(without_phone(kept))
