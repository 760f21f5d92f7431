"""Requests that are written by rule from held-out passages, and requests that fit no note: what memory is measured with.

A request names two words of its passage. The seed draws them from the words that few notes have. So it shares words with its
passage, as a person's question often does; a question in other words is found less often. Where the passage is not English, the
request is the words alone.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..memory.terms import ENGLISH, UNBROKEN, content_words, language
from ..recipe import Recipe
from ..records import HELDOUT, Context, seed_for

FRAMES = (
    "What would you suggest to me about {}?",
    "How could I go on with {}?",
    "What should I keep in mind about {}?",
    "Could you give me an idea about {}?",
    "What matters to me about {}?",
    "How would you help me with {}?",
)
NAMED = 2  # words of the passage in a request
MOST = 3  # requests about a passage
COMMON = 0.1  # share of the notes from which a word says too little
SHORTEST = 3  # letters of such a word

# Questions of general knowledge, each of another field.
STRANGERS = (
    "What is the boiling point of tungsten?",
    "Who signed the Treaty of Westphalia?",
    "How many moons does Neptune have?",
    "What is the capital of Burkina Faso?",
    "Which enzyme unwinds the double helix of DNA?",
    "Who wrote the opera Parsifal?",
    "What is the legal quorum of the Icelandic parliament?",
    "How do ocean tides depend on the lunar orbit?",
    "What does the Chandrasekhar limit describe?",
    "Which dynasty built most of the Great Wall?",
    "How is crude oil refined into kerosene?",
    "What is the difference between stalactites and stalagmites?",
    "Who proved the prime number theorem?",
    "What caused the eruption of Krakatoa?",
    "How does a suspension bridge carry its load?",
    "Which pope introduced the leap day reform?",
    "What is the melting temperature of basalt?",
    "How did the Hanseatic League decline?",
    "Which vitamin deficiency leads to scurvy?",
    "What is the atomic number of ytterbium?",
    "How long is the gestation of an elephant?",
    "Who commanded the Carthaginian army at Cannae?",
    "What does the Nyquist theorem state?",
    "How are hurricanes named in the Atlantic basin?",
)


@dataclass(frozen=True)
class AboutNote:
    """A request and the passage that it was written from."""

    id: str
    text: str
    context: Context


def about_notes(contexts: Sequence[Context], recipe: Recipe, count: int) -> list[AboutNote]:
    """At most `count` requests about held-out passages. Each note has one before any has two.

    A passage has up to MOST requests, with other words in each. contexts: of all sides, so that common words are known.
    """
    rng = random.Random(seed_for(recipe.seed, "requests about notes"))
    words = {context.id: set(content_words(context.text)) for context in contexts}
    notes: dict[str, set[str]] = {}
    for context in contexts:
        notes.setdefault(context.note, set()).update(words[context.id])
    spread = Counter(word for own in notes.values() for word in own)
    most = max(1, int(COMMON * len(notes)))
    order = sorted((context for context in contexts if context.split == HELDOUT), key=lambda context: context.id)
    rng.shuffle(order)
    turns: Counter[tuple[str, int]] = Counter()
    requests: list[tuple[int, int, AboutNote]] = []
    for context in order:
        telling = sorted(word for word in words[context.id] if spread[word] <= most and _tells(word))
        named = rng.sample(telling, min(MOST * NAMED, len(telling)))
        parts = [named[place : place + NAMED] for place in range(0, len(named), NAMED)]
        for number, part in enumerate(parts if len(named) < NAMED else [part for part in parts if len(part) == NAMED]):
            request = AboutNote(f"about-{context.id}-{number}", _request(part, context.text, rng.choice(FRAMES)), context)
            requests.append((number, turns[context.note, number], request))
            turns[context.note, number] += 1
    return [request for *_, request in sorted(requests, key=lambda row: row[:2])][:count]


def _tells(word: str) -> bool:
    return bool(UNBROKEN.match(word)) or (len(word) >= SHORTEST and word.isalpha())


def _request(named: list[str], passage: str, frame: str) -> str:
    english = language(passage) == ENGLISH and not any(UNBROKEN.match(word) for word in named)
    return frame.format(" and ".join(named)) if english else f"{', '.join(named)}?"
