"""Chats between people as messengers export them to text: WhatsApp in every language and clock, Signal, Telegram, Viber, IRC.

A message begins with its time and its writer, in whatever order and letters a country writes them:
    [20/6/17, 8:10:05 p. m.] Elena: ...      2024/3/12 下午6:22 - 月月: ...      Ana, [12.03.24 18:22]
Only the owner's messages become notes, one for each day.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..decode import is_me, nfc
from ..note import Block, Note, Skip, Tally
from ..note_file import NoteFile
from .plain import paragraphs

BIDI = dict.fromkeys(map(ord, "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"))
DATE = re.compile(
    r"(?<!\d)\d{1,4}(?: ?[./-] ?| ?[年년] ?)\d{1,2}(?: ?[./-] ?| ?[月월] ?)\d{1,4}(?!\d)[日일.]?"
    r"|[^\W\d_]{3,9}\.? \d{1,2},? \d{4}|\d{1,2}\.? (?:de )?[^\W\d_]{3,10}\.?,? (?:de )?\d{4}"  # Nov 3, 2023; 3 nov. 2023
)
TIME = re.compile(r"(?<!\d)\d{1,2} ?(?:[:.：h]|[時시点點]) ?\d{2}(?: ?(?:[:.：]|min|[分분]) ?\d{2})?(?!\d)")
BRACKETED = re.compile(r"\[([^\[\]\n]{4,60})\]:? ?(.*)")
DASHED = re.compile(r"([^\n]{4,48}?) [-–—] (.*)")
BARE = re.compile(r"((?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? )?\d{1,2}:\d\d(?::\d\d)?(?: ?[ap]\.?m\.?)?)[\t ]+(.*)", re.IGNORECASE)
NAMED = re.compile(r"\[(?P<name>[^\[\]\n]{1,40})\] \[([^\[\]\n]{4,40})\] (?P<text>.*)")  # KakaoTalk
DAY = re.compile(
    r"[\W_]*(?P<day>\d{4} ?[./년年-] ?\d{1,2} ?[./월月-] ?\d{1,2})[^\d\n]{0,40}"
)  # a line above the messages of one day
SPACED = re.compile(r"([^\n]{8,48}?), ([^,:\n]{1,40} : .*)")  # KakaoTalk of a telephone: the stamp, the name, the text
# The stamp and the name on a line of their own, the text below: Discord, QQ and WeChat.
ALONE = re.compile(
    r"\[(?P<in>[^\[\]\n]{8,40})\] (?P<name>[^\[\]:\n]{1,40})"
    r"|(?P<who>[^\d:\n][^:\n]{0,40}?)[ \t]+(?P<behind>\d{4}[-/]\d{1,2}[-/]\d{1,2} \d{1,2}:\d\d:\d\d)"
    r"|(?P<before>\d{4}[-/]\d{1,2}[-/]\d{1,2} \d{1,2}:\d\d:\d\d)[ \t]+(?P<nick>[^:\n]{1,40}?)(?:\(\d{4,12}\)|<[^<>\n]{3,60}>)"
    r"|(?P<dashed>[^:\n]{1,40}?) [—–] (?P<at>(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|[^\W\d_]{4,10}(?: at| um| à"
    r"| a las)?),? \d{1,2}:\d\d(?: ?[AP]M)?)"
)
A_DAY = re.compile(  # a word in place of a date
    r"(?:to|yester)day|(?:sun|mon|tues|wednes|thurs|fri|satur)day|heute|gestern|(?:sonn|mon|diens|donners|frei|sams)tag|mittwoch"
    r"|aujourd['’]hui|hier|hoy|ayer|oggi|ieri|hoje|ontem|vandaag|gisteren|dziś|wczoraj|сегодня|вчера|今日|昨日|今天|昨天",
    re.IGNORECASE,
)
# Signal's messages as `sigtop` writes them: a few headers, an empty line, the text.
SIGTOP = re.compile(
    r"^From: (?P<name>[^\n]{1,80})\nType: (?P<type>incoming|outgoing)\nSent: (?P<stamp>[^\n]{10,40})\n"
    r"(?P<more>(?:[A-Z][\w-]*: [^\n]*\n)*)",
    re.MULTILINE,
)
SENT = re.compile(r"[A-Z][a-z]{2}, (\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d)")
ADDED = re.compile(r"^\{(?:Attachments|Embed|Stickers|Reactions)\}$.*", re.MULTILINE | re.DOTALL)  # of Discord, behind a message
EDITED = re.compile(
    r"(?<!\s)\s*<[^<>\n]{2,20}(?: [^<>\n ]{1,20}){1,6}>$"
)  # of WhatsApp, behind a message: <This message was edited>
EXPORTED = re.compile(  # of iMessage: the stamp, and the name on the next line
    r"^(?P<stamp>[A-Z][a-z]{2} \d\d, \d{4} {1,2}\d{1,2}:\d\d:\d\d [AP]M)(?: \([^()\n]{4,80}\))?\n(?P<name>[^\n]{1,40})$",
    re.MULTILINE,
)
OF_AN_APP = re.compile(
    r"Guild: .+|[^\[\]\n:]{1,60}, \[[^\[\]\n]{4,40}\]:?|[^:\n]{1,40} [—–] .*\d:\d\d.*|\[[^\W\d][^\[\]]*\] .+"
)  # no diary has such
REACTIONS = re.compile(r"\s*\(- [^()\n]{1,300} -\)\s*$")  # of Signal, behind a message
BEHIND = re.compile(r"([^\[\]\n:]{1,60}), \[([^\[\]\n]{4,40})\]:?")  # the name first, the text on the next line
WRITER = re.compile(
    r"(?:<(?P<nick>[^<>\s]{1,40})> (?P<words>.*)|(?P<tab>[^\t\n]{1,40})\t(?P<cell>.*)|(?P<name>[^:\n]{1,60}?)(?:: (?P<text>.*)|:))"
)
BEGINS_PROSE = re.compile(r".{160}|#{1,6} |---\s*$")
DIGIT = re.compile(r"\d")
LETTERS = 20  # of a stamp, at most: "de la tarde", "오후"

# What an app writes in place of a message, where no mark shows it.
BRACKETS = re.compile(r"<[^<>\n]{3,80}>\.?")
FILE = re.compile(r"\S.{0,80}\.\w{2,5} \([^()\n]{4,40}\)")
OWN_LINES = re.compile(
    r"(?:={20,}|Exported [\d,.]+ message\(s\)|Tapbacks:|(?:Loved|Liked|Disliked|Laughed|Emphasized|Questioned"
    r"|Reacted .{1,8}) by .{1,40}"
    r"|This message responded to an earlier message"
    r"|(?:image|video|audio|sticker|GIF|document|photo|contact card) omitted|view once .{0,30}|null|missed (?:voice"
    r"|video) call.{0,30}"
    r"|(?:imagen|audio|video|sticker|GIF|documento|foto|multimedia) omitid[oa]|(?:Bild|Audio|Video|Sticker|GIF"
    r"|Dokument) weggelassen"
    r"|(?:image|audio|vidéo|sticker|GIF|document) (?:absent|omis)e?|(?:immagine|audio|video|sticker|GIF|documento) omess[oai]"
    r"|(?:imagem|áudio|vídeo|figurinha|GIF|documento) (?:ocultad|omitid)[oa]|(?:afbeelding|audio|video|sticker|GIF"
    r"|document) weggelaten"
    r"|(?:image|bild|video|ljud) (?:utelämnad|utelämnat)"
    r"|.{1,12}(?:已忽略|已省略|が省略されました|は含まれていません|생략됨|아이콘 생략됨)"
    r"|(?:изображение|аудио|видео|стикер|документ) (?:отсутствует|пропущено|скрыто)|تم (?:استبعاد|حذف) .{1,30}"
    r"|(?:This message was|You) deleted(?: this message)?|(?:Eliminaste|Se eliminó) este mensaje|(?:Du hast )?diese "
    r"nachricht (?:wurde )?gelöscht"
    r"|Vous avez supprimé ce message|Ce message a été supprimé|Hai eliminato questo messaggio|Questo messaggio è stato eliminato"
    r"|(?:Você apagou esta mensagem|(?:Essa )?mensagem (?:foi )?apagada)|(?:Je hebt )?dit bericht (?:is )?verwijderd"
    r"|Bu mesaj silindi"
    r"|Bu mesajı sildiniz|(?:Данное сообщение удалено|Вы удалили (?:данное )?сообщение)"
    r"|(?:此消息已删除|你删除了此消息|您已刪除此訊息"
    r"|此訊息已刪除)"
    r"|(?:このメッセージは削除されました|삭제된 메시지입니다)|(?:Ta wiadomość została usunięta|Usunięto tę wiadomość)"
    r"|.{0,200}(?:end-to-end|extremo a extremo|ende-zu-ende|bout en bout|ponta a ponta"
    r"|端到端|端對端|エンドツーエンド|종단간|сквозн"
    r"|uçtan uca).{0,200})\.?",
    re.IGNORECASE,
)
ME = {
    "me",
    "myself",
    "you",
    "ich",
    "du",
    "moi",
    "toi",
    "yo",
    "tú",
    "eu",
    "io",
    "ik",
    "jag",
    "jeg",
    "já",
    "я",
    "我",
    "私",
    "나",
    "أنا",
    "ben",
    "minä",
}


@dataclass(frozen=True)
class Message:
    """What one person wrote at one time."""

    line: int
    day: str
    writer: str
    text: str
    marked: bool = False  # its header begins with a left-to-right mark, as those of the app's own lines do


def read_messages(text: str, file: NoteFile, tally: Tally, me: str | None) -> list[Note]:
    """One note for each day on which the owner wrote. Raises Skip where it is not known which writer that is."""
    messages = list(messages_of(_on_one_line(text)))
    by_people = _by_people(messages)
    user = owner_of([message.writer for message in by_people], me, file)
    own = [message for message in by_people if message.writer == user]
    tally.removed["messages of others"] += len(by_people) - len(own)
    tally.removed["pictures, recordings and deleted messages"] += sum(m.writer == user for m in messages) - len(own)
    return notes_of_days(((m.line, m.day, m.text) for m in own), file)


def notes_of_days(messages: Iterable[tuple[int, str, str]], file: NoteFile, within: str = "") -> list[Note]:
    """(line, day, text) as a note for each day. `within`: the chat's name, where a file has several."""
    days: dict[str, list[Block]] = {}
    for line, day, text in messages:
        days.setdefault(day, []).extend(paragraphs(text, line))
    names = ((f"{file.source}#{within}{' ' if within and day else ''}{day}", blocks) for day, blocks in days.items())
    return [Note(name.removesuffix("#"), file.source, "", blocks) for name, blocks in names if blocks]


