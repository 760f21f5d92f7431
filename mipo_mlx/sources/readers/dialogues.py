"""Conversations in text and Markdown: saved chats with assistants, of which the owner's turns stay, and dialogues of people.

A turn begins with a line that names its speaker: `**user**: ...`, `## ChatGPT`, `#### You:`, `role::assistant`, `> [!ai] Claude`.
What no reader can tell apart is skipped with a reason, never read as the owner's prose.
"""

import re
from collections import Counter
from itertools import groupby

from ..decode import is_me
from ..note import NotANote, Skip
from .saved_chats import turns_of_program

USERS = (
    "user|human|you|me|prompt(?:er)?|hai detto|dijiste|has dicho"
    "|i|ich|du|sie|nutzer(?:in)?|benutzer(?:in)?|moi|toi|vous|utilisateur|yo|tú|tu|usted|usuari[oa]|eu|você|io|utente"
    "|ik|jij|gebruiker|jag|användare|bruger|bruker|käyttäjä|użytkownik|ty|uživatel|пользователь|вы|я|користувач|用户|用戶|使用者|我|你"
    "|ユーザー|あなた|私|사용자|나|المستخدم|أنا|אני|משתמש|kullanıcı|ben|sen|pengguna|người dùng"
)
VERSION = (  # what stands behind a model's name; other words make it a sentence or a heading: "Claude and I"
    r"(?:[ -]?(?:v?\d[\w.:-]*|[or]\d[\w-]*|opus|sonnet|haiku|instant|pro|plus|team|max|mini|nano|lite|flash|ultra|advanced|turbo"
    r"|preview|exp\w*|thinking|reason\w*|large|medium|small|nemo|chat|coder|code|instruct|web|latest|desktop|deep ?research)){0,4}"
)
STRONG = (
    rf"(?:chat ?)?gpt(?:[.-][\w.-]+)?{VERSION}|claude{VERSION}|gemini{VERSION}|bard|(?:github |microsoft )?copilot|bing(?: chat)?"
    rf"|llama{VERSION}|mi[sx]tral{VERSION}|deepseek{VERSION}|qwen[\w.-]*|grok{VERSION}|perplexity|le chat|ollama|phi-?\d[\w.-]*"
    r"|gemma[\w.-]*|meta ai|kagi(?: assistant)?|lumo|duck\.ai|o[134](?:-mini|-preview)?|notion ai|smart connections|(?:ai"
    r"|ki|ia)[ -](?:assistant|agent|assistent)"
    r"|ai|a\.i\.|ki|ia|(?:assistant|asistente|assistente)(?: (?:ai|ia|ki))?|assistent(?:in)?|avustaja|asystent"
    r"|ассистент|помощник|асистент|助手|アシスタント|어시스턴트|المساعد|עוזר|asistan|asisten|trợ lý|chat ?bot|language model|cursor"
)
WEAK = "agent|model|bot|system|answer|response|reply|antwort|réponse|respuesta|resposta|risposta|ответ|回答|答え"
DECORATED = r"[\s#>*_|`~@+-]*+(?:\[[\d:., /-]{4,24}\]\s*+)?(?:\[!\w[\w-]*\][+-]?|role::)?[\s*_#]*+"
SIGN = r"[\U0001f300-\U0001faff\u2600-\u27bf\ufe0f\u200d]*+[\s*_]*+"
AFTER = (
    r"[\s*_]*(?P<said>said|says|wrote|sagte|schrieb"
    r"|(?:hat|hast|haben) (?:gesagt|geschrieben)|a dit|avez dit|as dit|dijo|disse|ha detto|说|說)?[\s*_]*"
    r"(?:[(\[][^()\[\]\n]{0,60}[)\]]|[-–—,|@•·] ?[\d:./APMapm ,-]{4,40})?[\s*_]*"
)
TURN = re.compile(
    rf"(?P<before>{DECORATED}{SIGN})(?:[oae]l? )?(?:(?P<user>{USERS})|(?P<strong>{STRONG})|(?P<weak>{WEAK})){AFTER}"
    r"(?P<colon>[:：])?[\s*_\]]*(?P<text>.*)",
    re.IGNORECASE,
)
LEAD = re.compile(r"[\W_]*(?:\[[\d:., /-]{4,24}\][\W_]*)?([^\W_]+)")  # a line's first word, before the whole pattern is tried
NAMES = f"{USERS}|{STRONG}|{WEAK}".split("|")
FIRST = tuple({word for name in NAMES for word in re.findall(r"^\W*(?:\?:)?([^\W\d_]+)", name)} | {"o", "gpt", "copilot"})
BEGINNINGS = {word[:2] for word in FIRST}  # to look a line's first two letters up is quicker still
CALLOUT = re.compile(r"[>\s]*\[!\w*(?P<kind>user|human|prompt|question|agent|assistant|ai|bot|gpt|chatgpt|llm)\w*\]", re.IGNORECASE)
ROLE = re.compile(r"[\s#*_>-]*+role::?\s*[\"']?(?P<role>user|human|assistant|ai|model|system|tool|bot)\b", re.IGNORECASE)
CONTENT = re.compile(r"\s*content:\s*[\"'|>]?-?\s?")
TAGGED = re.compile(  # XML, and the marks of chat templates: <|im_start|>user, <start_of_turn>model
    r"\s*<\|?(?:(?:im_start|start_header_id)\|>|start_of_turn>)?(?P<role>/?(?:user|human|assistant|ai|model|system|thinking))"
    r"(?:<\|end_header_id\|>|\|?>|(?=\s*$))\s*",
    re.IGNORECASE,
)
TEMPLATE_END = re.compile(r"<\|(?:im_end|eot_id|end|endoftext)\|>|<end_of_turn>|</s>")
# Signs in place of names, each at the beginning of a line: a robot for the assistant, a person for the owner.
PERSON = "\U0001f9d1\U0001f464\U0001f468\U0001f469\U0001f64b\U0001f5e3\u276f"
BY_SIGN = re.compile(
    rf"(?P<before>[\s#>*_+-]*)(?:(?P<robot>[\U0001f916\u23fa])|[{PERSON}])[\ufe0f\u200d\U0001f3fb-\U0001f3ff\U0001f4bb]*[\s*_]*(?P<text>.*)"
)
BRACKETED = re.compile(r"(\s*)\[(\w[\w .-]{0,30})\](?=\s*:)")
SAID = r"(?P<said> said| (?:hat|hast|haben) gesagt| a dit| avez dit| as dit| dijo| disse| ha detto| hai detto|说|說)?"
ALONE_USER = re.compile(rf"\s*(?:{USERS}){SAID}\s*", re.IGNORECASE)
ALONE_OTHER = re.compile(rf"\s*(?:{STRONG}){SAID}\s*", re.IGNORECASE)
JSON_TURN = re.compile(
    r"\s*[\[{].{0,200}\"(?:role|from|author|sender)\"\s*:\s*\"(?:user|human|assistant|gpt|system)\"", re.IGNORECASE
)
# An answer that says whose it is shows that the answers beside it are an assistant's, too.
AS_A_MODEL = re.compile(
    r"\bas an? (?:AI|large language|language)(?: language)? (?:model|assistant)\b|\bals (?:KI|AI|Sprachmodell)[ -,]"
    r"|en tant qu['’](?:IA|intelligence artif)"
    r"|como (?:una? )?(?:IA|modelo de lenguaje|modelo de linguagem)\b|作为(?:一个)?(?:AI|人工智能)|AI言語モデル",
    re.IGNORECASE,
)
ASKED = re.compile(r"[\s*_#>-]*([QA])\d{0,3}[*_]*[:.][*_]*\s+(.*)")
STAMP = re.compile(
    r"[\s*_>]*(?:\[Timestamp: [^\[\]\n]{4,40}\]|<hr class=\"__chatgpt_plugin\"[^<>]*>|Thought for .{1,30}|\d+ ?/ ?\d+)[\s*_]*",
    re.IGNORECASE,
)
MAY_BEGIN = frozenset("#>*_|`~+-[<@")  # what stands before a speaker, beside emoji
TABLE_RULE = re.compile(r"\s*\|(?:\s*:?-+:?\s*\|)+\s*")
FEWEST = 3  # turns of one speaker without other signs

