"""Facts about the author of the notes: functions that check, merge, rank and condense what the model wrote in distil.py.

A fact is a sentence about "the user" in the third person. Its note must hold most of its telling words, and all its numbers
and names; else it is dropped. Words are compared by their stems, so "bakes" and "baking" are one.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace

from ..text.parroting import EVERYDAY, NEGATIONS, stem
from ..text.words import likeness, repeated_share, words

SUBJECT = "The user"
WORDS = (4, 30)  # of a fact
SUPPORT = 0.6  # share of a fact's telling words that its note must hold
ALIKE = 0.5  # two facts of at least this likeness are one
OF_ANY_PROFILE = "user people person someone something anything enjoy interest interested describe mention".split()
NOT_TELLING = frozenset(map(stem, (*EVERYDAY, *OF_ANY_PROFILE)))
OTHER_VOICE = frozenset("i i'm i've i'd i'll me my mine myself we we're our ours us you your yours you're you've".split())
OTHER_SUBJECT = re.compile(r"^(?:the|this) (?:writer|author|person|speaker|narrator|note-?taker)\b", re.IGNORECASE)
ABOUT = re.compile(rf"{SUBJECT}(?:'s|\u2019s)? [^\"\u201c:?]*$")  # no quotation, no list, no question
MARKER = re.compile(r"^(?:[-*+\u2022]|\d+[.)])\s+")
ENDING = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


DATE = re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)")
NUMBERS = frozenset("no one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred".split())
DENIED = NEGATIONS | {"longer", "stopped"}
# A person has one of each at a time.
ONE_AT_A_TIME = re.compile(rf"{SUBJECT} (?:now )?(lives in|works (?:at|for)|is (?:married|engaged) to)\b")


@dataclass(frozen=True)
class Fact:
    text: str
    sources: tuple[str, ...]  # file:line of each of its passages
    support: float  # share of its telling words that these passages hold
    place: int  # number of its first passage, from 0


def sentences(text: str, finished: bool) -> list[str]:
    """The sentences of an answer, one a fact. A last sentence that was cut off (`finished` False) is left out."""
    parts: list[str] = []
    for line in text.splitlines():
        line = MARKER.sub("", line.strip()).strip("*_ ")
        parts += [OTHER_SUBJECT.sub(SUBJECT, sentence.strip()) for sentence in ENDING.split(line) if sentence.strip()]
    if parts and not finished and not parts[-1].endswith((".", "!", "?")):
        parts.pop()
    return [sentence if sentence.endswith((".", "!", "?")) else f"{sentence}." for sentence in parts]


def unfit(fact: str, source: str) -> str | None:
    """The reason why a sentence is not a fact that `source` supports, or None."""
    fact_words = words(fact)
    if not ABOUT.match(fact):
        return "not_about_user"
    if OTHER_VOICE & set(fact_words):
        return "other_voice"
    if not WORDS[0] <= len(fact_words) <= WORDS[1]:
        return "length"
    if repeated_share(fact) > 0:
        return "repeats_itself"
    if "[" in fact:  # a secret that was redacted
        return "redacted"
    if not telling(fact):
        return "says_nothing"
    known = {word.lower() for word in re.findall(r"\w+", source)}
    if named(fact) - known or supported(fact, source) < SUPPORT:
        return "unsupported"
    return None


def telling(text: str) -> set[str]:
    """Stems of the telling words: all but everyday words and words that fit any profile."""
    return {stem(word) for word in words(text) if len(word) > 2} - NOT_TELLING


def named(fact: str) -> set[str]:
    """Numbers and capitalised words in lower case, without the first two words ("The user")."""
    return {word.lower() for word in re.findall(r"\w+", fact)[2:] if word[0].isdigit() or word[0].isupper()}


def supported(fact: str, source: str) -> float:
    """The share of a fact's telling words that `source` holds, 0 to 1. A fact without telling words has 0."""
    own = telling(fact)
    return len(own & {stem(word) for word in words(source)}) / len(own) if own else 0.0