def is_messages(text: str) -> bool:
    """Whether a text is a chat: its lines begin with times and writers, and few writers come again and again."""
    lines = [line for line in _on_one_line(text[:40_000]).split("\n") if line.strip()][:80]
    if not any(map(header, lines[:6])):
        return False
    headers = [header(line) for line in lines]
    first = next(place for place, line in enumerate(headers) if line)
    if any(map(BEGINS_PROSE.match, lines[:first])):  # a note that quotes a chat is none
        return False
    by_app = any(map(OF_AN_APP.fullmatch, lines))
    lines, headers = lines[first:], headers[first:]
    stamped = [message for message in headers if message]
    writers = Counter(line.writer for line in stamped if line.writer)
    if len(stamped) < max(2, len(lines) / 4) or sum(writers.values()) < len(stamped) / 2:
        return False
    above = not any(line.text for line in stamped)  # every name stands above its message, as a diary's places do
    placed = above and not by_app and not any(name.casefold() in ME for name in writers)
    if placed and len(writers) > sum(writers.values()) / 2:
        return False
    dated = sum(bool(line.day) for line in stamped) > 0.8 * len(lines)
    return len(writers) <= max(2, sum(writers.values()) / 2) or dated and len(writers) <= 9


def _on_one_line(text: str) -> str:
    """The text with the stamp and the name of an iMessage on one line: the number of lines stays."""
    if "AM" in text or "PM" in text:
        text = EXPORTED.sub(lambda match: f"\n[{match['stamp']}] {match['name']}", text)
    return SIGTOP.sub(_sigtop, text) if "\nType: " in text else text


