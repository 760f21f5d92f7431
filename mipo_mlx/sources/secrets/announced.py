"""Secrets that a word announces: "password: ...", "die PIN lautet ...", "códigos de recuperación", in any usual notation.

`phrases` finds the words. Here the value behind them is read: after a colon, an equals sign, an arrow, a dash, "is", a space, or
a line end. How a value must look depends on the word and on what stands between.
"""

import re
from collections.abc import Iterator

from . import CARD, CODE, IDENTITY, KEY, PASSWORD, Span
from .checked import is_card
from .phrases import Phrase, find
from .values import EDGE, PROSE, is_mixed, is_no_value, is_phrase, is_predicate, looks_made_up

REACH = 200  # characters behind a word in which its value begins and ends
BETWEEN = re.compile(  # a word in brackets, words such as "for the shed", and then what separates
    r"(?P<words>[ \t]*\([^()\n]{1,40}\)|(?:[ \t]+[^\s:=|,;!?()→/<>\"`]{1,24}(?<!\.)){0,6}?)[ \t]*[\"'`*_]{0,3}[ \t]*"
    r"(?:(?P<strong>:=|[:=]?=>|[-=–—]{1,3}>|>>|→|⇒|➜|➔|=(?!=)|[:：]{1,2}(?!//))"
    r"|(?P<dash>[–—]|-{1,2}(?= )|\.{2,5}|…)|(?P<cop>(?<=[^\S\n])(?:(?:changed|updated|geändert|cambiad[ao]|cambiat[ao]"
    r"|changé) (?:to|auf|in|a|en)|is|was|are|equals|ist|war|lautet|lauten|est|es|era"
    r"|sono|é|è|e'|är|er|jest|je|c['’]est|είναι|это|будет|to(?= \d))(?: now| still| jetzt)?(?=[\s:])"
    r"|['’]s(?= )|是|为|為|は、?|이|는|은)[ \t]*:?)[*_]{0,3}[ \t]*(?P<quote>[*_]{0,3}[\"'`“„«‘]{1,3})?(?:[*_]{1,3})?"
)
QUALIFIER = re.compile(
    r"[ \t]*(?:\(|(?:fürs|nuova|nuevo|nueva|nouveau|nova|novo|nieuwe|nya|nowe|yeni|actual|attuale|changed|for|of|to|on|at"
    r"|from|in|the|is|für|der|des|von|vom|zu|zum|zur|am|im|de|del|du|la|le|do|da|dos|di"
    r"|della|dell|van|voor|het|till|til|do|od|z|к|от|для|на|у|wifi|wi-fi|wlan|router|новый|new|neues|current)\b)"
)
CLOSING = {"“": "”", "„": "“”", "«": "»", "‘": "’", '"': '"', "'": "'", "`": "`"}
NEXT_LINE = re.compile(
    r"[ \t]*[*_#`]{0,3}[ \t]*[:：]?[ \t]*[*_`]{0,3}[ \t]*\n(?:[ \t]*\n){0,2}[ \t>]*(?:[-*+•][ \t]+|\d{1,2}[.)][ "
    r"\t]+)?[`\"'*]{0,3}"
)
QUOTED = re.compile(r"(?:[ \t]+[^\W\d_]{1,16}){0,2}[ \t]+[\"“„«'‘`]([^\"”“»'’`\n]{3,60})[\"”“»'’`]")
LINE = re.compile(r"[^\n]{1,120}")
LABEL = re.compile(r"(?:^|\n)[ \t>#*+•|-]*(?:\d+[.)] )?[*_]{0,3}(?:[^\W\d_][\w/'’.&()-]{0,24}[ ]){0,4}$")
SPACES = re.compile(r"(?:[ \t]+|(?<=[\u3040-\ud7ff]))[#№]?[ \t]*[\"'`(]?")
TOKEN = re.compile(r"[^\s]{1,120}")
NAME_END = re.compile(r"(?:_[A-Za-z]{1,12}){1,2}(?=\s*[:=])")  # of a variable's name
DOCUMENT = re.compile(r"[A-Z]{2,6}\d[A-Z0-9]{3,20}|[A-Z0-9<]{2,3}[A-Z0-9]{6,20}")  # a number of letters and digits
PART = re.compile(r"[;&](?=\s*[\w .-]{1,30}=)")
NUMBERS = re.compile(
    r"[A-Za-zА-Яа-я]{0,5}[-/ ]{0,1}[\d#*][\w#*]{0,20}(?:(?:[ \t]|[-./–][ ]?|[ \t](?:номер|№|klucz|ключ|key|no\.?|nr\.?"
    r"|left|right|links"
    r"|rechts|dann|then|gauche|droite|L|R)[ \t])(?=[\w]{0,3}\d|[A-Z]\b)[\w#*]{1,14}){0,8}"
)
RECOVERY = re.compile(r"[A-Za-z0-9]{3,10}(?:[- ][A-Za-z0-9]{3,10}){1,12}|[A-Za-z]{0,9}\d[A-Za-z0-9]{3,40}|[A-Z0-9]{8,40}")
GROUPS = re.compile(
    r"[A-Za-z0-9]{2,10}(?:-[A-Za-z0-9]{2,10}){1,9}\b|[A-Z2-7]{4}(?: [A-Z2-7]{4}){1,15}\b|[a-z2-7]{4}(?: [a-z2-7]{4}){3,15}\b"
)
AND_ON = re.compile(
    r"(?:[ \t]*[,;/|][ \t]*|[ \t]{1,4}|[ \t]*(?:\n[ \t]*){1,2}(?:[-*+•][ \t]+|\d{1,2}[.)][ \t]+|\[[ x]\][ \t]+)?)[`\"]?"
)
DATE = re.compile(
    r"(?:19|20)\d\d(?:[-./ ]\d{1,2}[-./ ]\d{1,2})?|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)?\d\d|(?:19|20)\d\d\s*[-–/]\s*(?:19"
    r"|20)?\d\d"
)
BEFORE = re.compile(  # "hunter2 is my wifi password"
    r"(?:^|(?<=[\s\"'`(]))([^\s\"'`]{4,60})[\"'`]?\s{1,2}(?:(?:is|was|ist|war|est|es|è|é|är|er|jest|to|=)\s(?:now "
    r")?(?:(?:the|my|our|your|das|mein|unser|die|meine|le|mon|la|el|mi|il|de|het|mijn|o|a|мой)\s)?"
    r"(?:[^\W\d_]{1,12}[ -]){0,3}|\(|(?:<[-=]+|←)\s(?:[^\W\d_]{1,12}[ -]){0,3})$",
    re.IGNORECASE,
)
BACKWARDS = re.compile(r"\s(?:is|was|ist|war|est|es|è|é|är|er|jest|to|=|<[-=]+|←)\s|\($", re.IGNORECASE)
IDENTIFIER = re.compile(r"[A-Za-z]+(?:[_-][A-Za-z]+)+|[a-z]+(?:[A-Z][a-z]+)+")
WIRELESS = re.compile(r"wi-?fi|wlan|ssid|\bwpa|router|hotspot|netz|réseau|red\b")
USER = re.compile(
    r"\b(?:user(?:name)?|login|log-?in|benutzer(?:name)?|utilisateur|usuario|utente|gebruiker|account)\b[^\n]{0,40}$|-fi "
    r"|wifi |wlan "
)
PAIR = re.compile(  # "login: nell / seaweed7"
    r"\b(?:login|log-in|credentials?|creds|zugangsdaten|zugang|anmeldung|identifiants?|connexion|acceso|credenciales"
    r"|usuario|accesso|credenziali|inloggegevens|acesso|логин|wi-?fi|wlan)\b"
    r"(?:(?:[^\S\n][^\W\d_]{2,20}){1,4}:|[^\S\n]*(?:[:=]|[^\S\n]))[^\S\n]*([^\s/|,:]{1,60})(?:[^\S\n]*[/|][^\S\n]*|:|,[^\S\n])([^\s/|,][^\s]{2,60})"
)