# A recording's transcript: `00:01:12 ...`, `[1:05] ...`, `Anna Smith  0:03`.
CLOCK = re.compile(
    r"^\W{0,3}(?:[^\W\d_][^\n:]{0,40}\s{1,4}|Speaker \d+\W{1,3})?[\[(]?((?:\d{1,2}:)?\d{1,2}:\d\d)(?:[.,]\d{1,3})?\b"
)
NAMED_CLOCK = re.compile(r"[\s*_#>]*[^\W\d_][^:\n]{1,40}[\s*_]+\d{1,2}(?::\d\d){1,2}\s*")
# What programs that take minutes of meetings write beneath them, and who speaks in an interview.
MADE_BY = re.compile(
    r"Transcribed by (?:https?://)?\S*(?:otter|rev|sonix|descript)|^Chat with meeting transcript:|^\W*(?:Saved"
    r"|Exported) from NotebookLM"
    r"|review Gemini['’]s notes|(?:Generated|Recorded|Summarized|Notes taken|Powered) by (?:Fireflies|Fathom|tl;dv"
    r"|Read ?AI|Otter|Copilot|Gemini|Notion AI|Granola)",
    re.IGNORECASE,
)
SENT = re.compile(r"[^\W\d_][^\n]{1,60} sent the following messages? at \d.{2,12}")  # of LinkedIn
INTERVIEW = re.compile(
    r"[\s*_#>-]*(?:interviewer(?:in)?|interviewee|guest|host|moderator(?:in)?|speaker \d+|sprecher(?:in)? \d+|gast|invité"
    r"|journaliste|entrevistador[a]?"
    r"|entrevistad[oa]|intervistator[e]?|locuteur \d+|ведущ\w{2}|гость)[*_]*\s?:[*_]*\s",
    re.IGNORECASE,
)
ALONE_CLOCK = re.compile(
    r"\s*(?:\d{1,4}[./-]\d{1,2}[./-]\d{1,4},? )?"
    r"(?:(?:today|yesterday|[a-z]{3,9}day)(?:,? at)? )?(?P<hour>\d{1,2})[:.](?P<minute>\d\d)(?: ?(?P<half>[ap])\.?m\.?)?\s*",
    re.IGNORECASE,
)
HAS_TIME = re.compile(r"\d[:.]\d\d")
ARROW = re.compile(r"\d\d:\d\d(?::\d\d)?[.,]\d{3} --> ")
SPEAKER = re.compile(
    r"(?:[-*] )?(?:\*\*|__)?(?P<name>[^\W\d_a-z][\w.’'-]*(?: [^\W\d_a-z][\w.’'-]*){0,2})(?:\*\*|__)? ?:(?:\*\*|__)?\s+"
    r"(?P<text>\S.*)"
)
FORM = set(
    "q a pro con pros cons good bad question answer before after plus minus note idea goal problem solution mood sleep".split()
)
APPS = re.compile(r"whatsapp|telegram|signal chat|viber|threema|imessage|kakaotalk|wechat|_chat$|messenger", re.IGNORECASE)
ASK = "looks like a conversation that no reader can tell apart; leave it out, or write your name as sources.me"