def _sigtop(match: re.Match) -> str:
    """The headers of one message on the last of their lines."""
    sent = SENT.match(match["stamp"])
    name = "Me" if match["type"] == "outgoing" else re.sub(r" \(\+\d+\)$", "", match["name"])
    return "\n" * (match[0].count("\n") - 1) + f"[{sent[1] if sent else match['stamp']}] {name}\n"


def header(line: str) -> Message | None:
    """The message that begins on a line: writer '' for a line of the app's own; None where none begins."""
    if not DIGIT.search(line[:80]):
        return None
    marked = line.startswith("\u200e")
    bare = line.translate(BIDI).replace("\u202f", " ").replace("\u00a0", " ").strip()
    digits = bare if bare.isascii() else "".join(map(_digit, bare))
    if behind := BEHIND.fullmatch(digits):
        day = stamp(behind[2])
        return Message(0, day, nfc(behind[1].strip()), "", marked) if day else None
    named = NAMED.fullmatch(digits)
    if named and stamp(named[2]) is not None:
        return Message(0, "", nfc(bare[named.start("name") : named.end("name")]), bare[named.start("text") :], marked)
    if alone := ALONE.fullmatch(digits):
        written = alone["in"] or alone["behind"] or alone["before"] or alone["at"]
        group = next(name for name in ("name", "who", "nick", "dashed") if alone[name])
        name = bare[alone.start(group) : alone.end(group)].strip().removesuffix(" (pinned)")
        day = stamp(written)
        if day == "" and (word := A_DAY.search(written)):
            day = word[0]
        if day and len(name.split()) <= 4 and not name.endswith((".", "!", "?", "…", "。")):
            return Message(0, day, nfc(name), "", marked)
    for pattern in (BRACKETED, DASHED, SPACED, BARE):
        match = pattern.fullmatch(digits)
        day = stamp(match[1]) if match else None
        if match and day is not None and (day or pattern not in (DASHED, SPACED)):
            writer = WRITER.fullmatch(bare[match.start(2) :])
            if not writer:
                return Message(0, day, "", "", marked)
            name = writer["nick"] or writer["tab"] or writer["name"]
            return Message(0, day, nfc(name.strip("~ ")), writer["words"] or writer["cell"] or writer["text"] or "", marked)
    return None