OLD_AND_NEW = re.compile(  # a second password behind the first one
    r"[ \t]*[,;/|]?[ \t]*\(?(?:new|old|now|neu|alt|nouveau|ancien|nuev[oa]|antigu[oa]|nuova|vecchia|nov[oa]|antig[oa]"
    r"|nieuw|oud|nowe|stare"
    r"|nytt|gammalt|ny|yeni|eski|новый|старый)\)?(?: one)?[ \t]*(?:[:=]|(?:is|was|ist|war) )[ \t]*(\S{3,60})"
)
OF_THEM = frozenset(  # words that make it no label: "password managers: ..."
    "manager managers policy policies generator generators reset rules tool tools strength hint hints app "
    "apps length cracking".split()
)
NO_LOCK = re.compile(r"\b(?:zip|post(?:al)?|area|error|source|status|colou?r|country|bar|qr|dress)[ -]?codes?\b", re.IGNORECASE)
LISTED = re.compile(r"[ \t:]*\n[ \t>*+•-]*[^\W\d_][\w .'-]{1,30}(?:[:=]|[ ]-) ?(\S{4,40})(?=\n|$)")
NAMED_LIST = re.compile(r"(?:[ \t]+[^\W\d_]{1,16}){1,2}(?=[ \t]*[:：])")
DIAL = re.compile(  # of a safe or a padlock: left 22, right 7, left 31
    r"(?:left|right|links|rechts|gauche|droite|L|R) ?\d{1,2}(?:[ ,;/–-]{1,3}(?:(?:then|dann|puis) )?(?:left|right|links"
    r"|rechts|gauche|droite|L|R) ?\d{1,2}){1,3}",
    re.IGNORECASE,
)
APP_PASSWORD = re.compile(r"[a-z]{4}(?: [a-z]{4}){3}(?!\w)")  # as Google writes it
BESIDE = re.compile(r"[ \t]*[,;/|][ \t]*(?:[^\W\d_][\w'’-]*[ \t]+){1,6}?[=:]?[ \t]*(\d{4,8})(?!\w|[.,:/%-]\d| ?[%€$£])")
SIGNED_CODE = re.compile(r"(?=[^\s\d]{0,20}\d)(?=[^\sA-Za-z]{0,20}[A-Za-z])\w{1,20}[!@#$%&*?+][\w!@#$%&*?+]{0,20}(?!\S)")
TIED = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+){2,}")
PHRASE_LINE = re.compile(r"(?:^|\n)[ \t>*-]*pass: ?((?:[a-z]{3,10} ){2,7}[a-z]{3,10})[ \t]*(?=\n|$)")
WIFI_QUOTED = re.compile(
    r"\b(?:wi-?fi|wlan)\b[^\n\"“„«:=]{0,40}(?:(?<![^\W\d_])(?:is|ist|est|es|è|é|är|to)(?![^\W\d_])"
    r"|[:=])[ \t]*[\"“„«]([^\"”“»\n]{6,60})[\"”“»]"
)

