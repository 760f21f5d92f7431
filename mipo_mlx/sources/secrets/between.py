"""What stands between a word that announces a secret and the secret: a sign, "is", a few words, a space or a line end."""

import re
from functools import lru_cache

from .phrases import PLACES, SUBJECTS
from .values import PROSE, is_predicate

REACH = 200  # characters behind a word in which its value begins and ends
BETWEEN = re.compile(  # a word in brackets, words such as "for the shed", and then what separates
    r"(?P<words>[ \t]*\([^()\n]{1,40}\)|(?:[ \t]+[^\s:=|,;!?()→/<>\"`]{1,24}(?<!\.)){0,6}?(?:[ \t]*\([^()\n]{1,40}\))?)"
    r"[ \t]*[\"'`*_]{0,3}[ \t]*"
    r"(?:(?:,|[ \t]\()[ \t]*(?=c['’]est|it['’]s|das ist|é |è ))?"
    r"(?:(?P<strong>:=|[:=]?=>|[-=–—]{1,3}>|>>|→|⇒|➜|➔|=(?!=)|[:：]{1,2}(?!//))"
    r"|(?P<dash>[–—]|-{1,2}(?= )|\.{2,5}|…)|(?P<cop>(?<=[^\S\n])(?:(?:changed|updated|geändert|cambiad[ao]|cambiat[ao]"
    r"|changé) (?:to|auf|in|a|en)|(?:has|had) been|is|was|are|equals|ist|war|lautet|lauten|hei(?:ß|ss)t|luidt|lyder|brzmi|est|es"
    r"|era|sono|é|è|e'|är|er|jest|je|c['’]est|it['’]s|das ist|είναι|это|будет|to(?= \d))(?: now| still| jetzt| noch| früher)?"
    r"(?=[\s:])"
    r"|['’]s(?= )|是|为|為|は、?|이|는|은)[ \t]*:?)[*_]{0,3}[ \t]*"
    r"(?P<quote>[*_]{0,3}(?:«[ \xa0\u202f]|[\"'`“„«‘]{1,3}))?(?:[*_]{1,3})?"
)
QUALIFIER = re.compile(
    r"[ \t]*(?:\(|(?:fürs|nuova|nuevo|nueva|nouveau|nova|novo|nieuwe|nya|nowe|yeni|actual|attuale|changed|for|of|to|on|at"
    r"|from|in|the|is|für|der|des|von|vom|zu|zum|zur|am|im|de|del|du|la|le|do|da|dos|di"
    r"|della|dell|van|voor|het|till|til|do|od|z|к|от|для|на|у|в|k|ke|pro|на|wifi|вайфай|вай-фай|wi-fi|wlan|router|новый|new|neues|current)\b)"
)
NEXT_LINE = re.compile(
    r"[ \t]*[*_#`]{0,3}[ \t]*[:：]?[ \t]*[*_`]{0,3}[ \t]*\n(?:[ \t]*\n){0,2}[ \t>]*(?:(?:[-*+•→]|[-=]>)[ \t]+|\d{1,2}[.)][ "
    r"\t]+)?[`\"'*]{0,3}"
)
SPACES = re.compile(r"(?:[*_`]{0,3}[ \t]+[*_]{0,3}|(?<=[\u3040-\ud7ff]))[#№]?[ \t]*[\"'`(]?")
GROUPS = re.compile(
    r"[A-Za-z0-9]{2,10}(?:-[A-Za-z0-9]{2,10}){1,9}\b|[A-Z2-7]{4}(?: [A-Z2-7]{4}){1,15}\b|[a-z2-7]{4}(?: [a-z2-7]{4}){3,15}\b"
)
CLOSING = {"“": "”", "„": "“”", "«": "»", "‘": "’", '"': '"', "'": "'", "`": "`"}
LINE_OF = re.compile(  # "password for the shared drive", and the value in the next line
    r"((?:[ \t]+[^\W\d_][^\s:=|,;.!?()]{0,20}){1,5})[ \t]*[:：]?[ \t]*\n(?:[ \t]*\n)?[ \t>]*(?:[-*+•][ \t]+)?"
    r"[`\"'*]{0,3}(\S{4,60})[ \t]*(?=\n|$)"
)
SIGN = re.compile(r"[-=>→⇒➜➔:：–—….'’是为為は이는은]")  # one of these, or of the words below, is in every match of BETWEEN
IS = frozenset(
    "is was are been equals ist war lautet lauten heißt heisst luidt lyder brzmi est es era sono é è är er jest je είναι это будет "
    "to changed updated geändert cambiado cambiada cambiato cambiata changé".split()
)
THINGS = re.compile(  # what has a code: places, cards, banks and devices
    rf"(?:{PLACES}|{SUBJECTS}|visa|mastercard|debit|credit|bank|bankpas|bancaire|bleue|giro(?:karte)?|ec(?:-karte)?|kreditkarte|postepay"
    r"|prepagata|bancomat|karta|kart\w{0,2}|konto|konta|cuenta|sim|handy|tele?foo?n\w{0,3}|i?pad|iphone|mam[aiy]e?|mamma|maman|mutti|mum|mom|dad|pap[aà]|papi?|oma|opa|nonn[ao]|abuel[ao]|phone|mobile|m[óo]vil|tablet|laptop"
    r"|ferienwohnung|kanzlei|praxis|verein|keller|hof|kantoor|r[ée]sidence|bureau|appartement|parking|local|piso|oficina"
    r"|edificio|ufficio|condominio|appartamento|palazzo|pr[ée]dio|escrit[óo]rio|apartamento|biura?|domu|kontoret|huset"
    r"|банка|карт[аы]|офиса?)"
)
NAMES = re.compile(
    r"((?:[ \t]+\(?[^\W\d_][^\W\d_'’.&-]{0,20}(?:[&'’.-][^\W\d_]{1,20})?\)?){1,4})[ \t]+"
    r"#?(\d{4,8}|\d{1,2}(?:-\d{1,2}){2,3}|\d\d \d\d|[A-Z]?\d{2,5}[A-Z]\d{0,5}|[A-Z]\d{3,5})"
    r"[#*]?(?=[ \t]*(?:\n|$|[;!)(|–—]|,(?!\d)|\.(?!\w)))"
)
NO_THING = frozenset(
    "page line version error room rev ticket issue bug row seite zeile fehler zimmer raum ligne página pagina "
    "linea línea number nummer numéro número numero count mapping map review standard model modell modèle modelo year jahr".split()
)


@lru_cache(1024)  # a table or a list has the same words again and again
def between(window: str) -> re.Match[str] | None:
    """What separates a word from its value in `window`, the text behind the word."""
    line = window.partition("\n")[0]
    if not SIGN.search(line) and IS.isdisjoint(line.lower().split()):
        return None
    return BETWEEN.match(window)


def behind_names(text: str, at: int, any_name: bool) -> re.Match[str] | None:
    """One to four words that name a thing, and a code behind them without a sign: " Sparkasse 4711".

    any_name: whether a word in lower case counts that is none of THINGS.
    """
    match = NAMES.match(text, at)
    if not match:
        return None
    names = [name.strip("()") for name in match[1].split()]
    lower = [name.lower() for name in names]
    if not NO_THING.isdisjoint(lower) or any(name not in PROSE and is_predicate(name) and name.islower() for name in names):
        return None
    kept = [name for name, low in zip(names, lower, strict=True) if low not in PROSE]
    fits = kept and all(any_name or name[0].isupper() or THINGS.fullmatch(name) for name in kept)
    return match if fits else None