def own_turns(lines: list[str], removed: Counter) -> list[str]:
    """The lines of a chat with an assistant with its turns emptied, the owner's kept; other texts as they are."""
    turns = _turns(lines)
    speakers = Counter(speaker for speaker, _ in turns.values())
    if not speakers["assistant"] + (speakers["weak"] if speakers["weak"] > 1 and speakers["user"] > 1 else 0):
        return lines
    first = lines[min(turns)]
    if not speakers["user"] and speakers["assistant"] < 2 and not first.lstrip().startswith(("#", "*", ">", "_")):
        return lines  # "Claude: ..." once, in prose
    lines = [TEMPLATE_END.sub("", line) if ">" in line else line for line in lines]
    kept, own, quoted, nested = list(lines), True, False, 0
    for number, line in enumerate(lines):
        if number in turns:
            speaker, text = turns[number]
            own = speaker == "user"
            removed["turns of an assistant"] += not own
            kept[number] = text if own else ""
            if own and not text.strip() and _depth(line) >= 0:  # what stands deeper beneath stays an item of the outline
                kept[number] = f"{line[: _depth(line)]}-"
            quoted = line.lstrip().startswith(">")
            nested = 0 if own else _depth(line)
        elif not own and nested and 0 <= _depth(line) < nested:  # an item further out than the assistant's
            own = True
        elif own and (content := CONTENT.match(line)) and number - 1 in turns:
            kept[number] = line[content.end() :]
        elif not own or STAMP.fullmatch(line) or TABLE_RULE.fullmatch(line):
            kept[number] = ""
        elif quoted:  # a turn within a callout
            kept[number] = re.sub(r"^[\s>]+", "", line)
    return kept