PAIR_WORDS = set(  # one of these is in every match
    "login log credential credentials creds zugangsdaten zugang anmeldung identifiant identifiants connexion acceso "
    "credenciales usuario accesso credenziali inloggegevens acesso логин wifi wi wlan".split()
)


def announced(text: str, lower: str, names: set[str]) -> Iterator[Span]:
    """Every secret that a word of `phrases` announces in `text`; `lower` is the text in lower case, letter for letter.

    names: the words of the text.
    """
    for phrase, begin, end in find(lower, names):
        yield from _values(text, lower, phrase, begin, end)
        if phrase.kind == PASSWORD and phrase.strong:
            start = max(0, begin - 100)
            before = BEFORE.search(text[start:begin]) if BACKWARDS.search(text, max(0, begin - 40), begin) else None
            if before and looks_made_up(before[1]) and not is_predicate(before[1]):
                yield start + before.start(1), start + before.end(1), PASSWORD
    for match in WIFI_QUOTED.finditer(lower) if names & {"wifi", "wi", "wlan"} else ():
        if looks_made_up(match[1]):
            yield *match.span(1), PASSWORD
    for match in PHRASE_LINE.finditer(text) if "pass" in names else ():
        if is_phrase(match[1]):
            yield *match.span(1), PASSWORD
    for match in PAIR.finditer(lower) if names & PAIR_WORDS else ():
        if looks_made_up(text[match.start(2) : match.end(2)]) and not match[2].startswith("/"):
            yield *_trimmed(text, match.start(2), match.end(2)), PASSWORD


