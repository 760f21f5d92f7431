"""Secrets that a word announces: "password: ...", "die PIN lautet ...", "códigos de recuperación", in any usual notation.

`phrases` finds the words. Here the value behind them is read: after a colon, an equals sign, an arrow, a dash, "is", a space, or
a line end. How a value must look depends on the word and on what stands between.
"""

import re
from collections.abc import Iterator

from . import CODE, KEY, PASSWORD, Span
from .apart import beside_address, beside_thing, beside_word, of_security_questions
from .between import CLOSING, GROUPS, IS, LINE_OF, NEXT_LINE, QUALIFIER, REACH, SPACES, between
from .codes import beside, further, named, number, number_place
from .phrases import WIDE, Phrase, find
from .values import EDGE, PROSE, is_mixed, is_no_value, is_phrase, is_predicate, looks_made_up

QUOTED = re.compile(r"(?:[ \t]+[^\W\d_]{1,16}){0,2}[ \t]+[\"“„«'‘`]([^\"”“»'’`\n]{3,60})[\"”“»'’`]")
LINE = re.compile(r"[^\n]{1,120}")
LABEL = re.compile(r"(?:^|\n)[ \t>#*+•|-]*(?:\d+[.)] )?[*_]{0,3}(?:[^\W\d_][\w/'’.&()-]{0,24}[ ]){0,4}$")
TOKEN = re.compile(r"[^\s]{1,120}")
NAME_END = re.compile(r"(?:_[A-Za-z]{1,12}){1,2}(?=\s*[:=])")  # of a variable's name
OF_THING = re.compile(
    r"((?:[ \t]+[^\W\d_]{2,20}){1,2}|[ \t]+\([^()\n]{1,20}\))[ \t]+(\S{6,60})[ \t]*(?=\n|$)"
)  # " netflix cherries77"
DIGIT = re.compile(r"\d")
DIGITS = re.compile(r"(?:[ \t]*\([^()\n]{1,30}\))?[ \t]*(\d{4}(?:[ -]\d{4}){3,4})(?![\w-])")  # as it stands on a router
PART = re.compile(r"[;&](?=\s*[\w .-]{1,30}=)")
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
    r"(?:(?:[^\S\n][^\W\d_]{2,20}){1,4}[^\S\n]?(?:[:→]|->)|[^\S\n]*(?:[:=→]|->|[^\S\n]))[^\S\n]*([^\s/|,:]{1,60})(?:[^\S\n]*[/|]{1,2}[^\S\n]*|:|,[^\S\n])([^\s/|,][^\s]{2,60})"
)

OLD_AND_NEW = re.compile(  # a second password behind the first one
    r"[ \t]*[,;/|]?[ \t]*\(?(?:new|old|now|neu|alt|nouveau|ancien|nuev[oa]|antigu[oa]|nuova|vecchia|nov[oa]|antig[oa]"
    r"|nieuw|oud|nowe|stare"
    r"|nytt|gammalt|ny|yeni|eski|новый|старый)\)?(?: one)?[ \t]*(?:[:=]|(?:is|was|ist|war) )[ \t]*(\S{3,60})"
)
OF_THEM = frozenset(  # words that make it no label: "password managers: ..."
    "manager managers policy policies generator generators reset rules tool tools strength hint hints app "
    "apps length cracking hash hashing".split()
)
LISTED = re.compile(r"[ \t:]*\n[ \t>*+•-]*[^\W\d_][\w .'-]{1,30}(?:[:=]|[ ]-) ?(\S{4,40})(?=\n|$)")
APP_PASSWORD = re.compile(r"[a-z]{4}(?: [a-z]{4}){3}(?!\w)")  # as Google writes it
TIED = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+){2,}")
TIED_ALONE = re.compile(r"([^\W\d_]{3,20}-[^\W\d_]{3,20})[ \t]*(?=\n|$)")
PHRASE_LINE = re.compile(r"(?:^|\n)[ \t>*-]*pass: ?((?:[a-z]{3,10} ){2,7}[a-z]{3,10})[ \t]*(?=\n|$)")
WIFI_QUOTED = re.compile(
    r"\b(?:wi-?fi|wlan)\b[^\n\"“„«:=]{0,40}(?:(?<![^\W\d_])(?:is|ist|est|es|è|é|är|to)(?![^\W\d_])"
    r"|[:=])[ \t]*[\"“„«]([^\"”“»\n]{6,60})[\"”“»]"
)

