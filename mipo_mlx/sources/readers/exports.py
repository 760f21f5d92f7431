"""JSON exports of chats: ChatGPT, Claude, Gemini and other assistants; Telegram and other messengers.

Only the owner's turns become notes. What cannot be kept (pictures, recordings without words, attachments) is counted.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from os.path import commonprefix
from typing import Any

from ..decode import is_me
from ..note import Block, NotANote, Note, Skip, Tally
from ..note_file import NoteFile
from .messengers import notes_of_days, owner_of
from .plain import entry_blocks
from .rows import json_values

OWNER = {"user", "human", "prompter", "self"}
ASSISTANT = {"assistant", "ai", "model", "bot", "gpt", "chatgpt", "claude", "gemini", "chatbot", "system", "tool", "function"}
WRITER, WORDS = (
    ("role", "sender", "author", "from", "sender_name", "speaker", "user_profile", "user", "creator"),
    ("content", "text", "parts", "value", "body", "message"),
)
SIGNS = (
    b'"user_profile"',
    b'"client_msg_id"',
    b'"responses"',
    b'"creator"',
    b'"sender"',
    b'"ts"',
    b'"mapping"',
    b'"chat_messages"',
    b'"chunkedPrompt"',
    b'"messages"',
    b'"conversations"',
    b'"conversation"',
    b'"safeHtmlItem"',
    b'"Gemini Apps"',
    b'"Bard"',
    b'"role"',
)
HTML = re.compile(r"<[^<>]+>")
DEEPEST = 6  # lists and objects within one another that are searched for conversations
Turns = list[tuple[int, str]]  # (number of the message, text) of the owner's


def is_export(file: NoteFile) -> bool:
    """Whether a JSON file begins like an export of chats."""
    beginning = file.beginning(1 << 16)
    return any(sign in beginning for sign in SIGNS)


def read_export(file: NoteFile, tally: Tally, me: str | None = None) -> list[Note]:
    """A note for each conversation with an assistant, or for each day of a chat with people; `line` is the message's number.

    Raises Skip where the file is JSON of another kind, and where it is not known who the owner is.
    """
    values = json_values(file, tally)
    if isinstance(values, dict) and _is_telegram(values):
        return _telegram(values, file, tally, me)
    if _is_activity(values):
        return _activity(values, file, tally)
    notes = []
    for number, conversation in enumerate(_conversations(values), 1):
        place = f"{file.source}#{number}"
        with tally.sparing("chats", place):
            turns = _turns(conversation, place, file, tally, me)
            blocks = [block for place, text in turns for block in message_blocks(text, place, tally)]
            key = next((conversation[name] for name in ("id", "conversation_id", "uuid") if conversation.get(name)), number)
            title = conversation.get("title") or conversation.get("name")
            if blocks:
                notes.append(Note(f"{file.source}#{key}", file.source, title if isinstance(title, str) else "", blocks))
    if not notes and not any(True for _ in _conversations(values)):
        if file.stem.startswith("conversations"):
            raise Skip("JSON, but no chat export that is known; name a file of rows itself with sources.notes")
        raise NotANote(".json files")
    return notes


def message_blocks(text: str, number: int, tally: Tally) -> list[Block]:
    """A message is Markdown; long code in it is left out."""
    return [replace(block, level=0) for block in entry_blocks(text, number, tally)]


def _conversations(values: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every object with a list of messages, and every such list itself."""
    if isinstance(values, dict):
        if isinstance(values.get("mapping"), dict) or any(_is_messages(value) for value in values.values()):
            yield values
        elif depth < DEEPEST:
            for value in values.values():
                yield from _conversations(value, depth + 1)
    elif isinstance(values, list):
        if _is_messages(values):
            yield {"messages": values}
        elif depth < DEEPEST:
            for value in values:
                yield from _conversations(value, depth + 1)