def _values(text: str, lower: str, phrase: Phrase, begin: int, end: int) -> Iterator[Span]:
    if begin and text[begin - 1] == "_" and phrase.kind not in (PASSWORD, KEY):
        return  # a variable's name, such as led_pin
    end += text[end : end + 1] == "."  # an abbreviation, such as no.
    if phrase.kind in (PASSWORD, KEY):
        span = _password(text, lower, phrase, begin, end)
        if span:
            yield *span, phrase.kind
            yield from ((*listed, phrase.kind) for listed in _listed(text, end, span[1]))
            if (other := OLD_AND_NEW.match(lower, span[1])) and looks_made_up(other[1]):
                yield *_trimmed(text, *other.span(1)), phrase.kind
        return
    place = _number_place(text, phrase, end)
    if place is None or (phrase.sure and not place[1]):
        return
    span = _number(text, phrase, *place)
    if span:
        yield *span, phrase.kind
        if phrase.several:
            yield from _further(text, phrase.kind, span[1])
        elif phrase.kind == CODE:
            yield from _beside(text, *span)


def _password(text: str, lower: str, phrase: Phrase, begin: int, end: int) -> tuple[int, int] | None:
    name = lower[begin:end]
    variable = begin > 0 and text[begin - 1] == "_" or text[end : end + 1] == "_"
    strong = phrase.strong or (
        name.startswith(("pass", "key", "clave", "clé", "schlüssel"))
        and bool(WIRELESS.search(lower[max(0, begin - 40) : begin]) or USER.search(lower[max(0, begin - 60) : begin]))
    )
    if text[end : end + 1] == "_":  # SECRET_KEY_BASE, password_hash
        rest = NAME_END.match(text, end)
        if not rest:
            return None
        end, strong = rest.end(), False
    window = text[end : end + REACH]
    match = BETWEEN.match(window)
    if match and match["words"] and (match["cop"] or "")[:1] in ("'", "’"):
        match = None
    if match:
        at, sure = end + match.end(), bool(match["strong"])
        first = TOKEN.match(text, at)
        if (words := match["words"].split()) and not QUALIFIER.match(match["words"].lower()):
            made_up = first and (is_mixed(first[0]) or strong and len(words) <= 2 and _looks_chosen(first[0]))
            made_up = made_up and OF_THEM.isdisjoint(map(str.lower, words))
            match = match if sure and made_up else None
    if match:
        if match["quote"]:
            return _quoted(text, at, match["quote"], sure or strong)
        if (
            "phras" in name
            and sure
            and (line := LINE.match(text, at))
            and 3 <= len(line[0].split()) <= 8
            and line[0].split()[0].lower() not in PROSE
        ):
            return at, at + len(line[0].rstrip(" ."))
        if phrase.kind == KEY and (groups := GROUPS.match(text, at)) and " " in groups[0] and re.search(r"\d", groups[0]):
            return groups.span()
        if text[at : at + 1] not in ("\n", ""):
            return _written(text, at, strong, sure, variable)
    if strong and (first_line := LISTED.match(text, end)) and looks_made_up(first_line[1]):
        return first_line.span(1)
    below = NEXT_LINE.match(window)
    if below and strong and (":" in below[0] or "：" in below[0] or LABEL.search(text[max(0, begin - 120) : begin])):
        return _below(text, end + below.end())
    quoted = QUOTED.match(window) if strong else None
    if quoted and looks_made_up(quoted[1]):
        return end + quoted.start(1), end + quoted.end(1)
    space = SPACES.match(text, end)
    if space and lower[max(0, begin - 4) : begin] == "app " and (groups := APP_PASSWORD.match(text, space.end())):
        return groups.span()
    if space and (token := TOKEN.match(text, space.end())):
        start, stop = _trimmed(text, *token.span())
        word = text[start:stop]
        enough = looks_made_up(word) if strong else is_mixed(word) and name != "key"
        if enough and not variable and re.search(r"\d|\w[!@#$%^&*_]\w?", word) and not re.fullmatch(r"\d{1,3}\W*", word):
            return start, stop
        if variable and is_mixed(word):  # set -x SHED_TOKEN value
            return start, stop
        if (
            strong and not phrase.strong and word.isalpha() and len(word) >= 8 and not is_predicate(word)
        ):  # SSID Shed, key kelpandtide
            return start, stop
        if phrase.kind == KEY and (groups := GROUPS.match(text, space.end())):
            return groups.span()
    comma = re.match(r", ?([^\n,]{3,60})(?=\n|$)", window)
    if comma and strong and LABEL.search(text[max(0, begin - 120) : begin]) and is_phrase(comma[1]):
        return end + comma.start(1), end + comma.end(1)
    return None