def _depth(line: str) -> int:
    """How far a list item is indented; -1 for a line that is none."""
    return len(line) - len(line.lstrip()) if re.match(r"\s*[-*+] ", line) else -1


def _turns(lines: list[str]) -> dict[int, tuple[str, str]]:
    """(speaker, text behind) of each line that begins a turn."""
    if saved := turns_of_program(lines):
        return saved
    begin = _behind_matter(lines)
    turns = {number: turn for number, line in enumerate(lines) if number >= begin and (turn := _turn(line))}
    signs = {n: match for n, line in enumerate(lines) if not line.isascii() and (match := BY_SIGN.match(line[:2000]))}
    robots = sum(bool(match["robot"]) for match in signs.values())
    if robots >= 2 or 0 < robots < len(signs):
        found = {n: ("assistant" if match["robot"] else "user", match["text"] + lines[n][2000:]) for n, match in signs.items()}
        turns = found | turns
    if _speakers_alone(lines):
        turns |= {number: (alone[0], "") for number, line in enumerate(lines) if number not in turns and (alone := _alone(line))}
    labelled = {number: match for number, line in enumerate(lines) if (match := ASKED.match(line))}
    if labelled and any(map(AS_A_MODEL.search, lines)):
        turns |= {number: ("user" if match[1] in "Qq" else "assistant", match[2]) for number, match in labelled.items()}
    return turns


def _behind_matter(lines: list[str]) -> int:
    """The number of the first line behind front matter, which has keys such as `model:` and `prompt:`."""
    if not lines or lines[0].rstrip() != "---":
        return 0
    return next((number + 1 for number, line in enumerate(lines[1:200], 1) if line.rstrip() == "---"), 0)


def _turn(line: str) -> tuple[str, str] | None:
    """(user, assistant or weak; the text behind) where a line begins a turn."""
    first = line.lstrip()[:1]
    plain = first.isascii() and first not in MAY_BEGIN
    if plain and (not first.isalnum() or ":" not in line and "：" not in line) or len(line) > 2000 and ":" not in line[:120]:
        return None
    if tag := TAGGED.match(line) if first == "<" else None:
        role = tag["role"].lower()
        return ("user" if role in ("user", "human") or role.startswith("/") else "assistant"), line[tag.end() :]
    if first == "[":
        line = BRACKETED.sub(r"\1\2", line, count=1)
    if role := ROLE.match(line):
        return ("user" if role["role"].lower() in ("user", "human") else "assistant"), ""
    if callout := CALLOUT.match(line):
        kind = callout["kind"].lower()
        return ("user" if kind in ("user", "human", "prompt") else "assistant", "") if kind != "question" else None
    lead = LEAD.match(line)
    match = TURN.match(line) if lead and lead[1].lower().startswith(FIRST) else None
    if not match:
        return None
    speaker = "user" if match["user"] else "assistant" if match["strong"] else "weak"
    decorated = re.search(r"[#*_>`@]|\[!|[\U0001f300-\U0001faff]", match["before"])
    if "|" in match["before"] and match["text"].startswith("|"):  # a row of a table
        return speaker, match["text"].strip("| ")
    if not match["colon"] and (match["text"] or not decorated):
        return None
    if (
        not decorated
        and match["user"]
        and match["user"].lower() in ("i", "ia", "du", "tu", "ben", "sen", "я", "我", "나")
        and not match["text"]
        and not match["said"]
    ):
        return None
    return speaker, match["text"]


