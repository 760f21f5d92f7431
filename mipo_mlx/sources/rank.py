"""How much a passage seems to tell of its author, by cheap signs; it decides which passages are kept where there are too many.

Signs for: words in the first person outside quotations, dates, wants, habits and decisions, a diary's name. Signs against: text
that instructs its reader, reference works by their name, and text that is mostly marks, capitals and digits.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from ..text.words import how_many, words
from .note import Note, Passage
from .quoted import outside_quotations

ENGLISH = frozenset("i my me mine myself i'm i've i'd i'll im ive".split())
OF_ENGLISH = frozenset("the and with for that this from are".split())  # in no other language of SINGULAR
SINGULAR = ENGLISH | frozenset(
    # German, Dutch, Swedish, French, Spanish, Portuguese, Italian, Polish, Czech, Russian, Turkish, Hungarian, ...
    "ich mein meine meinen meiner meinem meines mir mich ik mijn mij jag mig mitt mina jeg meg mine "
    "je j'ai j'aime j'étais mes moi yo mis mío mía conmigo eu meu minha meus minhas comigo io mio mia miei mie "
    "mój moja moje mnie jestem mam mám můj jsem я мой моя моё мои мне меня мной мою моей benim bana beni "
    "estoy tengo fui voy hice creo quiero puedo tuve estaba sono ho vado faccio voglio penso devo estou tenho vou fiz acho quero "
    "byłem byłam chcę chci "
    "én nekem vagyok minä minun minua olen أنا لي عندي אני שלי 我 私 僕 俺 나 저".split()
)
POSSESSIVE = frozenset(
    "my mein meine meiner meinen mijn min mitt mon ma mes mi mis meu minha meus minhas mio mia mój moje мой моя мои".split()
)
PLURAL = frozenset(  # less telling: a firm, a lecture and a manual speak so too
    "we our ours we're we've we'll we'd wir uns unser unsere unseren unserer ons onze wij oss vår våra vores nous notre nos "
    "nosotros nosotras nuestro nuestra nuestros nuestras nós nosso nossa noi nostro nostra мы наш наша наши нас нам biz bizim "
    "我们 我們 私たち 우리".split()
)
# "We" where words have no spaces: 我 is part of it. 我国 (our country) and 自我 (the self) are nobody in particular.
WE = re.compile(r"[我咱][们們]|私(?:たち|達)|[僕俺](?:たち|ら|達)|我(?=[国國方校司军軍省县市])|自我")
INFLECTED = re.compile(r"[나내저]는|제가|内の|我")
TURKISH = re.compile(r"\b\w{3,}[ıiuü]yorum\b")
WANTS = frozenset(
    "want wants wanted need hope wish plan plans planned decide decided promise love hate prefer like enjoy miss "
    "afraid worry always never "
    "usually often sometimes every used favourite favorite learned learnt realised realized started stopped tried remember forgot "
    "möchte will wollte brauche hoffe plane entschieden liebe hasse immer nie oft manchmal jeden veux voudrais aime "
    "déteste toujours jamais "
    "souvent quiero quisiera necesito espero prefiero siempre nunca quero preciso gosto sempre voglio vorrei mai lubię".split()
)
# 2024-05-01, 1.5.2024, 1/5/24, 1987, 9:30. A digit is looked for first, which is quick.
DATE = re.compile(r"\d(?<!\w\d)(?:\d{3}-\d\d-\d\d|\d?[./]\d{1,2}[./]\d{2,4}|(?:(?<=1)9|(?<=2)0)\d\d|\d?:\d\d)\b")
DAY = re.compile(
    r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\b(?:today|yesterday|tomorrow|tonight|last (?:week|month|year|night))\b"
    r"|\b(?:january|february|march|april|june|july|august|september|october|november|december)\b"
    r"|\b(?:heute|gestern|morgen|aujourd'hui|hier|hoy|ayer|mañana|oggi|ieri|hoje|ontem)\b|今天|昨天|今日|昨日|오늘",
    re.IGNORECASE,
)
# One of these is in every match of DAY. To look for them first takes a hundredth of the time.
OF_DAYS = (
    "day tomorrow tonight last uary march april june july august ember october heute gestern morgen aujourd hier hoy ayer mañana "
    "oggi ieri hoje ontem 今天 昨天 今日 昨日 오늘"
).split()
DIARY = re.compile(
    r"journal|diar(?:y|ies|io)|daily|tagebuch|dagboek|dagbok|pamiętnik|дневник|日記|日记|letters?|memoir|reflection"
    r"|\d{4}[-_]\d\d[-_]\d\d|about me",
    re.IGNORECASE,
)
REFERENCE = re.compile(
    r"reference|wiki|glossar|dictionary|definition|documentation|\bdocs?\b|manual|tutorial|cheat ?sheet|how[- ]?to"
    r"|awesome|check ?list|handbook|guidelines?|playbook|\bfaq\b|specification|syllabus|slides|onboarding"
    r"|survey|questionnaire|fragebogen|encuesta|sondage|анкета|问卷|course|lecture|literature"
    r"|book ?notes|questions\b|templates?\b"
    r"|articles?|papers?|sources?|snippets?|resources?|bookmarks?|links?\b|\bMOC\b|index|api\b",
    re.IGNORECASE,
)
# Folders, and parts of Logseq's names of pages, that hold what others said. A whole part of the path: not "my-podcast".
OTHERS = re.compile(
    r"(?:^|/|___)(?:persons?|people|contacts|authors?|youtube|videos?|transcripts?|podcasts?|interviews?|forums?"
    r"|reddit|stack ?overflow|github(?:/|___).{0,80}(?:/|___)issues?|tweets|personen"
    r"|personas|personnes|人物|人)(?=/|___)",
    re.IGNORECASE,
)
PAGE = re.compile(r"(?<=/)_?index\.\w+$", re.IGNORECASE)  # of a page that is a folder, as sites have it: its name is no index
PRINTED = re.compile(r"\.pdf$", re.IGNORECASE)  # mostly what others wrote: a guide, a paper, a form
EXCERPT = 30  # words of a line behind an address that counts as an excerpt
SURVEY = re.compile(
    r"survey|questionnaire|assessment|fragebogen|umfrage|encuesta|cuestionario|sondage|enquête"
    r"|анкета|опрос|问卷|調査",
    re.IGNORECASE,
)
STATEMENT = re.compile(r"(?:[-*+•]|\d{1,3}[.)]) \S[^.!?]{15,200}[^.!?:\s]\.?")  # one sentence, to be agreed with or not
CITED = re.compile(r"[^\W\d][.,;:]?(?:\[\d{1,3}\])+|\[citation needed\]")  # of an encyclopedia, or of an assistant that searches
HOST = re.compile(
    r"\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|io|dev|fm|ai|app|co|be|me|edu|gov|info|blog|uk|de|fr|es|it|nl|ru|jp|eu"
    r"|im|sh|gg|tv|us|ca|au|ch|se|dk|pl|cz|cn|kr|xyz|tech|site|page|online|wiki|news|cloud|tools|ly|cc)\b"
)
DOMAIN = re.compile(r"\.[a-z]{2}")
LESSON = re.compile(  # what a tutorial says of itself and to its readers, in lower case
    r"\b(?:let(?:'s| us| me (?:show|explain))|we(?:'ll| will|'re going to| are going to| can| need to)"
    r"|in (?:this|the (?:following|next)|the remainder of this) (?:article|post|section|chapter|tutorial|example|paragraph)"
    r"|note that|as follows|the following|step \d"
    r"|im folgenden|wir werden|nous allons|vamos a|veremos|vediamo)\b"
)
QUESTION = re.compile(r"\A[^\n.!?。]{0,200}[?？][ :]*")  # a heading that asks, as in a list of questions and answers
NO_PERSON = re.compile(
    r"\bi\.\s?e\.|\bI/O\b|(?<=\w)-(?:my|me|i)(?=-\w)|(?<![\w/])[Mm]y(?=/\w)|\bEU\b"
    r"|私(?=[有人营營密利立下生服募家情])|(?<=[自隐隱走无無])私|\b(?:[Pp]art|[Cc]hapter|[Vv]olume|[Ww]ar|Act|Type|Class) I\b"
    r"|\bI(?=[–—-][IVXL]+\b)"
)  # "I" and "eu" that are nobody
NOBODY = (  # each match has one of these
    *("i.", "I/O", "EU", "art I", "apter I", "olume I", "ar I", "Act I", "Type I", "Class I"),
    *("-my-", "-me-", "-i-", "y/", "私", "I–", "I—", "I-"),
)
FORMULA = re.compile(  # where "i" is an index and "I" an integral: $x_i$, \(I\), a_{ij}, i = 1, (i), the i-th
    r"\$(?=[^$\n]{0,300}[\\_^={}<>|])[^$\n]{1,300}\$|\$[^\s$]{1,30}\$|\\[(\[][^\n]{1,300}?\\[)\]]|\\[A-Za-z]{2,20}"
    r"|(?<=[\w)}])[_^]\{?[^\s{}]{1,20}|\b[iI](?=[_^])|\(\s?i\s?\)|\bi(?=\s?[=<>≤≥+*/\]}]|-th\b)|[=<>≤≥+*/]\s?i\b"
)
COUNTS = frozenset("$\\_^=<>≤≥+*")  # one of these, or of the next, is in every match of FORMULA
COUNTED = ("(i)", "( i", "(i ", "i-th", "i/", "/i", "/ i", "i /", "i]", "i ]", "i}", "i }")
SENTENCES = re.compile(r"[.!?。！？](?=\s|$)|[。！？]|[^\s.!?。！？](?=\n|\Z)")  # ends of sentences and of lines
BLANK = re.compile(r"_{3,}|\[(?:insert|your|enter|name|company|date|add|list|todo|tbd)\b[^\[\]\n]{0,60}\]|\bX{3,}\b", re.IGNORECASE)
TO_READER = frozenset("you your yours yourself du dein deine sie ihr vous votre tú usted você".split())
GOOD = 1.3  # the score from which a passage tells of its author
BETTER, ENOUGH = 1.8, 200  # the score that a passage needs where so many others have it
LATER = 0.35  # what each further passage of one note has to be better by
SHARE = 0.1  # of a side: what one note may have, at most
TOPIC = 0.4  # of what is kept: what one folder may have, where others can fill the rest


def ranked(note: Note, passages: Iterable[Passage]) -> list[Passage]:
    """The passages of a note with their ranks. A row of a table is a context by its form: it is never dropped for its rank."""
    lowest = BETTER if note.whole else -math.inf
    return [replace(passage, rank=max(lowest, sum(of_passage(passage).values()))) for passage in passages]


def of_passage(passage: Passage) -> dict[str, float]:
    """The signs of a passage."""
    body = "\n".join(passage.parts)
    return signs(passage.text, passage.source, passage.text.removesuffix(body) if body else "")


def score(text: str, source: str) -> float:
    """From about -2 (nobody's) to 5 (a diary): the same for the same text and file name."""
    return sum(signs(text, source).values())


def signs(text: str, source: str, heading: str = "") -> dict[str, float]:
    """What the score is the sum of: each sign in words for people, with what it adds or takes away.

    heading: what `text` begins with; "my" in it says less than elsewhere: "My notes" stands above anything.
    """
    bare, hosts = HOST.subn(" ", text) if DOMAIN.search(text) else (text, 0)
    bare, plural = (bare, 0) if bare.isascii() else WE.subn(" ", bare)
    diary, reference, survey, printed, others = _of_name(source)
    spoken = QUESTION.sub("", _without_excerpts(text) if hosts and not diary else bare)
    spoken = NO_PERSON.sub(" ", spoken) if any(map(spoken.__contains__, NOBODY)) else spoken
    if not COUNTS.isdisjoint(spoken) or any(map(spoken.__contains__, COUNTED)):
        spoken = FORMULA.sub(" ", spoken)
    own = [word for stretch in outside_quotations(spoken) for word in words(stretch)]
    if not own:
        return {"no words of its author": -2.0}
    size = len(own)
    above = words(NO_PERSON.sub(" ", QUESTION.sub("", heading))) if heading else []
    english = _count(own, OF_ENGLISH) >= max(2, 0.04 * size)  # in which "beni shoga" is no Turk and "mi" no Spaniard
    singular: float = _count(own, ENGLISH if english else SINGULAR)
    singular -= 0.5 * min(singular, _count(above, POSSESSIVE))
    singular += 0 if text.isascii() else len(INFLECTED.findall(bare))
    singular += len(TURKISH.findall(text)) if "yorum" in text else 0
    first = singular + 0.4 * (_count(own, PLURAL) + plural)
    reader = _count(own, TO_READER)
    questions = text.count("?") + text.count("？")
    lower = text.lower()
    dates = len(DATE.findall(text)) + (len(DAY.findall(text)) if any(map(lower.__contains__, OF_DAYS)) else 0)
    blanks = ("[" in text or "___" in text or "xxx" in lower) and BLANK.search(text)
    statements = sum(map(bool, map(STATEMENT.fullmatch, text.split("\n")))) if survey else 0
    letters, odd = how_many(text, str.isalpha), how_many(text, _is_odd)
    weights = {
        # One word in a line of ten is weaker than five in fifty.
        "first person": (1.0 if singular else 0.5)
        * (min(1.0, 20 * first / size) * (0.8 + 1.2 * min(1.0, first / 2)) + 0.5 * min(1.0, first)),
        "wants, habits, decisions": 0.6 * min(1.0, 30 * _count(own, WANTS) / size) * (1.0 if singular else 0.3),
        "dates": 0.4 * min(1.0, dates / 2),
        "the name of a diary": 0.8 * diary,
        "the name of a work of reference": -0.5 * reference,
        "the name of others": -1.5 * others,
        "a lesson": -0.5 * min(2, len(LESSON.findall(lower))),
        "a printed document": -0.8 * printed,
        "speaks to its reader": -0.8 * min(1.0, 20 * reader / size) * (0.3 if first >= reader else 1.0),
        "statements of a questionnaire": -2.5 if statements > 2 and 2 * statements > text.count("\n") + 1 else 0.0,
        "numbers of sources": -1.0 if "[" in text and len(CITED.findall(text)) > 1 else 0.0,
        "links": -1.5 * min(1.0, 6 * hosts / size),
        "questions": -1.6 if questions and (2 if questions > 2 else 1) * questions > 0.9 * len(SENTENCES.findall(text)) else 0.0,
        "blanks to fill in": -1.0 if blanks else 0.0,
        "marks and digits": -3.0 * max(0.0, odd / max(1, letters + odd) - 0.05),
    }
    return {sign: value for sign, value in weights.items() if value}


def _without_excerpts(text: str) -> str:
    """The text without the names of sites and the long lines behind one that stands alone: what a page said, not its reader."""
    kept, behind = [], False
    for line in text.split("\n"):
        site = HOST.search(line)
        if behind and not site and len(words(line)) >= EXCERPT:
            continue
        kept.append(HOST.sub(" ", line) if site else line)
        behind = bool(site) and len(words(kept[-1])) <= 6
    return "\n".join(kept)


def first_person(text: str) -> int:
    """How many words of a text are those of one person of themselves."""
    return _count(words(text), SINGULAR) + (0 if text.isascii() else len(INFLECTED.findall(text)))


def _count(own: Iterable[str], known: frozenset[str]) -> int:
    return sum(map(known.__contains__, own))


@cache
def _of_name(source: str) -> tuple[bool, ...]:
    """What a file's name says: a diary, a work of reference, a questionnaire, a printed document, the words of others."""
    name = PAGE.sub("", source)
    return tuple(bool(kind.search(name)) for kind in (DIARY, REFERENCE, SURVEY, PRINTED, OTHERS))


def _is_odd(char: str) -> bool:
    return not (char.isalpha() or char.isspace() or char in ".,;:!?'\"()-’“”…")


def topic(source: str) -> str:
    """The folder at the top that a file is in; '' for a file beside it."""
    return source.partition("/")[0] if "/" in source else ""