def _is_messages(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    first = [_unwrapped(value) for value in values[:50] if isinstance(value, dict)]
    return 2 * sum(bool(_writer(value)) and any(name in value for name in WORDS) for value in first) > len(values[:50])


def _writer(message: dict[str, Any]) -> str:
    for name in WRITER:
        value = message.get(name)
        if isinstance(value, dict):
            names = ("role", "real_name", "name", "nickname", "display_name")
            value = next((value[name] for name in names if value.get(name)), None)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""


def _turns(conversation: dict[str, Any], place: str, file: NoteFile, tally: Tally, me: str | None) -> Turns:
    """place: the conversation's, for a message that cannot be read."""
    if isinstance(conversation.get("mapping"), dict):
        messages = _chatgpt_path(conversation)
    else:
        messages = next(value for value in conversation.values() if _is_messages(value))
    messages = [_deepseek(_unwrapped(message)) if isinstance(message, dict) else {} for message in messages]
    messages = [message for message in messages if not str(message.get("subtype") or "").startswith(("channel_", "group_", "bot_"))]
    roles = {_writer(message).casefold() for message in messages} - {""}
    owner = OWNER
    if roles and not roles & (ASSISTANT | OWNER):  # a chat between people
        owner = {owner_of([_writer(message) for message in messages if _writer(message)], me, file).casefold()}
    turns = []
    for number, message in enumerate(messages, 1):
        if _writer(message).casefold() not in owner and not (me and is_me(_writer(message), me)):
            continue
        with tally.sparing("messages", f"{place}:{number}"):
            if (message.get("metadata") or {}).get("is_visually_hidden_from_conversation"):
                continue
            text = _words(message, tally)
            if text.strip():
                turns.append((number, text))
    return turns


def _unwrapped(message: dict[str, Any]) -> dict[str, Any]:
    """A message that stands alone in another object, as Grok exports it: {"response": {...}}."""
    inner = message.get("response") or message.get("message")
    return inner if isinstance(inner, dict) and not _writer(message) and _writer(inner) else message


def _deepseek(message: dict[str, Any]) -> dict[str, Any]:
    """A message of DeepSeek's, which names the kind of each of its parts in place of a writer; others as they are."""
    parts = [part for part in message.get("fragments") or [] if isinstance(part, dict)]
    own = [str(part.get("content") or "") for part in parts if part.get("type") == "REQUEST"]
    return {"role": "user" if own else "assistant", "content": "\n\n".join(own)} if parts else message


def _chatgpt_path(conversation: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages on the path that leads to the current node, edits and retries left behind."""
    mapping = conversation["mapping"]
    node, path, seen = conversation.get("current_node") or next(reversed(mapping), None), [], set()
    while node in mapping and node not in seen:
        seen.add(node)
        path.append(mapping[node].get("message") or {})
        node = mapping[node].get("parent")
    return path[::-1]


def _words(message: dict[str, Any], tally: Tally) -> str:
    """The words of a message; pictures, recordings and attachments are counted."""
    kept: list[str] = []
    tally.removed["attachments in chats"] += len(message.get("attachments") or []) + len(message.get("files") or [])
    texts = [message[name] for name in WORDS if message.get(name)]
    parts = _parts(texts[0]) if texts else []
    for part in parts:
        if isinstance(part, str):
            kept.append(part)
        elif isinstance(part, dict):
            text = part.get("text") if isinstance(part.get("text"), str) else part.get("value")
            kind = str(part.get("content_type") or part.get("type") or "text")
            if isinstance(text, str) and text.strip() and kind in ("text", "audio_transcription", "input_text", "plain"):
                kept.append(text)
            elif kind not in ("text", "thinking", "tool_result"):
                tally.removed["recordings in chats" if "audio" in kind else "pictures and files in chats"] += 1
    if not any(part.strip() for part in kept) and isinstance(message.get("text"), str):  # Claude keeps a copy of the text
        kept = [message["text"]]
    return "\n\n".join(kept)


def _parts(content: Any) -> list[Any]:
    """The parts of a message's content: a text, a list, or an object with either."""
    if isinstance(content, dict):
        if content.get("content_type") not in (None, "text", "multimodal_text"):
            return []
        return _parts(content.get("parts") or content.get("text") or content.get("content") or content.get("body") or [])
    return content if isinstance(content, list) else [content]


def _is_activity(values: Any) -> bool:
    first = values[0] if isinstance(values, list) and values else None
    return (
        isinstance(first, dict)
        and isinstance(first.get("title"), str)
        and "time" in first
        and ("header" in first or "products" in first)
    )


def _activity(values: list[Any], file: NoteFile, tally: Tally) -> list[Note]:
    """Google's list of what was done with Gemini: titles such as "Prompted ...", in the account's language."""
    own = [row for row in values if isinstance(row, dict) and isinstance(row.get("title"), str)]
    own = [row for row in own if re.search("gemini|bard", str([row.get("header"), row.get("products")]), re.IGNORECASE)]
    if not own:
        raise NotANote("lists of activity of other programs")
    tally.removed["rows without a prompt"] += len(values) - len(own)
    return notes_of_days(activity_prompts((row["title"], str(row.get("time"))[:10]) for row in own), file)


def activity_prompts(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[int, str, str]]:
    """(number, day, prompt) of (title, day): the titles without the words that they share at the beginning."""
    listed = list(rows)
    shared = commonprefix([title for title, _ in listed]) if len(listed) > 1 else ""
    shared = shared[: max(shared.rfind(mark) + 1 for mark in ("\u00a0", " ", ":", "："))]
    for number, (title, day) in enumerate(listed, 1):
        text = title.removeprefix(shared) if shared else re.sub(r"^Prompted[\u00a0 ]", "", title)
        yield number, day, text


def _is_telegram(values: dict[str, Any]) -> bool:
    chats = values.get("chats")
    rows = values.get("messages") or (isinstance(chats, dict) and (chats.get("list") or [{}])[0].get("messages"))
    first = rows[:20] if isinstance(rows, list) else []
    return any(isinstance(row, dict) and ("from_id" in row or "actor_id" in row) for row in first)


def _telegram(values: dict[str, Any], file: NoteFile, tally: Tally, me: str | None) -> list[Note]:
    """One note for each day of each chat. The export of a whole account says who the owner is."""
    chats = values["chats"]["list"] if "chats" in values else [values]
    person = values.get("personal_information") or {}
    own_id = f"user{person['user_id']}" if person.get("user_id") else None
    notes, unknown = [], None
    for number, chat in enumerate(chats, 1):
        place = f"{file.source}#{number}"
        with tally.sparing("chats", place):
            try:
                notes += _telegram_chat(chat, own_id, place, file, tally, me)
            except Skip as reason:
                unknown = reason
    if unknown and not notes:
        raise unknown
    return notes


def _telegram_chat(
    chat: dict[str, Any], own_id: str | None, place: str, file: NoteFile, tally: Tally, me: str | None
) -> list[Note]:
    """The days of one chat. Raises Skip where it is not known who the owner is."""
    rows = []
    for number, row in enumerate(chat.get("messages") or [], 1):
        with tally.sparing("messages", f"{place}:{number}"):
            if row.get("type") == "message" and isinstance(row.get("from"), str):
                rows.append({**row, "text": _telegram_text(row)})
    own = [row for row in rows if own_id and row.get("from_id") == own_id]
    if not own_id and rows:
        owner = _telegram_owner(rows, chat, me, file)
        own = [row for row in rows if row["from"] == owner]
    tally.removed["messages of others"] += len(rows) - len(own)
    tally.removed["forwarded messages"] += sum("forwarded_from" in row for row in own)
    by_hand = [(n, row) for n, row in enumerate(own, 1) if "forwarded_from" not in row and "via_bot" not in row]
    texts = [(n, str(row.get("date"))[:10], row["text"]) for n, row in by_hand]
    tally.removed["pictures, recordings and deleted messages"] += sum(not text.strip() for _, _, text in texts)
    return notes_of_days(texts, file, str(chat.get("id") or ""))


def _telegram_owner(rows: list[dict[str, Any]], chat: dict[str, Any], me: str | None, file: NoteFile) -> str:
    names = list(dict.fromkeys(row["from"] for row in rows))
    others = [name for name in names if name != chat.get("name")]
    return others[0] if not me and len(others) == 1 < len(names) else owner_of(names, me, file)


def _telegram_text(row: dict[str, Any]) -> str:
    parts = row.get("text")
    if isinstance(parts, str):
        return parts
    kept = (
        part if isinstance(part, str) else "" if part.get("type") in ("blockquote", "pre", "code") else str(part.get("text", ""))
        for part in parts or []
        if isinstance(part, str | dict)
    )
    return "".join(kept)
