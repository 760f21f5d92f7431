"""What stands behind "password:" and the like: a secret, a placeholder, a piece of code or the rest of a sentence."""

import re

from . import WORD

# Words that a sentence has and a password has not. A phrase with one of them is prose.
PROSE = frozenset(
    "a an the of to in on at is are was be it its this that these those and or but not no never always for from with by "
    "as if then than so my your "
    "our his her their you we they he she will can must should may has have had do does did see ask use type enter check "
    "look open call get set "
    "go put keep write read find when where which who what how why all any some only same new old via per into over under "
    "der die das den dem des ein eine einen einem einer und oder aber nicht kein keine nie immer für von vom zu zum zur "
    "mit bei im am ins an auf aus "
    "ist sind war wird werden hat haben wenn als wie was wer wo siehe frag frage bitte mein meine dein ihr wir ich sie er es "
    "le la les un une des du de d et ou mais ne pas jamais toujours pour avec par sur dans est sont voir demander mon ma "
    "mes votre notre il elle on "
    "el los las lo unos unas y o pero nunca siempre para con por en del al es son ver pregunta mi tu su nuestro que como si se "
    "i gli lo uno e ed ma non mai sempre per con da di del della nel nella su è sono vedi chiedi mio tuo suo che come "
    "het een en of maar niet geen nooit altijd voor van met bij op uit is zijn zie vraag mijn uw "
    "os as um uma e ou mas não nunca sempre para com por em do da no na é são veja pergunte meu minha seu que "
    "nie do na w z i lub ale jest są dla od po za się to co jak proszę "
    "и или но не в на с к от для по из это как что где нет всем".split()
)
JOINING = frozenset("and und et y e en och og oder or i и o ou".split())  # they stand between the words of a phrase, too
# What is said of a password and is none.
NO_VALUE = frozenset(
    "none null nil true false yes no empty blank required optional hidden secret unknown forgotten changed unchanged "
    "default here there below above "
    "wrong right correct incorrect invalid valid missing gone lost expired stored hashed encrypted protected safe secure "
    "weak strong simple easy hard "
    "long short same different new old ready important necessary unique random string str text bytes password passwd "
    "token value type field input "
    "int bool char varchar prompt env environment example placeholder redacted todo tbd n/a na foo bar baz mandatory "
    "sensitive case-sensitive "
    "nothing everything something anything yours mine later ok okay soon now again written private public plain clear "
    "fine good bad enough "
    "falsch richtig leer neu alt geheim unbekannt vergessen geändert gleich sicher keins keines nötig abgelaufen gespeichert "
    "faux vide oublié inconnu nouveau ancien obligatoire requis incorrecta correcta vacía nueva obligatorio vuota nuova "
    "sbagliata "
    "leeg nieuw onjuist vergeten vazia nova errada scaduta scaduto caducada caducado expirada verlopen "
    "puste nowe błędne нет неверный пусто".split()
)
PREDICATE = re.compile(
    r".*(?:(?<!e)ed|ing|able|ible|less|ful|ly|ive|lich|bar|iert|ée?s?|oire|ad[oa]s?|id[oa]s?|[oó]ri[oa]s?|at[oa]|t[oa]ta"
    r"|ssary|ere?n|ect[oa]?)|ge\w+(?:t|en)"
)
PLACEHOLDER = re.compile(
    r"[*•.x_?#-]{3,}|<.*>|\{.*\}|\[.*\]|\(.*\)|%\w+%|[A-Z]+(?:_[A-Z]+)+|your\w+|(?:your|my|dein|ihr|votre|tu)[-_ ]\w.*"
    r"|change.?me.*|.*(?:\.{3}|…).*",
    re.DOTALL,
)
CODE = re.compile(
    r"\$(?:[{(A-Z]|env:)|[%@&<{\[(]|[A-Za-z_][\w.]*[(\[]|(?:os|sys|req|request|res|self|this|process|config|settings?"
    r"|args|options?|params?|env|ctx|data|form|user|event|props|state|session|app|credentials|secrets|vars?"
    r"|module)\.[\w.]+|(?:lambda|await|new|not|process|self|this|function)\b|\|\||&&|=[=>]",
)
FACTS = re.compile(
    r"(?:v\d[\w.]*|\d{4}-w\d\d?|sha-?\d+|md5|base\d+|oauth-?2?|utf-?\d+|aes-?\d*|rsa-?\d*|ed25519|wpa-?\d?|2fa|\d+(?:\.\d+)+)[.,;)]*",
    re.IGNORECASE,
)
MADE_UP = re.compile(r"\d|[^\W_]_[^\W_]|\w[^\w\s.,;:)'’\"”-]|[a-z][A-Z]")
STATEMENT = re.compile(r"\w\(|[{}<>]|\s[=!]=?\s|;$")
EDGE = " \t\"'`*“”„«»‘’"


def looks_made_up(word: str) -> bool:
    """`hunter2`, `Correct-Horse7` and `s3cret!`, but not `patience` in "the secret is patience"."""
    return bool(MADE_UP.search(word)) and not is_no_value(word)


def is_mixed(word: str) -> bool:
    """Whether letters and digits stand in one word of six characters or more: what a key has and a word has not."""
    bare = word.strip(EDGE)
    return len(bare) >= 6 and bool(re.search(r"\d", bare) and re.search(r"[^\W\d_]", bare)) and not is_no_value(word)


def is_no_value(word: str) -> bool:
    """A placeholder, a piece of code, a name of a method, or what people write in place of a password."""
    bare = word.strip(EDGE).rstrip(".,;:!?)")
    whole = word.strip(EDGE)
    return (
        not bare
        or bare.lower() in NO_VALUE
        or bool(PLACEHOLDER.fullmatch(whole) or CODE.match(whole) or FACTS.fullmatch(whole))
        or whole.startswith("[")
    )


def is_phrase(text: str) -> bool:
    """Whether one to eight words are a password and no sentence: none of them is a word of prose."""
    words = [word.lower() for word in WORD.findall(text)]
    empty = sum(word in NO_VALUE for word in words)
    if (
        not 1 <= len(text.split()) <= 8
        or is_no_value(text)
        or STATEMENT.search(text)
        or any(word in PROSE for word in words[:1] + words[-1:] + [each for each in words if each not in JOINING])
    ):
        return False
    return not empty or len(words) > 2 and empty < len(words)


def is_predicate(word: str) -> bool:
    """`required` in "the password is required"."""
    bare = word.strip(EDGE).rstrip(".,;:!?)").lower()
    return bare in NO_VALUE or bare in PROSE or bool(PREDICATE.fullmatch(bare))
