"""How much a passage seems to tell of its author, by cheap signs; it decides which passages are kept where there are too many.

Signs for: the share of the passage and of its note that stands in the first person (`voice`), dates, a diary's name. A diary leaves
"I" out ("Slept badly."). Signs against: text that speaks to its reader, notes of code, reference works by name, songs, formulas
(the "we" of a lecture), and text that is mostly marks, capitals and digits. What the notes of a template have in common is nobody's
first person.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, lru_cache

from ..text.words import how_many, words
from .note import Block, Note, Passage
from .voice import ANY, Voice, first_person, voice

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
    r"journal|diar(?:y|ies|io)|daily|weekly|\d{4}-W\d\d|retrospective|tagebuch|dagboek|dagbok|pamiętnik|дневник|日記|日记|letters?|memoir|reflection"
    r"|\d{4}[-_]\d\d[-_]\d\d(?!.*\.excalidraw)|about me",  # a drawing is named after its day by the program
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
# Folders, and parts of Logseq's names of pages, that hold what others spoken. A whole part of the path: not "my-podcast".
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
FORMULA = re.compile(r"\$(?! )[^$\n]{1,200}(?<! )\$(?!\d)")  # as Pandoc finds them: "$5 and $6" is none
QUESTION = re.compile(r"\A[^\n.!?。]{0,200}[?？][ :]*")  # a heading that asks, as in a list of questions and answers
SENTENCES = re.compile(r"[.!?。！？](?=\s|$)|[。！？]|[^\s.!?。！？](?=\n|\Z)")  # ends of sentences and of lines
SONG = re.compile(  # the words of a song, by the marks of its parts or by its heading
    r"\[(?:verse|chorus|pre-chorus|bridge|intro|outro|hook|refrain|strophe)\b[^\]\n]{0,40}\]"
    r"|\A[^\n.!?]{0,120}\b(?:lyrics|songtext|liedtext|paroles|tekst piosenki)\b|\A[^\n。]{0,60}歌[词詞]",
    re.IGNORECASE,
)
OF_SONGS = "[verse [chorus [pre- [bridge [intro [outro [hook [refrain [strophe lyrics songtext liedtext paroles tekst 歌".split()
BLANK = re.compile(r"_{3,}|\[(?:insert|your|enter|name|company|date|add|list|todo|tbd)\b[^\[\]\n]{0,60}\]|\bX{3,}\b", re.IGNORECASE)
# A diary's sentence that leaves its "I" out, and the word that it leaves out.
IMPLIED = (
    (
        r"had|went|got|came|saw|read|wrote|did|made|took|felt|slept|woke|spent|ate|drank|ran|bought|found|met|left|spoke|thought|heard"
        r"|began|built|sent|won|lost|rode|swam|drove|flew|kept|paid|gave|told|still (?!to )[a-z]+ing"
        r"|(?!feed|speed|seed|weed|indeed|hundred|related|based|called|named|titled|inspired|supposed)[a-z]{2,}ed",
        "I",
    ),
    (r"habe?|bin|war|hatte|musste|konnte|wollte|durfte", "ich"),
)
WITHOUT_I = [
    (re.compile(rf"(^[-*•] |^|[.!?] )(?=(?:(?:also|then|just|finally|later|dann|heute) )?(?:{verbs}) )", re.I | re.M), rf"\1{who} ")
    for verbs, who in IMPLIED
]
PROMPT = re.compile(r"^[^\n.!?。]{0,200}[?？][ :]*", re.MULTILINE)  # what a diary asks its writer, who answers behind it
PERSONAL = ANY.reader | ANY.one
CODE = re.compile(r"\w_\w|\w::\w|\w\(\)|\b(?!i[A-Z]|mac|tv)[a-z]+[A-Z]|(?<= )--\w|</?\w+>")  # names of a program's parts
OF_CODE = 1.5  # what a note takes from its passages where one word of 80 is such a name; half in a diary
USUAL, PROMPTED = 5, 80  # notes that have a label in common, at least; characters of the label, at most
GOOD = 1.7  # the score from which a passage tells of its author
SOME = 1.2  # the score from which one fills up where few are good
BETTER, ENOUGH = 2.1, 200  # the score that a passage needs where so many others have it
OF_NOTE = 1.5  # what a note in the first person throughout adds to the rank of its passages
LATER = 0.35  # what the second passage of one note has to be better by, the fourth by twice as much, the eighth by three times
SHARE = 0.1  # of a side: what one note may have, at most
TOPIC = 0.4  # of what is kept: what one folder may have, where others can fill the rest


def ranked(note: Note, passages: Iterable[Passage], usual: re.Pattern | None = None) -> list[Passage]:
    """The passages of a note with their ranks and signs. usual: what `of_templates` found.

    A row of a table is a context by its form: it is never dropped for its rank.
    """
    some = list(passages)
    prose = [passage for passage in some if not passage.scrap]
    voices = [_voice(passage.text, passage.source, usual) for passage in prose]
    size = max(1, sum(len(each.words) for each in voices))
    names = max(0, sum(len(CODE.findall(passage.text)) for passage in prose) - 1)
    of_note = {
        "its note in the first person": OF_NOTE * sum(each.share * len(each.words) for each in voices) / size,
        "its note has code": -(OF_CODE / 2 if _of_name(note.source)[0] else OF_CODE) * min(1.0, 80 * names / size),
    }
    of_note = {sign: value for sign, value in of_note.items() if value}
    lowest = BETTER if note.whole else -math.inf
    every = [signs(passage.text, passage.source, usual) | of_note for passage in some]
    return [replace(passage, signs=own, rank=max(lowest, sum(own.values()))) for passage, own in zip(some, every, strict=True)]


def of_templates(notes: Sequence[Note]) -> re.Pattern | None:
    """What finds labels and headings in the first person that several notes have ("Why I read it: "); None where there are none."""
    counts = Counter(label for note in notes for label in {_label(block) for block in note.blocks})
    labels = [label for label, count in counts.items() if count >= USUAL and label and first_person(label)]
    if not labels:
        return None
    any_of = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    return re.compile(rf"(?:^|(?<=: )|(?<=- ))(?:{any_of})(?=[:.?!]|$)", re.IGNORECASE | re.MULTILINE)


def _label(block: Block) -> str:
    """A heading, or what stands before a colon; '' where there is none."""
    label = block.text if block.level else block.text.partition(":")[0] if ": " in block.text[: PROMPTED + 2] else ""
    return label.lower().removeprefix("- ") if len(label) <= PROMPTED else ""


def score(text: str, source: str) -> float:
    """From about -2 (nobody's) to 5 (a diary): the same for the same text and file name."""
    return sum(signs(text, source).values())


@lru_cache(1024)  # a note's share and the signs of its passages ask for the same
def _voice(text: str, source: str, usual: re.Pattern | None = None) -> Voice:
    if _of_name(source)[0]:
        text = PROMPT.sub("", text) if "?" in text or "？" in text else text
        for implied, instead in WITHOUT_I:
            text = implied.sub(instead, text)
    elif usual:
        text = usual.sub("", text)
    if DOMAIN.search(text):
        bare, hosts = HOST.subn(" ", text)
        text = _without_excerpts(text) if hosts and not _of_name(source)[0] else bare
    return voice(QUESTION.sub("", text))


def signs(text: str, source: str, usual: re.Pattern | None = None) -> dict[str, float]:
    """What the score is the sum of: each sign in words for people, with what it adds or takes away."""
    spoken = _voice(text, source, usual)
    if not spoken.words:
        return {"no words of its author": -2.0}
    diary, reference, survey, printed, others = _of_name(source)
    size = len(spoken.words)
    first = spoken.one + 0.4 * spoken.many
    hosts = len(HOST.findall(text)) if DOMAIN.search(text) else 0
    questions = text.count("?") + text.count("？")
    prompts = PROMPT.findall(text) if diary and questions else []
    questions -= len(prompts)
    lower = text.lower()
    dates = len(DATE.findall(text)) + (len(DAY.findall(text)) if any(map(lower.__contains__, OF_DAYS)) else 0)
    blanks = ("[" in text or "___" in text or "xxx" in lower) and BLANK.search(text)
    statements = sum(map(bool, map(STATEMENT.fullmatch, text.split("\n")))) if survey else 0
    letters, odd = how_many(text, str.isalpha), how_many(text, _is_odd)
    weights = {
        # The share of the text that tells of "I", and how often: one "I" is weaker than two.
        "first person": 2.5 * min(1.0, 2 * spoken.share) * (0.4 + 0.6 * min(1.0, first / 2)),
        "dates": 0.6 * min(1.0, dates / 2),
        "the name of a diary": 0.8 * diary,
        "answers what its diary asks": 1.0 if prompts and not PERSONAL.isdisjoint(words(prompts[0])) else 0.0,
        "the name of a work of reference": -0.5 * reference,
        "the name of others": -1.5 * others,
        "a printed document": -2.0 * printed,
        "speaks to its reader": -1.6 * min(1.0, 20 * spoken.reader / size) * (0.5 if first >= spoken.reader else 1.0),
        "statements of a questionnaire": -2.5 if statements > 2 and 2 * statements > text.count("\n") + 1 else 0.0,
        "numbers of sources": -1.0 if "[" in text and len(CITED.findall(text)) > 1 else 0.0,
        "formulas": -1.2 * min(1.0, len(FORMULA.findall(text)) / 2) if "$" in text else 0.0,
        "links": -1.5 * min(1.0, 6 * hosts / size),
        "questions": -1.6 if questions and (2 if questions > 2 else 1) * questions > 0.9 * len(SENTENCES.findall(text)) else 0.0,
        "blanks to fill in": -1.0 if blanks else 0.0,
        "the words of a song": -3.0 if any(map(lower.__contains__, OF_SONGS)) and SONG.search(text) else 0.0,
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
