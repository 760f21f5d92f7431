"""Mail: mbox folders and .eml files. Each mail of the user becomes a note, without quotes and signature."""

import email
import email.policy
import mailbox
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr
from pathlib import Path

from ..decode import decode, read_bytes
from ..note import Note, Skip, Tally
from .html import parse_html
from .plain import paragraphs

EML_LIMIT = 32 << 20  # bytes; attachments are part of the file
SENT = re.compile(r"sent|gesendet|envoy|enviad|inviat|verzonden|skickat", re.IGNORECASE)
REPLY = re.compile(r"^(?:\s*(?:re|aw|fwd?|wg|sv|tr|rv)\s*(?:\[\d+\])?:\s*)+", re.IGNORECASE)
# Outlook's header block above a quoted mail, or its line of dashes.
FORWARDED = re.compile(r"^\s*(?:-{2,}.{3,60}-{2,}|_{10,}|(?:From|Von|De|Da|Van|Från):\s.+)\s*$")


def read_mbox(path: Path, source: str, tally: Tally, me: str | None) -> list[Note]:
    """The user's mails in an mbox file; `line` is the mail's number in it."""
    box = mailbox.mbox(path, create=False)
    try:
        return _notes(enumerate(box, 1), source, tally, me, bool(SENT.search(path.stem)))
    except OSError as error:
        raise Skip(f"cannot be read ({error.strerror})") from None
    finally:
        box.close()


def read_eml(path: Path, source: str, tally: Tally, me: str | None) -> list[Note]:
    message = email.message_from_bytes(read_bytes(path, EML_LIMIT))
    return _notes([(1, message)], source, tally, me, bool(SENT.search(path.parent.name)))


def _notes(messages: Iterable[tuple[int, Message]], source: str, tally: Tally, me: str | None, sent: bool) -> list[Note]:
    """`sent`: the folder's name says that the user wrote these mails."""
    notes, others = [], 0
    for number, message in messages:
        labels = _header(message, "X-Gmail-Labels")
        if not (_is_from(message, me) if me else sent or SENT.search(labels)):
            others += 1
            continue
        blocks = paragraphs(own_words(body(message, tally)))
        if blocks:
            title = REPLY.sub("", _header(message, "Subject")).strip()
            notes.append(Note(f"{source}#{number}", source, title, [replace(block, line=number) for block in blocks]))
    if others and not notes:
        raise Skip(f"no mail from {me} (sources.me)" if me else "whose mails are yours? write your address as sources.me")
    tally.left_alone["mails of others"] += others
    return notes


def _is_from(message: Message, me: str) -> bool:
    name, address = parseaddr(_header(message, "From"))
    return me.lower() in (name.lower(), address.lower())


def _header(message: Message, name: str) -> str:
    try:
        return re.sub(r"\s+", " ", str(make_header(decode_header(message.get(name) or ""))))
    except (LookupError, UnicodeDecodeError, ValueError):
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
        if line.rstrip("\n") in ("-- ", "--") or (FORWARDED.match(line) and ("@" in line or ":" in headers)):
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
    return "\n".join(kept)