def _speakers_alone(lines: list[str]) -> bool:
    """Whether lines name a speaker and nothing else, two for the owner and two for an assistant.

    One each is enough where a word such as "said" stands behind them, and where the owner's is the text's first line.
    """
    speakers = Counter[str]()
    for line in lines:
        if turn := _alone(line):
            speakers[turn[0]] += 2 if turn[1] else 1
    first = _alone(next((line for line in lines if line.strip()), ""))
    return min(speakers["user"], speakers["assistant"]) >= (1 if first and first[0] == "user" else 2)


def _alone(line: str) -> tuple[str, bool] | None:
    """The turn that begins on a line with nothing but its speaker, and whether a word such as "said" stands behind the name."""
    if not 0 < len(line) < 40 or not _may_name(line.lstrip()):
        return None
    user = ALONE_USER.fullmatch(line)
    match = user or ALONE_OTHER.fullmatch(line)
    return ("user" if user else "assistant", bool(match["said"])) if match else None


def _may_name(line: str) -> bool:
    """Whether a line begins like the name of a speaker."""
    return line[:2].lower() in BEGINNINGS or line[:1].lower() in BEGINNINGS and not line[1:2].isalpha()


def without_others(lines: list[str], stem: str, me: str | None, removed: Counter) -> list[str]:
    """The lines of a dialogue that `me` spoke, the others emptied; other texts as they are.

    Raises Skip for a conversation or a transcript that no reader understands: by its lines, or by its file's name.
    """
    filled = [line for line in lines[:2000] if line.strip()][:200]
    if APPS.search(stem) and sum(bool(re.search(r"\d{1,2}[:.]\d\d", line[:60])) for line in filled) > len(filled) / 4:
        raise Skip(ASK)
    if 2 <= sum(line.lstrip()[0] in "[{" and bool(JSON_TURN.match(line)) for line in filled) >= 0.5 * len(filled):
        raise Skip("looks like a conversation in JSON; give the file the ending .json or .jsonl, or leave it out")
    if any(len(line) <= 120 and MADE_BY.search(line) for line in filled[:4] + filled[-4:]):
        raise NotANote("texts of an assistant")
    interviewed = sum(bool(INTERVIEW.match(line)) for line in filled)
    if interviewed >= 2 and max(interviewed, sum(":" in line[:60] and bool(SPEAKER.match(line)) for line in filled)) >= max(
        3, 0.5 * len(filled)
    ):
        raise Skip("looks like an interview, which has the words of others")
    if sum(bool(SENT.fullmatch(line)) for line in filled) >= 2:
        raise Skip(ASK)
    if len(filled) < 3:
        return lines
    if HAS_TIME.search("\n".join(lines)):
        if sum(" --> " in line and bool(ARROW.search(line[:60])) for line in filled) > len(filled) / 5 or _is_transcript(filled):
            raise Skip("looks like a transcript of a recording, which has the words of others")
        if len(filled) >= 6 and _timed_writers(filled):
            raise Skip(ASK)
        if writers := _above_clocks(lines):
            return _of_writer(lines, writers, me, removed)
    names = _speakers(filled) if len(filled) >= 6 else set()
    if not names:
        return lines
    if not me or not any(is_me(name, me) for name in names):
        raise Skip(f"{ASK} ({', '.join(sorted(names)[:4])})")
    own, kept = True, []
    for line in lines:
        if (match := SPEAKER.match(line.strip()[:2000])) and match["name"] in names:
            own = is_me(match["name"], me)
            removed["messages of others"] += not own
            line = line.partition(":")[2].strip("*_ ")
        kept.append(line if own else "")
    return kept


