"""Who speaks in a text: how much of it, outside quotations, tells of one person in the first person.

A word of one language is another word elsewhere: "je" is French for "I", Dutch for "you", and half of German "je ... desto". So the
language comes first, by its most frequent words. A text too short for that may be in any.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce

from ..text.words import split_sentences, words
from .quoted import outside_quotations


@dataclass(frozen=True)
class Language:
    often: frozenset[str]  # its most frequent words
    one: frozenset[str]  # "I"
    many: frozenset[str]  # "we", which tells less: a firm, a lecture and a manual speak so too
    reader: frozenset[str]  # "you"

    def __or__(self, other: "Language") -> "Language":
        return Language(self.often, self.one | other.one, self.many | other.many, self.reader | other.reader)


SCRIPTS = "أنا لي عندي אני שלי 我 私 僕 俺 나 저"  # "I" in a script of its own: in a text of any language


def _language(often: str, one: str, *others: str) -> Language:
    return Language(*(frozenset(some.split()) for some in (often, f"{one} {SCRIPTS}", *others)))


# Of a word with an apostrophe the part before it counts: "i" of "i'm", "j" of "j'ai".
ENGLISH = _language(
    "the and of to with that this is it in for was are be have not but they from at on do did what who would about when",
    "i my me mine myself im ive",
    "we our ours us",
    "you your yours yourself",
)
OTHERS = (
    _language(
        "der die das und nicht ist den mit ein eine auf von zu es sich dem auch für im des werden wird sind oder als bei nur wie "
        "kann eines einer",
        "ich mein meine meinen meiner meinem meines mir mich",
        "wir uns unser unsere unseren unserer",
        "du dein deine deinen dir dich euch",
    ),
    _language(
        "de het een en van niet dat is op te met voor zijn aan door wordt worden ook naar bij om",
        "ik mijn mij me",
        "wij we ons onze",
        "je jij jouw u uw",
    ),
    _language(
        "och att det som på inte är en för med av till den ett har kan från eller",
        "jag mig min mitt mina",
        "vi oss vår våra",
        "du dig din ditt",
    ),
    _language(
        "og at det som på ikke er en til med af av for den et har kan fra eller",
        "jeg mig meg min mit mitt mine",
        "vi os oss vores",
        "du dig deg din",
    ),
    _language(
        "le la les des et est une dans que pour pas un en au du par sur avec plus ce qui",
        "je j moi mon ma mes me m",
        "nous notre nos",
        "vous votre vos tu toi",
    ),
    _language(
        "el la los las de que y en un una por con no es se para del al como más su",
        "yo mi mis mío mía me conmigo estoy tengo fui voy hice creo quiero puedo tuve estaba",
        "nosotros nosotras nuestro nuestra nuestros nuestras nos",
        "tú tu tus usted ustedes",
    ),
    _language(
        "o os de que em um uma não com para é da na do dos por como mais se",
        "eu meu minha meus minhas mim me comigo devo estou tenho vou fiz acho quero fui",
        "nós nosso nossa",
        "você vocês seu",
    ),
    _language(
        "il la di che e un una per non con del è le gli della nel si come più sono da",
        "io mio mia miei mie mi sono ho vado faccio voglio penso devo",
        "noi nostro nostra",
        "tu tuo tua voi vostro",
    ),
    _language(
        "w na z się nie że o jest do jak dla są przez lub",
        "mój moja moje mnie mi moją jestem mam byłem byłam chcę",
        "my nasz nasza nas",
        "ty twój",
    ),
    _language("v na se je že s z do jako pro jsou nebo který", "můj moje mě mi mám jsem chci", "náš naše nás", "ty tvůj vy"),
    _language(
        "и в не на что с это по как а для из от или к",
        "я мой моя моё мои мне меня мной мою моей",
        "мы наш наша наши нас нам",
        "вы вас вам ты тебе",
    ),
    _language("ve bir bu için de da ile çok olarak daha gibi olan", "ben benim bana beni", "biz bizim", "sen siz"),
    _language("az és nem hogy egy a is van vagy", "én nekem vagyok", "mi nekünk", "te ti"),
    _language("ja on ei että se oli tai ovat joka kun", "minä minun minua olen", "me meidän", "sinä te"),
    # Latin: what stands where a text is still to come.
    _language(
        "lorem ipsum dolor sit amet et in sed ut ad non est cum nec ac vel tempor vitae nulla mi pretium id at ante faucibus",
        "ego mihi",
        "nos",
        "tibi",
    ),
)
LANGUAGES = (ENGLISH, *OTHERS)
EVERY = reduce(Language.__or__, LANGUAGES)
OFTEN = {word: [place for place, some in enumerate(LANGUAGES) if word in some.often] for some in LANGUAGES for word in some.often}
# Of a text in an unknown language: "mit" is Danish for "my", but stands in every third German sentence, as "im" does.
ANY = replace(EVERY, one=EVERY.one - {"mit", "im"})
# "We" where words have no spaces: 我 is part of it. 我国 (our country) and 自我 (the self) are nobody in particular.
WE = re.compile(r"[我咱][们們]|私(?:たち|達)|[僕俺](?:たち|ら|達)|我(?=[国國方校司军軍省县市])|自我")
INFLECTED = re.compile(r"[나내저]는|제가|内の|我")
TURKISH = re.compile(r"\b\w{3,}[ıiuü]yorum\b")
NO_PERSON = re.compile(  # "I" and "eu" that are nobody
    r"\bi\.\s?e\.|\bEU\b|私(?=[有人営營密利立下生服募家情])|(?<=[自隐隱走无無])私"
    r"|\b(?:[Pp]art|[Cc]hapter|[Vv]olume|[Ww]ar|WW|Act|Type|Class) I\b|\bI(?=[–—-][IVXL]+\b)"
)
NOBODY = (
    "i.",
    "EU",
    "art I",
    "apter I",
    "olume I",
    "ar I",
    "WW I",
    "Act I",
    "Type I",
    "Class I",
    "私",
    "I–",
    "I—",
    "I-",
)  # in each match
# Parts of names, paths, keys and commands: my-site, I/O, Ctrl-i, /me, :i, -i.
JOINED = re.compile(r"(?<!\w)[A-Za-z0-9_]++(?:[-/\\_=@+~#:][A-Za-z0-9_]++)++|(?<![\w-])[/\\:$#~@][A-Za-z0-9_]+|(?<![\w-])-[a-z]\b")
JOINTS = frozenset("-/\\_=@+~#:$")
VARIABLE = re.compile(r"\w(?:\[[iI]\]|\([iI]\))")  # in[I], f(i): then no other "I" of the text is a person either
KEY = re.compile(r"(?<![\w'’])i(?![\w'’]| [a-z’'])")  # an "i" before no word: a key, a number
SMALL = re.compile(r"(?<![\w'’])(?:i|[iI]m)(?![\w'’])")  # "and" or "in" where the language is not English; a variable
CAPITAL = re.compile(r"(?<![\w'’])I(?![\w'’])")
LETTERS = frozenset("bcdfghjklmnpqrstvwxz")  # two of them alone in a text are variables, and "i" beside them is one
FORMULA = re.compile(  # where "i" is an index and "I" an integral: $x_i$, \(I\), a_{ij}, i = 1, (i), the i-th
    r"\$(?=[^$\n]{0,300}[\\_^={}<>|])[^$\n]{1,300}\$|\$[^\s$]{1,30}\$|\\[(\[][^\n]{1,300}?\\[)\]]|\\[A-Za-z]{2,20}"
    r"|(?<=[\w)}])[_^]\{?[^\s{}]{1,20}|\b[iI](?=[_^])|\(\s?i\s?\)|\bi(?=\s?[=<>≤≥+*/\]}]|-th\b)|[=<>≤≥+*/]\s?i\b"
)
COUNTS = frozenset("$\\_^=<>≤≥+*")  # one of these, or of the next, is in every match of FORMULA
COUNTED = ("(i)", "( i", "(i ", "i-th", "i/", "/i", "/ i", "i /", "i]", "i ]", "i}", "i }")


@dataclass(frozen=True)
class Voice:
    """Who speaks in a text, outside quotations."""

    words: list[str]
    one: int  # words of one person of themselves
    many: int
    reader: int
    share: float  # of the words: those in sentences and lines with "I"; those with "we" alone count a quarter


def voice(text: str) -> Voice:
    """The voice of a text without the names of sites."""
    variable = VARIABLE.search(text)
    text = NO_PERSON.sub(" ", text) if any(map(text.__contains__, NOBODY)) else text
    if not COUNTS.isdisjoint(text) or any(map(text.__contains__, COUNTED)):
        text = FORMULA.sub(" ", text)
    text = JOINED.sub(" ", text) if not JOINTS.isdisjoint(text) else text
    every = words(text)
    language = _of(every)
    if "i" in every or "im" in every:
        english = language is ANY or language is ENGLISH and len(LETTERS.intersection(every)) < 2
        text = (KEY if english else SMALL).sub(" ", text)
        text = CAPITAL.sub(" ", text) if variable else text
    own, one, many, personal = list[str](), 0, 0, 0.0
    for stretch in outside_quotations(text):
        for line in stretch.split("\n"):
            for sentence in split_sentences(line):
                ours = mine = 0
                if not sentence.isascii():
                    sentence, ours = WE.subn(" ", sentence)
                    mine = len(INFLECTED.findall(sentence))
                heads = _heads(sentence)
                mine += _count(heads, language.one) + (len(TURKISH.findall(sentence)) if "yorum" in sentence else 0)
                ours += _count(heads, language.many)
                own += heads
                one, many = one + mine, many + ours
                personal += len(heads) * (1.0 if mine else 0.25 if ours else 0.0)
    return Voice(own, one, many, _count(own, language.reader), personal / max(1, len(own)))


def first_person(text: str) -> int:
    """How many words of a text are those of one person of themselves."""
    return voice(text).one


def _of(own: list[str]) -> Language:
    """The language of the most frequent words; ANY where there are none, as in a short text or in a script of its own."""
    counts = [0] * len(LANGUAGES)
    for word in own:
        for place in OFTEN.get(word, ()):
            counts[place] += 1
    most = max(counts)
    return LANGUAGES[counts.index(most)] if most > 1 else ANY


def _count(own: Iterable[str], known: frozenset[str]) -> int:
    return sum(map(known.__contains__, own))


def _heads(text: str) -> list[str]:
    """The words of a text; of one with an apostrophe, what stands before it."""
    own = words(text)
    return [word.partition("'")[0] for word in own] if "'" in text or "’" in text else own
