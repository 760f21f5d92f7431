"""Facts about the author of notes: from what the model wrote to sentences that a note supports, and from many such sentences to
few. Plain functions of text; `profile.py` lets the model write.

A fact is a sentence about "the user" in the third person. It is dropped where its note does not support it: most of its telling
words, and every number and name in it, must stand in the note (stems of words are compared, so "bakes" and "baking" are one).
"""

import re
from collections import Counter
from dataclasses import dataclass, replace

from ..text.parroting import EVERYDAY, stem
from ..text.words import likeness, repeated_share, words

SUBJECT = "The user"
WORDS = (4, 30)  # of a fact
SUPPORT = 0.6  # share of a fact's telling words that its note must have
ALIKE = 0.5  # likeness from which two facts are one
OF_ANY_PROFILE = "user people person someone something anything enjoy interest interested describe mention".split()
NOT_TELLING = frozenset(map(stem, (*EVERYDAY, *OF_ANY_PROFILE)))
OTHER_VOICE = frozenset("i i'm i've i'd i'll me my mine myself we we're our ours us you your yours you're you've".split())
OTHER_SUBJECT = re.compile(r"^(?:the|this) (?:writer|author|person|speaker|narrator|note-?taker)\b", re.IGNORECASE)
ABOUT = re.compile(rf"{SUBJECT}(?:'s|\u2019s)? [^\"\u201c:?]*$")  # no quotation, no list, no question
MARKER = re.compile(r"^(?:[-*+\u2022]|\d+[.)])\s+")
ENDING = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True)
class Fact:
    text: str
    sources: tuple[str, ...]  # file:line of every passage that it came from
    support: float  # share of its telling words that these have
    place: int  # the first of these passages, counted from 0


def sentences(text: str, finished: bool) -> list[str]:
    """The sentences of an answer, one a fact; the last one of an answer that was cut off (`finished` False) is left out."""
    found = []
    for line in text.splitlines():
        line = MARKER.sub("", line.strip()).strip("*_ ")
        found += [OTHER_SUBJECT.sub(SUBJECT, sentence.strip()) for sentence in ENDING.split(line) if sentence.strip()]
    if found and not finished and not found[-1].endswith((".", "!", "?")):
        found.pop()
    return [sentence if sentence.endswith((".", "!", "?")) else f"{sentence}." for sentence in found]


def unfit(fact: str, source: str) -> str | None:
    """Why a sentence is no fact that `source` tells about the user, or None."""
    said = words(fact)
    if not ABOUT.match(fact):
        return "not_about_user"
    if OTHER_VOICE & set(said):
        return "other_voice"
    if not WORDS[0] <= len(said) <= WORDS[1]:
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
    """Stems of the words that say something: no everyday ones, nor those of any profile."""
    return {stem(word) for word in words(text) if len(word) > 2} - NOT_TELLING


def named(fact: str) -> set[str]:
    """Numbers, and capitalised words behind the first two ("The user"), in lower case."""
    return {word.lower() for word in re.findall(r"\w+", fact)[2:] if word[0].isdigit() or word[0].isupper()}


def supported(fact: str, source: str) -> float:
    """The share of a fact's telling words that stand in `source`; 0 where it has none."""
    own = telling(fact)
    return len(own & {stem(word) for word in words(source)}) / len(own) if own else 0.0


def merge(facts: list[Fact]) -> list[Fact]:
    """One of all facts that say the same, with the sources of all. Facts are the same where their wording is alike, or where one
    has every telling word of the other: of these the one that says more stays. The order of what stays is kept."""
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


def ranked(facts: list[Fact]) -> list[Fact]:
    """What more notes say first, then what they support better, then what comes first."""
    return sorted(facts, key=lambda fact: (-len({s.rpartition(":")[0] for s in fact.sources}), -fact.support, fact.place))


def condensed(text: str, finished: bool, group: list[Fact], dropped: Counter) -> list[Fact]:
    """The facts that the model wrote instead of a group of them, each with the sources of those that it stands for, and those of
    the group that none stands for. What the group does not support is counted in `dropped`."""
    whole = "\n".join(fact.text for fact in group)
    found: list[Fact] = []
    covered: set[Fact] = set()
    for sentence in sentences(text, finished):
        behind = [fact for fact in group if supported(fact.text, sentence) >= 0.5]
        fault = unfit(sentence, whole) or (None if behind else "unsupported")
        if fault:
            dropped[fault] += 1
        else:
            sources = tuple(dict.fromkeys(source for fact in behind for source in fact.sources))
            support = supported(sentence, whole) * max(fact.support for fact in behind)
            found.append(Fact(sentence, sources, support, min(fact.place for fact in behind)))
            covered.update(behind)
    return found + [fact for fact in group if fact not in covered]