def _above_clocks(lines: list[str]) -> dict[int, str]:
    """Writers by the lines that they stand on, each above a line with a clock alone, as talks are copied out of a window.

    The clock runs on, so that a diary of meals is none: its clock begins again with each day.
    """
    writers, minutes = dict[int, str](), list[int]()
    for number, line in enumerate(lines[1:], 1):
        clock = ALONE_CLOCK.fullmatch(line) if len(line) < 40 else None
        name = lines[number - 1].strip()
        if clock and name and len(name) <= 40 and len(name.split()) <= 4 and not re.search(r"\d|[.!?:,]$", name):
            writers[number - 1] = name
            minutes.append(int(clock["hour"]) % (12 if clock["half"] else 24) * 60 + int(clock["minute"]))
            minutes[-1] += 720 if (clock["half"] or "").lower().startswith("p") else 0
    rising = sum(a <= b for a, b in zip(minutes, minutes[1:], strict=False))
    if len(minutes) < 6 and minutes and minutes[-1] - minutes[0] > 60 * len(minutes):
        return {}  # places and hours of a day
    counts, filled = Counter(writers.values()), sum(bool(line.strip()) for line in lines)
    chat = (
        len(writers) >= max(3, filled / 8) and len(counts) >= 2 and max(counts.values()) >= 2 and rising >= 0.9 * (len(minutes) - 1)
    )
    return writers if chat else {}


def _of_writer(lines: list[str], writers: dict[int, str], me: str | None, removed: Counter) -> list[str]:
    """The owner's messages of a talk whose writers stand above clocks. Raises Skip where it is not known who that is."""
    if not me or not any(is_me(name, me) for name in writers.values()):
        raise Skip(f"{ASK} ({', '.join(sorted(set(writers.values()))[:4])})")
    kept, own = list(lines), True
    for number in range(len(lines)):
        if number in writers:
            own = is_me(writers[number], me)
            removed["messages of others"] += not own
        if not own or number in writers or number - 1 in writers:
            kept[number] = ""
    return kept


def _is_transcript(lines: list[str]) -> bool:
    """Lines begin with a clock that starts near zero and runs in seconds; a journal's clock shows the time of day."""
    clocks = [match[1] for line in lines if ":" in line and (match := CLOCK.match(line))]
    if not clocks:
        return False
    headed = sum(bool(NAMED_CLOCK.fullmatch(line)) for line in lines)
    if len(clocks) < max(2 if headed >= 2 else 3 if "[" in lines[-1][:3] or clocks[-1].count(":") == 2 else 4, 0.3 * len(lines)):
        return False
    seconds = [sum(int(part) * 60**place for place, part in enumerate(reversed(clock.split(":")))) for clock in clocks]
    rising = sum(a <= b for a, b in zip(seconds, seconds[1:], strict=False)) >= 0.9 * (len(seconds) - 1)
    return rising and seconds[0] < 180 and (seconds[-1] - seconds[0]) / len(seconds) < 90


def _timed_writers(lines: list[str]) -> bool:
    """Most lines have a time near their beginning, and what stands behind it begins with one of a few words: names."""
    behind = [re.split(r"\d{1,2}[:.]\d\d(?:[:.]\d\d)?(?: ?[ap]\.?m\.?)?", line[:60], maxsplit=1)[1:] for line in lines]
    timed = [re.findall(r"[^\W\d_]+", parts[0]) for parts in behind if parts]
    first = Counter(words[0] for words in timed if words)
    if len(timed) < 0.6 * len(lines) or len(first) > 8:
        return False
    return sum(count for count in first.values() if count >= FEWEST) > 0.8 * len(timed) and len(first) >= 2


def _speakers(lines: list[str]) -> set[str]:
    """The speakers of a text whose lines are mostly `Name: ...`: few names that come again, in no fixed order; else none.

    A form that is filled in again and again has its names in the same order.
    """
    matches = [SPEAKER.match(line.strip()[:2000]) if ":" in line else None for line in lines]
    spoken = list(filter(None, matches))
    names = [match["name"] for match in spoken]
    kinds = set(names)
    if len(names) < max(6, 0.5 * len(lines)) or not 2 <= len(kinds) <= 8 or min(Counter(names).values()) < 2:
        return set()
    if sum(len(match["text"].split()) for match in spoken) < 4 * len(names) or {name.lower() for name in kinds} <= FORM:
        return set()
    # Names on lines that follow each other.
    runs = [[match["name"] for match in run if match] for named, run in groupby(matches, key=bool) if named]
    if len(runs) > 2 and len({run[0] for run in runs}) == 1 and all(len(set(run)) == len(run) for run in runs):
        return set()  # entries of which each has the same fields
    alternating = len(kinds) == 2 or any(names[place] != names[place % len(kinds)] for place in range(len(names)))
    return kinds if alternating else set()
