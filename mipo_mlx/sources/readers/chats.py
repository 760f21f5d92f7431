"""Chat exports: ChatGPT and Claude `conversations.json`, WhatsApp text. Only what the user wrote becomes contexts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..decode import read_text
from ..markdown import parse
from ..note import Block, Note, Skip, Tally
from .plain import paragraphs
from .rows import LIMIT, parse_json

# [12/03/24, 6:22:05 PM] Ana: Hi (iOS), 12.03.24, 18:22 - Ana: Hi (Android); the marks are left-to-right signs and narrow spaces.
WHATSAPP = re.compile(
    r"^[\u200e\u200f]?\[?(\d{1,4}[./-]\d{1,2}[./-]\d{1,4}),? "
    r"\d{1,2}[:.]\d\d(?:[:.]\d\d)?[ \u00a0\u202f]?(?:[ap]\.?m\.?)?(?:\]| -) (.*)$",
    re.IGNORECASE,
)
MEDIA = re.compile(
    r"<[^<>]*(?:omitted|weggelassen|omis|omitido|attached|angehängt|was edited)[^<>]*>|^\u200e.*$"
    r"|^(?:(?:image|video|audio|sticker|GIF|document) omitted|(?:This message was|You) deleted(?: this message)?\.?)$",
    re.IGNORECASE,
)
OTHER_IN_NAME = re.compile(r"(?:WhatsApp Chat (?:with|mit|avec|con|-)|Chat de WhatsApp con) (.+)$")


def read_conversations(path: Path, source: str, tally: Tally) -> list[Note]:
    """A ChatGPT or Claude export: a note for each conversation, `line` is the message's number in it.

    Raises Skip where the file is JSON of another kind.
    """
    try:
        values = parse_json(read_text(path, source, tally, LIMIT), str(path))
    except UserError:
        raise Skip("not valid JSON") from None
    kind = conversation_kind(values)
    if kind is None:
        raise Skip("JSON, but no chat export of ChatGPT or Claude; name a file of rows itself with sources.notes")
    notes = []
    for number, conversation in enumerate(values, 1):
        said = _chatgpt(conversation) if kind == "chatgpt" else _claude(conversation)
        blocks = [block for place, text in said for block in message_blocks(text, place, tally)]
        key = conversation.get("id") or conversation.get("conversation_id") or conversation.get("uuid") or number
        title = conversation.get("title") if kind == "chatgpt" else conversation.get("name")
        if blocks:
            notes.append(Note(f"{source}#{key}", source, title if isinstance(title, str) else "", blocks))
    return notes


def conversation_kind(values: Any) -> str | None:
    """chatgpt, claude or None."""
    first = values[0] if isinstance(values, list) and values else None
    if not isinstance(first, dict):
        return None
    if isinstance(first.get("mapping"), dict):
        return "chatgpt"
    return "claude" if isinstance(first.get("chat_messages"), list) else None


def is_chat(path: Path) -> bool:
    """Whether a JSON file begins like a chat export."""
    with open(path, "rb") as handle:
        beginning = handle.read(1 << 16)
    return b'"mapping"' in beginning or b'"chat_messages"' in beginning


def message_blocks(text: str, number: int, tally: Tally) -> list[Block]:
    """A message is Markdown; long code in it is left out."""
    _, blocks, removed = parse(text)
    tally.removed.update(removed)
    return [Block(block.text, number, 0, block.linked, block.code) for block in blocks]


def _chatgpt(conversation: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """The user's messages on the path that leads to the current node, edits and retries left behind."""
    mapping = conversation.get("mapping") or {}
    node, path, seen = conversation.get("current_node") or next(reversed(mapping), None), [], set()
    while node in mapping and node not in seen:
        seen.add(node)
        path.append(mapping[node].get("message") or {})
        node = mapping[node].get("parent")
    for number, message in enumerate(reversed(path), 1):
        content = message.get("content") or {}
        if (message.get("author") or {}).get("role") == "user" and content.get("content_type") in ("text", "multimodal_text"):
            yield number, "\n\n".join(part for part in content.get("parts") or [] if isinstance(part, str))


def _claude(conversation: dict[str, Any]) -> Iterator[tuple[int, str]]:
    for number, message in enumerate(conversation.get("chat_messages") or [], 1):
        if message.get("sender") == "human":
            parts = [part.get("text") for part in message.get("content") or [] if part.get("type") == "text" and part.get("text")]
            yield number, "\n\n".join(parts) or message.get("text") or ""


def is_whatsapp(text: str) -> bool:
    lines = [line for line in text.split("\n", 20) if line.strip()][:10]
    return len(lines) >= 2 and sum(bool(WHATSAPP.match(line)) for line in lines) >= 0.5 * len(lines)


def read_whatsapp(text: str, path: Path, source: str, me: str | None) -> list[Note]:
    """One note for each day on which the user wrote. Raises Skip where it cannot be told who of the writers is the user."""
    messages = list(_whatsapp_messages(text))
    writers = list(dict.fromkeys(writer for _, _, writer, _ in messages))
    user = _user(writers, me, path)
    days: dict[str, list[Block]] = {}
    for line, day, writer, said in messages:
        if writer == user:
            days.setdefault(day, []).extend(paragraphs(said, line))
    return [Note(f"{source}#{day}", source, "", blocks) for day, blocks in days.items() if blocks]


def _whatsapp_messages(text: str) -> Iterator[tuple[int, str, str, str]]:
    """(line, day, writer, text) of each message that a person wrote."""
    held: tuple[int, str, str] | None = None
    said: list[str] = []
    for number, line in enumerate([*text.split("\n"), "[1/1/01, 00:00] end: "], 1):
        match = WHATSAPP.match(line)
        if not match:
            said.append(line)
            continue
        body = "\n".join(MEDIA.sub("", part) for part in said).replace("\u200e", "").strip()
        if held and body:
            yield *held, body
        writer, colon, first = match[2].partition(": ")
        held = (number, match[1], writer.strip("\u200e\u202a\u202c~ ")) if colon else None  # no colon: the app's own line
        said = [first]


def _user(writers: list[str], me: str | None, path: Path) -> str:
    if me:
        found = next((writer for writer in writers if writer.lower() == me.lower()), None)
        if found is None:
            raise Skip(f"no message of {me} (sources.me) in this chat")
        return found
    named = OTHER_IN_NAME.search(path.stem)
    others = [writer for writer in writers if not named or writer != named[1]]
    if named and len(others) == 1:
        return others[0]
    raise Skip(f"whose messages are yours? write your name as sources.me ({', '.join(writers[:4])}{', ...' * (len(writers) > 4)})")
