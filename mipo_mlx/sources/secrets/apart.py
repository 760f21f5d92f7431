"""Secrets that stand apart from their word: somewhere in its line, with any words between, before or behind it.

`announced` reads what is tied to a word by a sign, "is" or a space. Here no notation is known. What counts is the line, which has
a word of `phrases` or a thing with a lock, and the value, which looks like nothing that a sentence has: letters, digits and a sign
in one; a row of digits that something is done with; the letters and digits of a document.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator

from . import CODE, IDENTITY, PASSWORD, WORD, Span
from .between import THINGS
from .codes import is_date
from .phrases import Phrase
from .values import PROSE, is_mixed, is_no_value

NEAR = 120  # characters before and behind a word in which its value is looked for
DIGIT = re.compile(r"\d")
APART = r"\s\"'“”„«»‘’`(),;:|"
TOKEN = re.compile(rf"(?<![^{APART}])[^{APART}]{{6,40}}(?![^{APART}])")
# A letter and a digit, then a sign that no name has, or one that names have and letters of both cases.
SIGNED = re.compile(
    r"(?=.*[^\W\d_])(?=.*\d)(?:\w[\w.-]*[!#$%&*+?^~@][\w!#$%&*+?^~@.-]*"
    r"|(?=.*[a-zа-яß-ÿ])(?=.*[A-ZА-ЯÀ-Þ])\w+[_.-]\w+!?)"
)
NAMELIKE = re.compile(  # a release, a host, an address, a file, a name with its number, a variable: what sentences have
    r".*\d\.\d.*|[\w.-]+\.[A-Za-z]{2,5}|.*@[\w-]+\.\w.*|[^\W\d_]+-\d+|(?:[a-z]+_)+\w{1,2}|[A-Za-z]{1,3}\d*[-+#]{1,2}\d*"
    r"|.*(?:%\d[0-9A-F]){2}.*"
)
DOCUMENT = re.compile(r"(?<![\w.:-])(?=[A-Z\d]*[A-Z])(?=(?:[A-Z]*\d){3})[A-Z\d]{7,12}(?![\w-])")
LETTER = r"0-9A-Za-z_À-ɏЀ-ӿ"  # without those that are written with no space between words
TIED = re.compile(r"(?:[:=]|(?<!\w)(?:is|ist|est|es|è|é|är|er|jest|это))[ \t]$")
NUMBER = re.compile(
    rf"(?<![{LETTER}.,:/%$€£+-])(\d{{4,8}}|\d{{1,2}}(-\d{{1,2}}){{2,3}}|[A-Z]\d{{4}}|\d{{3,5}}[A-Z])"
    rf"(?![{LETTER}:/%$€£-]|[.,]\d| ?[€$£%])"
)
TOOL = (  # before a number that something is done with: "opens with", "type", "the code"
    r"(?:turn|set)(?: it)? to|with|mit|avec|con|com|met|med|ze?|с|со|using|via|type|enter|press|punch(?: in)?|dial|use|tippen?"
    r"|tippe|eingeben|taper?|tapez"
    r"|composer|pulsar?|marcar?|teclear|digitar[ei]?|digita|toetsen|toets|wpisać|wpisz|набрать|набери|slå|knappa|tuşla"
    r"|now|jetzt|maintenant|ahora|adesso|agora|nu|teraz|теперь|şimdi"
    r"|[^\W\d_]*(?:codes?|kod(?:u|en|e)?|kód|koodi|zahl)|c[óo]digo|codice|код|кодом|шифр"
)
BEFORE = re.compile(
    rf"(?<!\w)(?:{TOOL})(?: (?:is|ist|est|es|è|é|the|den|le|el|il|o|de)(?: number)?)?[ :\"'„“«]{{1,3}}$"
    r"|[はを按是为]$|输入$|輸入$"
)
BEHIND = re.compile(
    r"[#*\"'“”»]{0,2} ?(?:to (?:open|unlock|get in)\b|(?:ein|an)?tippen|eingeben|drücken|ile|yaz\w*|tuşla\w*|invoeren|intoetsen"
    r"|を|で開|就开"
    r"|开门|slår)"
)
ENDS = re.compile(r"[#*\"'“”»)]{0,2}[ \t]*(?:$|[.;,!?)–—|\n]|([^\W\d_]+))")
THING = re.compile(
    rf"(?<![^\W\d_])(?:{THINGS.pattern}|kap[ıi]\w*|alarm\w{{1,3}}|bram[aęy]|дверь|ворота|aufzug|fahrstuhl|lift|ascenseur"
    rf"|codes?|kod\w?|c[óo]digo|codice|код)(?![^\W\d_])|门|門|ドア|玄関|金庫|保险箱"
)
ON = PROSE | frozenset(  # what may follow a number that counts nothing
    "then dann danach puis ensuite luego después poi quindi daarna potem затем потом depois then sonra within".split()
)
ADDRESS = re.compile(  # "nell@example.org with ...", and a password behind it
    r"\w@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,12}[ \t]*(?:[/|,;:]|[ \t](?:with|mit|avec|con|com|met|med|und|and|y|et|e|pw))[ \t]+"
    r"([^\s/]{6,40})(?!\S)"
)
MAIDEN = (
    r"maiden name|m[äa]dchenname[^\W\d_]*|nom de jeune fille|apellido de soltera|cognome da nubile|nome de solteira|meisjesnaam"
    r"|nazwisko panieńskie|девичья фамилия"
)
QUESTION = (
    r"(?:security|secret) question|sicherheitsfrage|question (?:de sécurité|secrète)|pregunta (?:de seguridad|secreta)"
    r"|domanda (?:di sicurezza|segreta)|pergunta (?:de segurança|secreta)|beveiligingsvraag|контрольный вопрос"
)
ASKED = (  # one of these is in every match of ANSWERED
    "maiden mädchenname madchenname fille soltera nubile solteira meisjesnaam panieńskie девичья question sicherheitsfrage "
    "pregunta domanda pergunta beveiligingsvraag контрольный"
).split()
ANSWERED = re.compile(  # the answer of a security question, which stands for itself: behind the question, or before its name
    rf"(?:(?<!\w)(?:{MAIDEN})[^\n:=?→]{{0,30}}(?:[:=→?]|->)"
    rf"|(?<!\w)(?:{QUESTION})s?(?:[^\n:=→]{{0,60}}[:=→])?[^\n:=?→]{{0,60}}(?:[=→?:]|->)"
    rf"|\?(?=[^\n]{{2,60}}\((?:[^\W\d_]+ ){{0,2}}(?:{QUESTION})\)))"
    r"[ \t\"'„“«]*([^\W\d_][\w'’-]{2,30}(?: [\w'’-]{2,30}){0,2}?)(?=[ \t]*(?:[.,;)\"'“”»(]|\n|$))",
    re.IGNORECASE,
)
NO_CODE = re.compile(
    r"(?:zip|postal|post|area|error|exit|status|country|bar|qr|source|product|fehler|postleit)[ -]?(?:code|kod|codice|zahl)"
)


def beside_word(text: str, phrase: Phrase, begin: int, end: int) -> Iterator[Span]:
    """The value of a word with nothing tied to it: the first one behind it in its line, or else the last one before it."""
    if phrase.kind == PASSWORD and phrase.strong:
        first, last = _line(text, begin, end)
        if DIGIT.search(text, first, last):
            spans = [span for match in TOKEN.finditer(text, first, last + 40) if (span := _bare(text, *match.span()))]
            behind, before = [span for span in spans if begin < span[0] < last], [span for span in spans if span[1] <= begin]
            yield from ((*span, PASSWORD) for span in behind[:1] or before[-1:])
    elif phrase.kind == IDENTITY and end - begin > 2:
        match = DOCUMENT.search(text, end, min(end + 40, _line(text, begin, end)[1]))
        if match and (
            TIED.search(text, end, match.start())
            or all(word[0].isupper() or word.lower() in PROSE for word in WORD.findall(text, end, match.start()))
        ):
            yield *match.span(), IDENTITY


def beside_thing(text: str, lower: str) -> Iterator[Span]:
    """Every number that a sentence uses on something with a lock: "the lockbox by the meter opens with ..."."""
    things: list[int] | None = None  # where each begins: one search for all numbers, and none without a number
    for match in NUMBER.finditer(text):
        first, last = _line(text, *match.span())
        if not (match[2] and not is_date(match[1]) or _is_used(lower, first, *match.span(), last)):
            continue
        things = [thing.start() for thing in THING.finditer(lower)] if things is None else things
        if bisect_left(things, first) < bisect_left(things, last) and not NO_CODE.search(lower, first, match.start()):
            yield *match.span(1), CODE


def beside_address(text: str) -> Iterator[Span]:
    """A password behind an e-mail address: letters and digits in one word, which no sentence has there."""
    for match in ADDRESS.finditer(text) if "@" in text else ():
        if is_mixed(match[1]) and "@" not in match[1] and "://" not in match[1]:
            yield match.start(1), match.start(1) + len(match[1].rstrip(".,;)")), PASSWORD


def is_asked(lower: str) -> bool:
    """Whether a text in lower case may have the answer of a security question."""
    return any(map(lower.__contains__, ASKED))


def of_security_questions(text: str, lower: str) -> Iterator[Span]:
    """The answers of questions that a bank asks: "mother's maiden name: ...", "first pet? ... (security question)"."""
    for match in ANSWERED.finditer(text) if is_asked(lower) else ():
        words = match[1].split()
        if len(words) == 1 or all(word[0].isupper() for word in words):
            yield *match.span(1), PASSWORD


def _is_used(lower: str, first: int, begin: int, end: int, last: int) -> bool:
    """Whether a sentence does something with a number, and counts nothing with it: "with 4000 people"."""
    follows = ENDS.match(lower, end, last)
    counted = follows and follows[1] and (follows[1] not in ON or lower[begin : begin + 2] in ("19", "20"))
    used = follows and not counted and BEFORE.search(lower[max(first, begin - 32) : begin])
    return bool(used or BEHIND.match(lower, end, last))


def _line(text: str, begin: int, end: int) -> tuple[int, int]:
    """The part of a line around a word that is near to it."""
    first = max(0, begin - NEAR, text.rfind("\n", max(0, begin - NEAR), begin) + 1)
    stop = text.find("\n", end, end + NEAR)
    return first, stop if stop >= 0 else min(end + NEAR, len(text))


def _bare(text: str, begin: int, end: int) -> tuple[int, int] | None:
    """A word without the stop of its sentence, if it is a password whatever stands around it."""
    word = text[begin:end].rstrip(".?" if text[begin:end].count("?") == 1 and not DIGIT.search(text[end - 2 : end]) else ".")
    made_up = SIGNED.fullmatch(word) and not NAMELIKE.fullmatch(word) and not is_no_value(word)
    return (begin, begin + len(word)) if made_up else None
