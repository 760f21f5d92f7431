"""From a text to the words that a search goes by: no function words, and pairs of characters where no spaces part the words."""

import re
from functools import cache
from pathlib import Path

from ..text.words import UNSPACED, plain

# Korean has spaces, but its particles hang on the nouns: pairs of syllables find the noun.
UNBROKEN = re.compile(f"[{UNSPACED}\uac00-\ud7a3]+")
SPACED = re.compile(rf"[^\W_{UNSPACED}\uac00-\ud7a3]+")
CLITIC = re.compile(r"\b(?:l|d|j|qu|s|n|c|m|t|dell|all|nell|un|sull|dall)'(?=\w)|'(?:s|d|ll|re|ve|m|t)\b")
ENGLISH = "English"
SHORTEST = 4  # characters of a word that may be mistyped
FUNCTION_WORDS = Path(__file__).parent / "function_words.txt"


def pairs(text: str) -> str:
    """Each two neighbouring characters of the stretches that have no spaces between words; "" for a text without any."""
    return " ".join(pair for stretch in UNBROKEN.findall(text) for pair in _pairs(stretch))


def content_words(question: str) -> list[str]:
    """The words to search for, each once, in lower case; all words of a question that has function words alone."""
    text = CLITIC.sub(" ", plain(question))
    unbroken = [pair for stretch in UNBROKEN.findall(text) for pair in _pairs(stretch)]
    spaced = SPACED.findall(text)
    telling = [word for word in spaced if word not in function_words() and (len(word) > 1 or word.isdigit())]
    return list(dict.fromkeys(telling + unbroken or spaced))


def misspells_a_function_word(word: str) -> bool:
    """Whether a word that no note has is a function word with a typing error."""
    if len(word) < SHORTEST:
        return False
    return any(edits(word, other, 1) == 1 for first in dict.fromkeys(word[:2]) for other in _by_first().get(first, ()))


def language(text: str) -> str:
    """The language, of those in function_words.txt, of which a text has most function words; English where it has none."""
    words = CLITIC.sub(" ", plain(text)).split()
    return max(_languages(), key=lambda name: (sum(word.strip(".,;:!?") in _languages()[name] for word in words), name == ENGLISH))


@cache
def function_words() -> frozenset[str]:
    """Words that say nothing about a topic, of all languages."""
    return frozenset().union(*_languages().values())


@cache
def _by_first() -> dict[str, list[str]]:
    """The function words that may be mistyped, by their first letter."""
    words: dict[str, list[str]] = {}
    for word in function_words():
        if len(word) >= SHORTEST:
            words.setdefault(word[0], []).append(word)
    return words


@cache
def _languages() -> dict[str, frozenset[str]]:
    parts = FUNCTION_WORDS.read_text(encoding="utf-8").split("\n# ")[1:]
    return {part.partition("\n")[0]: frozenset(part.partition("\n")[2].split()) for part in parts}


def edits(one: str, other: str, most: int) -> int:
    """The optimal string alignment distance of two words (insertions, deletions, replacements and swaps of neighbours); `most` + 1
    where it is larger than `most`."""
    if abs(len(one) - len(other)) > most or len(set(one) ^ set(other)) > 2 * most:  # an edit changes two letters of a set at most
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row, older = row, [i], before
        before = above
        for j, b in enumerate(other, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def _pairs(stretch: str) -> list[str]:
    return [stretch[at : at + 2] for at in range(len(stretch) - 1)] or [stretch]