NETWORKS = set("network netz netzwerk réseau red rete rede netwerk sieć сеть ağ".split())
NETWORK = re.compile(  # its name and its key, which has eight letters at least
    rf"\b(?:{'|'.join(sorted(NETWORKS))})[ \t]*[:=][ \t]*[^\n/|,:]{{1,32}}[/|,]{{1,2}}[ \t]*(\S{{8,63}})[ \t]*(?=\n|$)"
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
        found = list(_values(text, lower, phrase, begin, end))
        yield from found or beside_word(text, phrase, begin, end)
        if phrase.kind == PASSWORD and phrase.strong:
            start = max(0, begin - 100)
            before = BEFORE.search(text[start:begin]) if BACKWARDS.search(text, max(0, begin - 40), begin) else None
            if before and looks_made_up(before[1]) and not is_predicate(before[1]):
                yield start + before.start(1), start + before.end(1), PASSWORD
    yield from beside_thing(text, lower)
    yield from beside_address(text)
    yield from of_security_questions(text, lower)
    for match in WIFI_QUOTED.finditer(lower) if names & {"wifi", "wi", "wlan"} else ():
        if looks_made_up(match[1]):
            yield *match.span(1), PASSWORD
    for match in NETWORK.finditer(lower) if names & NETWORKS else ():
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
    if _nothing_follows(lower, phrase, begin, end):
        return
    if phrase.kind in (PASSWORD, KEY):
        span = _password(text, lower, phrase, begin, end)
        if span:
            yield *span, phrase.kind
            yield from ((*listed, phrase.kind) for listed in _listed(text, end, span[1]))
            if (other := OLD_AND_NEW.match(lower, span[1])) and looks_made_up(other[1]):
                yield *_trimmed(text, *other.span(1)), phrase.kind
        return
    place = number_place(text, phrase, end)
    span = number(text, phrase, *place) if place and (place[1] or not phrase.sure) else None
    if span is None and phrase.kind == CODE and not (phrase.sure or phrase.several):
        span = named(text, lower, begin, end)
    if span:
        yield *span, phrase.kind
        if phrase.several:
            yield from further(text, phrase.kind, span[1])
        elif phrase.kind == CODE:
            yield from beside(text, *span)


def _nothing_follows(lower: str, phrase: Phrase, begin: int, end: int) -> bool:
    """Whether what follows can hold no value: no digit for a number; no digit, sign, line end or "is" for a password."""
    if phrase.kind not in (PASSWORD, KEY):
        return not phrase.several and not DIGIT.search(lower, end, end + REACH)
    if not phrase.strong or lower.endswith("app ", 0, begin):
        return False
    window = lower[end : end + REACH]
    letters = window.replace(" ", "")
    return letters.isalpha() and (letters.isascii() or not WIDE.search(letters)) and IS.isdisjoint(window.split())


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
    match = between(window)
    if match and match["words"] and (match["cop"] or "")[:1] in ("'", "’"):
        match = None
    if match:
        at, sure = end + match.end(), bool(match["strong"])
        first = TOKEN.match(text, at)
        if (words := match["words"].split()) and not QUALIFIER.match(match["words"].lower()):
            made_up = first and (is_mixed(first[0]) or strong and len(words) <= 2 and _looks_chosen(first[0]))
            made_up = made_up and OF_THEM.isdisjoint(map(str.lower, words))
            plain = strong and first and len(words) <= 2 and is_mixed(first[0]) and not any(map(is_predicate, words))
            match = match if made_up and (sure or plain) else None
    if match:
        if match["quote"]:
            return _quoted(text, at, match["quote"], sure or strong)
        if "phras" in name and (line := LINE.match(text, at)):
            said = line[0].lower().rstrip(" .").split()
            if 3 <= len(said) <= 8 and said[0] not in PROSE and (sure or len(said) > 3 and PROSE.isdisjoint(said)):
                return at, at + len(line[0].rstrip(" ."))
        if phrase.kind == KEY and (groups := GROUPS.match(text, at)) and " " in groups[0] and re.search(r"\d", groups[0]):
            return groups.span()
        if strong and (digits := DIGITS.match(text, at)):
            return digits.span(1)
        if sure and name.startswith(("parol", "losung", "clave", "senha")) and (tied := TIED_ALONE.match(text, at)):
            return tied.span(1)
        if text[at : at + 1] not in ("\n", ""):
            return _written(text, at, strong, sure, variable)
    if strong and (first_line := LISTED.match(text, end)) and looks_made_up(first_line[1]):
        return first_line.span(1)
    below = NEXT_LINE.match(window)
    if below and strong and (":" in below[0] or "：" in below[0] or _is_label(text, begin)):
        return _below(text, end + below.end())
    line_of = LINE_OF.match(window) if strong else None
    if line_of and QUALIFIER.match(line_of[1].lower()) and _is_label(text, begin):
        if is_mixed(line_of[2]) or _looks_chosen(line_of[2]):
            return _trimmed(text, end + line_of.start(2), end + line_of.end(2))
    if strong and (digits := DIGITS.match(text, end)):
        return digits.span(1)
    of_thing = OF_THING.match(window) if phrase.strong and not variable else None
    if of_thing and is_mixed(of_thing[2]) and OF_THEM.isdisjoint(of_thing[1].lower().split()):
        if _is_label(text, begin) and not any(map(is_predicate, of_thing[1].split())):
            return _trimmed(text, end + of_thing.start(2), end + of_thing.end(2))
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
    if comma and strong and _is_label(text, begin) and is_phrase(comma[1]):
        return end + comma.start(1), end + comma.end(1)
    return None


def _quoted(text: str, at: int, quote: str, sure: bool) -> tuple[int, int] | None:
    """What stands between quotation marks, of any number of words."""
    mark = quote.strip("*_")[:1]
    line = LINE.match(text, at)
    if not line or line[0].isspace():
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
    if alone and len(word) >= 3:  # behind "は" alone, Japanese goes on with its sentence
        plain = word.lower() not in PROSE if sure else word.isalpha() and not is_predicate(word) and not WIDE.search(word)
        return (start, stop) if plain else None
    return None


def _below(text: str, at: int) -> tuple[int, int] | None:
    line = LINE.match(text, at)
    if not line:
        return None
    value = line[0].rstrip(" \t`\"'*")
    if value.endswith((":", "?")) or not is_phrase(value) or len(value) < 3:
        return None
    return at, at + len(value)


def _listed(text: str, end: int, at: int) -> Iterator[tuple[int, int]]:
    """The values of the lines `Name: value` behind a first one below a heading such as "Passwords"; `end`: the heading's."""
    while "\n" in text[end:at] and (line := LISTED.match(text, at)) and looks_made_up(line[1]):
        yield line.span(1)
        at = line.end()


def _is_label(text: str, begin: int) -> bool:
    """Whether the word at `begin` stands where a label does: first in its line, or behind a few words."""
    return bool(LABEL.search(text[max(0, begin - 120) : begin]))


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
