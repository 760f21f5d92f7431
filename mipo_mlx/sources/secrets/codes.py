"""Numbers that a word of `phrases` announces: PINs and codes of doors, recovery codes, numbers of cards, accounts and ids."""

import re
from collections.abc import Iterator

from . import CARD, CODE, IDENTITY, Span
from .between import GROUPS, NEXT_LINE, QUALIFIER, REACH, SPACES, behind_names, between
from .checked import is_card
from .phrases import Phrase
from .values import PROSE, looks_made_up

DOCUMENT = re.compile(r"[A-Z]{2,6}\d[A-Z0-9]{3,20}|[A-Z0-9<]{2,3}[A-Z0-9]{6,20}")  # a number of letters and digits
NUMBERS = re.compile(
    r"[A-Za-zА-Яа-я]{0,5}[-/ ]{0,1}[\d#*][\w#*]{0,20}(?:(?:[ \t]|[-./–][ ]?|[ \t](?:номер|№|klucz|ключ|key|no\.?|nr\.?"
    r"|left|right|links"
    r"|rechts|dann|then|gauche|droite|L|R)[ \t])(?=[\w]{0,3}\d|[A-Z]\b)[\w#*]{1,14}){0,8}"
)
RECOVERY = re.compile(r"[A-Za-z0-9]{3,10}(?:[- ][A-Za-z0-9]{3,10}){1,12}|[A-Za-z]{0,9}\d[A-Za-z0-9]{3,40}|[A-Z0-9]{8,40}")
AND_ON = re.compile(
    r"(?:[ \t]*[,;/|][ \t]*|[ \t]{1,4}|[ \t]*(?:\n[ \t]*){1,2}(?:[-*+•][ \t]+|\d{1,2}[.)][ \t]+|\[[ x]\][ \t]+)?)[`\"]?"
)
DATE = re.compile(
    r"(?:19|20)\d\d(?:[-./ ]\d{1,2}[-./ ]\d{1,2})?|\d{1,2}[-./ ]\d{1,2}[-./ ](?:19|20)?\d\d|(?:19|20)\d\d\s*[-–/]\s*(?:19"
    r"|20)?\d\d"
)
NO_LOCK = re.compile(r"\b(?:zip|post(?:al)?|area|error|source|status|colou?r|country|bar|qr|dress)[ -]?codes?\b", re.IGNORECASE)
NAMED_LIST = re.compile(
    r"(?:[ \t]+\([^()\n]{1,30}\)|(?:[ \t]+[^\W\d_]{1,16}){1,2})(?=[ \t]*(?:[:：]|\n[ \t]*(?:[-*+•]|\d{1,2}[.)])[ \t]))"
)
DIAL = re.compile(  # of a safe or a padlock: left 22, right 7, left 31
    r"(?:left|right|links|rechts|gauche|droite|L|R) ?\d{1,2}(?:[ ,;/–-]{1,3}(?:(?:then|dann|puis) )?(?:left|right|links"
    r"|rechts|gauche|droite|L|R) ?\d{1,2}){1,3}",
    re.IGNORECASE,
)
SHORT_GROUPS = re.compile(r"\d{1,2}([-–/ ])\d{1,2}\1\d{1,2}(?:\1\d{1,2})?(?![\w/-])")
LOCK = re.compile(  # a lock with three wheels, and what it is on
    r"(?i:(?:zahlen|koffer|rad|hänge|hang|spind)schlo(?:ss|ß)|padlock|(?:bike|bicycle|suitcase|luggage|locker) lock|cadenas|candado"
    r"|lucchetto|cadeado|fietsslot|hangslot|kłódk\w|hänglås|замок)(?: (?:[A-ZÄÖÜ]\w+|v[oa][mn]|am|an|der|de|la|du|del|di|do|on|for"
    r"|the|my)){0,3}"
    r"(?: ?[:=]| ?(?:→|->)) ?$"
)
NAMED_YEAR = re.compile(r"(?i:model|modell|red|rev|page|line|seite|[a-z]{3,5} (?=19|20)) ?\d{1,4}")
WHEELS = re.compile(r"\d{1,2}( [-–] |, )\d{1,2}\1\d{1,2}(?:\1\d{1,2})?(?![\w/-])")
COMBINATION = re.compile(r"[ck]ombin|combo|safe|tresor", re.IGNORECASE)
THREE = re.compile(r"\d{3}[ \t]*(?=\n|$|[.,;)](?!\d))")
BESIDE = re.compile(r"[ \t]*[,;/|][ \t]*(?:[^\W\d_][\w'’-]*[ \t]+){1,6}?[=:]?[ \t]*(\d{4,8})(?!\w|[.,:/%-]\d| ?[%€$£])")
LABEL = 24  # characters of a line that is the name of a number alone, in the line below it
COMMA = re.compile(r"(?:[ \t]+[^\W\d_]{1,15}){0,4},[ \t]*(?=\d{4,8}[#*]?[ \t.!]*(?:\n|\Z))")  # "of the office, 4711"
SIGNED_CODE = re.compile(r"(?=[^\s\d]{0,20}\d)(?=[^\sA-Za-z]{0,20}[A-Za-z])\w{1,20}[!@#$%&*?+][\w!@#$%&*?+]{0,20}(?!\S)")