def merge(facts: list[Fact]) -> list[Fact]:
    """The facts in their order, equal ones merged: the one with the most telling words stays, with the sources of all.

    Two facts are equal where their wording is alike, or where one holds each telling word of the other.
    """
    kept: dict[int, Fact] = {}
    stems = [telling(fact.text) for fact in facts]
    for number in sorted(range(len(facts)), key=lambda i: (-len(stems[i]), i)):
        fact = facts[number]
        twin = next((i for i in kept if stems[number] & stems[i] and _same(fact, kept[i], stems[number], stems[i])), None)
        if twin is None:
            kept[number] = fact
        else:
            kept[twin] = replace(
                kept[twin],
                sources=tuple(dict.fromkeys((*kept[twin].sources, *fact.sources))),
                place=min(kept[twin].place, fact.place),
            )
    return [kept[number] for number in sorted(kept)]


def _same(fact: Fact, other: Fact, stems: set[str], others: set[str]) -> bool:
    return stems <= others or likeness(fact.text, other.text) >= ALIKE


def newest(facts: list[Fact]) -> list[Fact]:
    """The facts without those that a fact of a later note contradicts. Notes have the dates in their names; others stay."""
    dated = [(date_of(fact), fact) for fact in facts]
    later = sorted((pair for pair in dated if pair[0]), key=lambda pair: pair[0])
    old = {one for n, (day, one) in enumerate(later) if any(day < other and opposed(one, two) for other, two in later[n + 1 :])}
    return [fact for fact in facts if fact not in old]


def date_of(fact: Fact) -> str:
    """The last date in the names of a fact's notes, as eight digits; "" where they have none."""
    days = [re.sub(r"\D", "", day) for source in fact.sources for day in DATE.findall(source.rpartition(":")[0])]
    return max(days, default="")


def opposed(one: Fact, other: Fact) -> bool:
    """Whether two facts cannot both hold: they differ in a number alone, in a "not" alone, or in where a person lives or works."""
    both = [words(fact.text) for fact in (one, other)]
    bare = [[word for word in some if not (word.isdigit() or word in NUMBERS)] for some in both]
    if bare[0] == bare[1]:
        return both[0] != both[1]
    kinds = [ONE_AT_A_TIME.match(fact.text) for fact in (one, other)]
    if kinds[0] and kinds[1] and kinds[0][1] == kinds[1][1]:
        names = named(one.text), named(other.text)
        return all(names) and not names[0] & names[1]
    rest = [telling(" ".join(word for word in some if word not in DENIED)) for some in both]
    return (not DENIED & set(both[0])) != (not DENIED & set(both[1])) and rest[0] == rest[1] != set()


def ranked(facts: list[Fact]) -> list[Fact]:
    """Facts of the most notes first, then the best supported, then the earliest."""
    return sorted(facts, key=lambda fact: (-len({s.rpartition(":")[0] for s in fact.sources}), -fact.support, fact.place))


def condensed(text: str, finished: bool, group: list[Fact], dropped: Counter) -> list[Fact]:
    """The facts of a condensed answer, then the facts of the group that no new fact covers.

    A new fact takes the sources of the facts that it covers. What the group does not support is counted in `dropped`.
    """
    whole = "\n".join(fact.text for fact in group)
    new: list[Fact] = []
    covered: set[Fact] = set()
    for sentence in sentences(text, finished):
        behind = [fact for fact in group if supported(fact.text, sentence) >= 0.5]
        fault = unfit(sentence, whole) or (None if behind else "unsupported")
        if fault:
            dropped[fault] += 1
        else:
            sources = tuple(dict.fromkeys(source for fact in behind for source in fact.sources))
            support = supported(sentence, whole) * max(fact.support for fact in behind)
            new.append(Fact(sentence, sources, support, min(fact.place for fact in behind)))
            covered.update(behind)
    return new + [fact for fact in group if fact not in covered]