def _quoted(text: str, at: int, quote: str, sure: bool) -> tuple[int, int] | None:
    """What stands between quotation marks, of any number of words."""
    mark = quote.strip("*_")[:1]
    line = LINE.match(text, at)
    if not line:
        return None
    closing = min((place for char in CLOSING.get(mark, mark) if (place := line[0].find(char)) > 0), default=-1)
    value = line[0][:closing] if closing > 0 else line[0].split()[0]
    single = " " not in value.strip()
    if is_no_value(value) or (not sure and not looks_made_up(value)) or (single and len(value) < 3):
        return None
    return at, at + len(value)


def _written(text: str, at: int, strong: bool, sure: bool, variable: bool) -> tuple[int, int] | None:
    """A value without quotation marks: one word, or several to the end of the line."""
    line = LINE.match(text, at)
    if not line:
        return None
    value = re.split(r"\s+[(#|]|\||;;", line[0])[0].rstrip()
    if part := PART.search(value):
        value = value[: part.start()]
    first = TOKEN.match(value)
    if not first:
        return None
    start, stop = _trimmed(text, at, at + first.end())
    word = text[start:stop]
    if variable:  # code and settings may stand behind a variable's name: there a number, a call and a placeholder do not count
        made_up = bool(re.search(r"[^\W\d_]", word) and re.search(r"\d|\w[!@#$%^&*?]|\w[-.]\w", word)) and not is_no_value(word)
        plain = text[at - 1] == "=" and strong and word.isalpha() and not is_no_value(word)
        return (start, stop) if made_up or plain else None
    if strong and sure and " " in value and is_phrase(value) and len(value) < 80:
        return at, at + len(value.rstrip(".") if value.count(".") == 1 else value)
    if is_no_value(word):
        return None
    if not strong:
        return (
            (start, stop)
            if is_mixed(word)
            or (looks_made_up(word) and sure and len(word) >= 8 and not word.isdigit() and not IDENTIFIER.fullmatch(word))
            else None
        )
    if looks_made_up(word):
        return (start, stop) if not re.fullmatch(r"\d{1,3}\W*", word) else None
    alone = len(value.split()) == 1 or re.match(r"[.,;!?)]", text[stop : stop + 1] or "x")
    if alone and len(word) >= 3 and (word.lower() not in PROSE if sure else word.isalpha() and not is_predicate(word)):
        return start, stop
    return None


def _below(text: str, at: int) -> tuple[int, int] | None:
    line = LINE.match(text, at)
    if not line:
        return None
    value = line[0].rstrip(" \t`\"'*")
    if value.endswith((":", "?")) or not is_phrase(value) or len(value) < 3:
        return None
    return at, at + len(value)


def _number_place(text: str, phrase: Phrase, end: int) -> tuple[int, bool] | None:
    """(where the value begins, whether something separates it from its word)."""
    window = text[end : end + REACH]
    match = BETWEEN.match(window)
    if match and (not match["words"].strip() or phrase.kind in (CODE, CARD) or QUALIFIER.match(match["words"].lower())):
        at = end + match.end()
        if text[at : at + 1] not in ("\n", ""):
            return at, True
    named = NAMED_LIST.match(window) if phrase.several else None
    below = NEXT_LINE.match(window, named.end() if named else 0)
    if below:
        return (end + below.end(), False) if phrase.several or ":" in below[0] else None
    space = SPACES.match(text, end)
    return (space.end(), False) if space else None