def number_place(text: str, phrase: Phrase, end: int) -> tuple[int, bool] | None:
    """(where the value begins, whether something separates it from its word)."""
    window = text[end : end + REACH]
    match = between(window)
    if match and (not match["words"].strip() or phrase.kind in (CODE, CARD) or QUALIFIER.match(match["words"].lower())):
        at = end + match.end()
        if text[at : at + 1] not in ("\n", ""):
            return at, True
    heading = NAMED_LIST.match(window) if phrase.several else None
    if heading and not PROSE.isdisjoint(heading[0].lower().split()):
        return None
    below = NEXT_LINE.match(window, heading.end() if heading else 0)
    if below:
        label = phrase.kind != CODE and end - text.rfind("\n", 0, end) <= LABEL
        return (end + below.end(), "→" in below[0]) if phrase.several or label or re.search("[:→]", below[0]) else None
    if phrase.kind == CODE and not phrase.sure and (comma := COMMA.match(window)):
        return end + comma.end(), True
    space = SPACES.match(text, end)
    return (space.end(), False) if space else None


def number(text: str, phrase: Phrase, at: int, separated: bool) -> tuple[int, int] | None:
    """A number, a code in groups, or letters and digits mixed, as the kind of what is announced asks for."""
    if phrase.several and (match := RECOVERY.match(text, at)):
        if (re.search(r"\d", match[0]) or match[0].upper() == match[0]) and not is_date(match[0]):
            return match.span()
    if separated and phrase.kind == CODE and (wheels := WHEELS.match(text, at)):
        if wheels[1] != ", " or COMBINATION.search(text, max(0, at - 40), at):
            return wheels.span()
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
    if phrase.kind == CODE and not separated and NAMED_YEAR.fullmatch(value):
        return None
    digits = sum(map(str.isdigit, value))
    least, most = {CODE: (3, 48), IDENTITY: (5, 24), CARD: (13, 19)}.get(phrase.kind, (6, 34))
    if phrase.kind == IDENTITY and len(value) >= 8 and " " not in value and value.isalnum() and not value.isdigit():
        least = 3
    if not least <= digits <= most or (is_date(value) and (phrase.kind != CODE or phrase.sure or len(value) > 8)):
        return None
    if phrase.kind == CODE and (not separated and digits < 4 and not text[max(0, at - 6) : at].lower().startswith("cv")):
        before = text[max(0, at - 24) : at].lower()
        combined = SHORT_GROUPS.match(text, at) and re.search(r"comb|komb", before)
        combined = combined or THREE.match(text, at) and re.search(r"lucchetto|cadenas|candado|padlock|cadeado|schloss", before)
        if not combined and not re.search(r"cv[vc]|csc|gram|prüf|the back|rückseite", before):
            return None
    if phrase.sure and NO_LOCK.search(text, max(0, at - 60), at):
        return None
    if phrase.sure and (
        digits < 4
        and not (digits == 3 and LOCK.search(text, max(0, at - 40), at) and THREE.match(text, at))
        or re.fullmatch(r"(?:[01]\d|2[0-3])[0-5]\d", value)
        and "alarm" in text[max(0, at - 12) : at].lower()
    ):
        return None
    after = text[match.start() + len(value) : match.start() + len(value) + 12]
    if phrase.kind == CODE and re.match(
        r" ?(?:[:.]\d|%|€|\$|£|metre|meter|mhz|ghz|lines|files|of\b|am\b|pm\b|uhr\b|km\b|kg\b)", after.lower()
    ):
        return None
    return match.start(), match.start() + (_card(value) if phrase.kind == CARD else len(value))


def named(text: str, lower: str, begin: int, end: int) -> tuple[int, int] | None:
    """The code behind the name of its thing, without a sign: "PIN Sparkasse ...", "code d'accès immeuble ..."."""
    match = behind_names(text, end, any_name=not lower.startswith(("pin", "comb", "komb", "key", "clave"), begin))
    return match.span(2) if match and not DATE.fullmatch(match[2]) else None


def _card(value: str) -> int:
    """The length of the card's number in a row of digits: its security code or its last month may follow."""
    ends = [end.end() for end in re.finditer(r"\d(?!\d)", value)]
    return max((end for end in ends if is_card(value[:end])), default=len(value))


def is_date(value: str) -> bool:
    """Whether a number is a year, two years, or a day that the calendar has."""
    groups = [int(group) for group in re.findall(r"\d+", value)]
    if not DATE.fullmatch(value.strip()):
        return False
    return len(groups) < 3 or any(
        1 <= m <= 12 and 1 <= d <= 31 for d, m in ((groups[0], groups[1]), (groups[1], groups[0]), (groups[2], groups[1]))
    )


def further(text: str, kind: str, at: int) -> Iterator[Span]:
    """Values of a list behind the first one: recovery codes stand in lines, after bullets, or between commas."""
    for _ in range(40):
        gap = AND_ON.match(text, at)
        match = RECOVERY.match(text, gap.end()) if gap else None
        if not match or not re.search(r"\d", match[0]) or is_date(match[0]):
            return
        yield *match.span(), kind
        at = match.end()


def beside(text: str, begin: int, end: int) -> Iterator[Span]:
    """A second code in the sentence of a first one, with as many digits: "PIN of this card: ..., of that one ..."."""
    digits = sum(map(str.isdigit, text[begin:end]))
    match = BESIDE.match(text, end)
    if match and abs(len(match[1]) - digits) <= 2 and not is_date(match[1]):
        yield *match.span(1), CODE