def stamp(text: str) -> str | None:
    """The day of a stamp, '' for one of a time alone; None for what is no stamp: it has a time, and few letters beside."""
    date = DATE.search(text)
    rest = DATE.sub(" ", text, count=1)
    if not TIME.search(rest):
        return None
    rest = TIME.sub(" ", rest, count=1)
    if sum(char.isalpha() for char in rest) > LETTERS or any(char.isdigit() for char in rest):
        return None
    return re.sub(r"[ .]+$", "", date[0]) if date else ""


def messages_of(text: str) -> Iterator[Message]:
    """Every message that a person wrote; a line without a header goes on with the message before it."""
    held: Message | None = None
    lines: list[str] = []
    today = ""
    for number, line in enumerate(text.split("\n"), 1):
        begun = header(line)
        if not begun:
            if day := DAY.fullmatch(line):
                today = day["day"]
            else:
                lines.append(line)
            continue
        if held and held.writer:
            yield replace(held, text="\n".join([held.text, *lines]).strip("\n "))
        # A mark before the text may show that the app wrote it.
        mark = "\u200e" if re.search(r": ?\u200e", line[:120]) else ""
        held = replace(begun, line=number, day=begun.day or today, text=mark + begun.text)
        lines = []
    if held and held.writer:
        yield replace(held, text="\n".join([held.text, *lines]).strip("\n "))


def _by_people(every: list[Message]) -> list[Message]:
    """The messages without what the app wrote in their place.

    WhatsApp puts a left-to-right mark before its own lines; but some phones put it before every message, where it shows nothing.
    """
    marks_tell = sum(message.text.startswith("\u200e") for message in every) <= 0.5 * len(every)
    kept = []
    for message in every:
        app = message.text.startswith("\u200e") and (marks_tell or message.marked)
        words = EDITED.sub("", ADDED.sub("", REACTIONS.sub("", re.sub(r"\u200e<[^<>\n]*>", "", message.text))))
        lines = [line.translate(BIDI).strip() for line in words.split("\n")]
        text = "\n".join(line for line in lines if not any(kind.fullmatch(line) for kind in (BRACKETS, FILE, OWN_LINES))).strip()
        if text and not app:
            kept.append(replace(message, text=text))
    return kept


def owner_of(writers: list[str], me: str | None, file: NoteFile) -> str:
    """Which writer is the owner: the one that `me` names, or "Me", or the other one than the file is named after."""
    names = list(dict.fromkeys(writers))
    if me:
        owner = next((name for name in names if is_me(name, me)), None) or next((n for n in names if n.casefold() in ME), None)
        if owner is None:
            raise Skip(f"no message of {me} (sources.me) in this chat")
        return owner
    for name in names:
        if name.casefold() in ME:
            return name
    places = nfc(" ".join((*file.path.parts[-2:-1], file.source, file.stem))).casefold()
    others = [name for name in names if name.casefold() not in places]
    if len(others) == 1 < len(names):
        return others[0]
    raise Skip(f"whose messages are yours? write your name as sources.me ({', '.join(names[:4])}{', ...' * (len(names) > 4)})")


def _digit(char: str) -> str:
    """Digits of every script as 0 to 9, and the commas of Arabic as they are: the length stays."""
    value = unicodedata.digit(char, None) if char.isdigit() else None
    return char if value is None else str(value)