def _number(text: str, phrase: Phrase, at: int, separated: bool) -> tuple[int, int] | None:
    """A number, a code in groups, or letters and digits mixed, as the kind of what is announced asks for."""
    if phrase.several and (match := RECOVERY.match(text, at)):
        if re.search(r"\d", match[0]) or match[0].upper() == match[0]:
            return match.span()
    if separated and phrase.kind == CODE and (sign := SIGNED_CODE.match(text, at)) and looks_made_up(sign[0]):
        return sign.span()
    if phrase.kind == CODE and (dial := DIAL.match(text, at)):
        return dial.span()
    match = NUMBERS.match(text, at) or GROUPS.match(text, at)
    if not match and phrase.kind == IDENTITY:
        match = DOCUMENT.match(text, at)
    if not match:
        return None
    value = match[0].rstrip(" -./–")
    digits = sum(char.isdigit() for char in value)
    least, most = {CODE: (3, 48), IDENTITY: (5, 24), CARD: (13, 19)}.get(phrase.kind, (6, 34))
    if phrase.kind == IDENTITY and len(value) >= 8 and " " not in value and value.isalnum() and not value.isdigit():
        least = 3
    if not least <= digits <= most or (_is_date(value) and (phrase.kind != CODE or phrase.sure or len(value) > 8)):
        return None
    if phrase.kind == CODE and (not separated and digits < 4 and not text[max(0, at - 6) : at].lower().startswith("cv")):
        if not re.search(r"cv[vc]|csc|gram|prüf", text[max(0, at - 24) : at].lower()):
            return None
    if phrase.sure and NO_LOCK.search(text, max(0, at - 60), at):
        return None
    if phrase.sure and (
        digits < 4 or re.fullmatch(r"(?:[01]\d|2[0-3])[0-5]\d", value) and "alarm" in text[max(0, at - 12) : at].lower()
    ):
        return None
    after = text[match.start() + len(value) : match.start() + len(value) + 12]
    if phrase.kind == CODE and re.match(
        r" ?(?:[:.]\d|%|€|\$|£|metre|meter|mhz|ghz|lines|files|of\b|am\b|pm\b|uhr\b|km\b|kg\b)", after.lower()
    ):
        return None
    return match.start(), match.start() + (_card(value) if phrase.kind == CARD else len(value))


def _card(value: str) -> int:
    """The length of the card's number in a row of digits: its security code or its last month may follow."""
    ends = [end.end() for end in re.finditer(r"\d(?!\d)", value)]
    return max((end for end in ends if is_card(value[:end])), default=len(value))


def _is_date(value: str) -> bool:
    """Whether a number is a year, two years, or a day that the calendar has."""
    groups = [int(group) for group in re.findall(r"\d+", value)]
    if not DATE.fullmatch(value.strip()):
        return False
    return len(groups) < 3 or any(
        1 <= m <= 12 and 1 <= d <= 31 for d, m in ((groups[0], groups[1]), (groups[1], groups[0]), (groups[2], groups[1]))
    )


def _further(text: str, kind: str, at: int) -> Iterator[Span]:
    """Values of a list behind the first one: recovery codes stand in lines, after bullets, or between commas."""
    for _ in range(40):
        gap = AND_ON.match(text, at)
        match = RECOVERY.match(text, gap.end()) if gap else None
        if not match or not re.search(r"\d", match[0]) or _is_date(match[0]):
            return
        yield *match.span(), kind
        at = match.end()


def _listed(text: str, end: int, at: int) -> Iterator[tuple[int, int]]:
    """The values of the lines `Name: value` behind a first one below a heading such as "Passwords"; `end`: the heading's."""
    while "\n" in text[end:at] and (line := LISTED.match(text, at)) and looks_made_up(line[1]):
        yield line.span(1)
        at = line.end()


def _beside(text: str, begin: int, end: int) -> Iterator[Span]:
    """A second code in the sentence of a first one, with as many digits: "PIN of this card: ..., of that one ..."."""
    digits = sum(map(str.isdigit, text[begin:end]))
    match = BESIDE.match(text, end)
    if match and abs(len(match[1]) - digits) <= 2 and not _is_date(match[1]):
        yield *match.span(1), CODE


def _looks_chosen(word: str) -> bool:
    """`hunter2`, and words that are tied together: `boat-on-the-pier`."""
    return bool(TIED.fullmatch(word)) or looks_made_up(word) and bool(re.search(r"\d|[^\w\s.-]", word))


def _trimmed(text: str, begin: int, end: int) -> tuple[int, int]:
    """A word without quotation marks around it, and without what ends a sentence."""
    while begin < end and text[begin] in EDGE:
        begin += 1
    while end > begin and text[end - 1] in EDGE + ",;":
        end -= 1
    if end - begin > 1 and text[end - 1] in ".:" or text[end - 1 : end] == ")" and "(" not in text[begin:end]:
        end -= 1
    while end > begin and text[end - 1] in EDGE:
        end -= 1
    return begin, end
