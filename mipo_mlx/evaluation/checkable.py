"""Preferences that a program can check: does an answer do what the user wants?

There are kinds of requirement, ten ways to state each, and base against tuned with the requirement as context and without it.
recipes/checkable.yaml trains on such requirements. Kinds that no training pair stated are also counted by themselves. A third of
all kinds (`Kind.heldout`) is in no context there, and further ones are held out or pick the checkpoint.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex

from ..files import read_records
from ..recipe import Recipe
from ..records import Prompt, key_for
from ..text.words import words
from ..training import rounds
from .outcome import Checkable, HeldoutKinds, KindShare
from .statistics import SHARE, Measures, key_of, too_few
from .workbench import Side, Workbench

PHRASINGS = (
    "I want you to {wish}.",
    "Please {wish}.",
    "It matters to me that you {wish}.",
    "Whenever you answer me, {wish}.",
    "My one rule for replies: {wish}.",
    "I stop reading unless you {wish}.",
    "I have said it before: {wish}, please.",
    "For reasons of my own I need you to {wish}.",
    "Kindly {wish} in everything you write to me.",
    "I like assistants that listen, so {wish}.",
)
BULLET = re.compile(r"^\s*[-*\u2022] +\S", re.MULTILINE)
NUMBERED = re.compile(r"^\s*\d+[.)] +\S", re.MULTILINE)
EMOJI = regex.compile(  # also signs such as a heart that are typed without their variation selector; a digit is one as a keycap
    r"(?:\p{Emoji_Presentation}|(?=[\u2600-\u27bf\U0001f000-\U0001faff])\p{Emoji})(?!\ufe0e)"
    r"|(?=[^\d#*])\p{Emoji}\ufe0f|[\d#*]\ufe0f?\u20e3"
)
SENTENCE = re.compile(r"[.!?]+(?=\s|$)")
ITEM = re.compile(r"\n\s*\n|^\s*(?:[-*\u2022]|\d+[.)]) +", re.MULTILINE)  # an item of a list, like a paragraph, stands by itself
ABBREVIATION = re.compile(
    r"\b(?:(?:(?-i:Dr|Mrs?|Ms|Prof)|vs|cf|approx|e\.g|i\.e)\.(?=\s\S)|no\.(?=\s\d)|(?:etc|[ap]\.m|u\.s)\.(?=\s(?-i:[a-z])))",
    re.IGNORECASE,
)
# Words that only one of the four languages has among its most frequent ones.
FREQUENT = {
    "English": frozenset("the and you to of is that it for with your this are be can have".split()),
    "Spanish": frozenset("el los las una que por con para como pero puedes tu muy es y del".split()),
    "German": frozenset("der das und ist nicht ein eine mit sie ich zu auf auch kannst den dem".split()),
    "French": frozenset("le les des une est pas pour dans vous avec qui sur et vos peut du".split()),
}


@dataclass(frozen=True)
class Kind:
    """One requirement: how it is stated ("..., please {wish}") and how it is checked."""

    name: str
    wish: str
    met: Callable[[str], bool]

    @property
    def heldout(self) -> bool:
        """Whether recipes/checkable.jsonl leaves it out."""
        return self.name in HELDOUT_KINDS


def _language(name: str) -> Callable[[str], bool]:
    def met(text: str) -> bool:
        spoken = words(text)
        counts = {language: sum(word in frequent for word in spoken) for language, frequent in FREQUENT.items()}
        return counts[name] >= 2 and counts[name] > max(n for language, n in counts.items() if language != name)

    return met


def _json(text: str) -> bool:
    body = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip())
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False


def _letters(text: str) -> str:
    return "".join(c for c in text if c.isalpha())


def _sentences(text: str) -> int:
    text = ABBREVIATION.sub(lambda match: match[0].replace(".", ""), text)
    return sum(bool(words(part)) for item in ITEM.split(text) for part in SENTENCE.split(item))


KINDS = (
    Kind("short", "keep every answer under twenty words", lambda t: 0 < len(words(t)) < 20),
    Kind("long", "write at least thirty words", lambda t: len(words(t)) >= 30),
    Kind("one sentence", "answer in exactly one sentence", lambda t: _sentences(t) == 1),
    Kind("three sentences", "answer in exactly three sentences", lambda t: _sentences(t) == 3),
    Kind("bullets", "answer with a bulleted list", lambda t: len(BULLET.findall(t)) >= 2),
    Kind("numbers", "answer with a numbered list", lambda t: len(NUMBERED.findall(t)) >= 2),
    Kind("prose", "write plain prose without any list", lambda t: bool(t) and not BULLET.search(t) and not NUMBERED.search(t)),
    Kind("emoji", "use at least one emoji", lambda t: bool(EMOJI.search(t))),
    Kind("no emoji", "leave out every emoji", lambda t: bool(t) and not EMOJI.search(t)),
    Kind("JSON", "reply with one valid JSON object and nothing else", _json),
    Kind("lower case", "write in lower case only", lambda t: bool(_letters(t)) and _letters(t) == _letters(t).lower()),
    Kind("capitals", "write in capital letters only", lambda t: bool(_letters(t)) and _letters(t) == _letters(t).upper()),
    Kind("a word", "use the word lighthouse somewhere", lambda t: "lighthouse" in words(t)),
    Kind("not a word", "avoid the word you", lambda t: bool(t) and "you" not in words(t)),
    Kind("an opening", "begin with the word Certainly", lambda t: words(t)[:1] == ["certainly"]),
    Kind("a question", "end with a question", lambda t: t.rstrip("\"') \n").endswith("?")),
    Kind("no exclamation", "leave out exclamation marks", lambda t: bool(t) and "!" not in t),
    Kind("no commas", "write without commas", lambda t: bool(t) and "," not in t),
    Kind("digits", "write at least one number in digits", lambda t: bool(re.search(r"\d", t))),
    Kind("no digits", "leave out all digits", lambda t: bool(t) and not re.search(r"\d", t)),
    Kind("Spanish", "answer in Spanish", _language("Spanish")),
    Kind("German", "answer in German", _language("German")),
    Kind("French", "answer in French", _language("French")),
    Kind("paragraphs", "write two paragraphs with an empty line between", lambda t: len(re.split(r"\n\s*\n", t.strip())) == 2),
)


HELDOUT_KINDS = ("three sentences", "numbers", "no emoji", "capitals", "not a word", "no digits", "German", "paragraphs")


def contexts() -> list[dict[str, str]]:
    """The rows of recipes/checkable.jsonl: every kind that is not held out, in all phrasings."""
    return [{"context": p.format(wish=kind.wish), "note": kind.name} for kind in KINDS if not kind.heldout for p in PHRASINGS]


@dataclass(frozen=True)
class Demand:
    """A held-out request and the requirement that goes with it, in one of the PHRASINGS."""

    kind: Kind
    phrasing: int
    request: Prompt

    @property
    def context(self) -> str:
        return PHRASINGS[self.phrasing].format(wish=self.kind.wish)


def demands(folder: Path, recipe: Recipe) -> list[Demand]:
    """`evaluation.checkable` of them: every kind in turn, phrasings and requests by the seed."""
    requests = [p for p in read_records(folder / "prompts.jsonl", Prompt) if p.judges]
    if not requests:
        return []
    rng = np.random.default_rng(key_for(recipe.seed, "checkable requests"))
    return [
        Demand(KINDS[number % len(KINDS)], int(rng.integers(len(PHRASINGS))), requests[int(rng.integers(len(requests)))])
        for number in range(recipe.evaluation.checkable)
    ]


def trained(folder: Path) -> set[str]:
    """The names of the kinds that a training pair of the run stated; none of them in a run on notes."""
    stated = {message["content"] for pair in rounds.trained_pairs(folder) for message in pair.prompt}
    return {kind.name for kind in KINDS if any(kind.wish in text for text in stated)}


def bar_total(folder: Path, recipe: Recipe) -> int:
    """How much the bar moves in `evaluate`."""
    return 4 * len(demands(folder, recipe))


@dataclass(frozen=True)
class Met:
    """Which answers of one model meet their requirement, 1 or 0 each: with the requirement as context, and without it."""

    stated: list[float]
    unstated: list[float]

    def at(self, places: Sequence[int]) -> "Met":
        return Met([self.stated[i] for i in places], [self.unstated[i] for i in places])


def evaluate(bench: Workbench) -> Checkable | None:
    """The share of answers that meet the requirement, before and after. None where nothing is asked.

    checkable: with the requirement stated; checkable_without: without it; checkable_gain: the difference. "heldout_kinds" has the
    same for the kinds that were not trained on. It has no requests where none of all kinds was trained on: those are all requests.
    """
    demanded = demands(bench.folder, bench.recipe)
    if not demanded:
        return None
    base, tuned = (_met(bench, demanded, side) for side in ("base", "tuned"))
    measures = _measures(demanded, base, tuned, bench)
    seen = trained(bench.folder)
    unseen = [i for i, demand in enumerate(demanded) if seen and demand.kind.name not in seen]
    heldout = _measures([demanded[i] for i in unseen], base.at(unseen), tuned.at(unseen), bench)
    places: dict[str, list[int]] = {}
    for index, demand in enumerate(demanded):
        places.setdefault(demand.kind.name, []).append(index)
    return Checkable(
        requests=len(demanded),
        no_interval=too_few(measures.resampler.clusters),
        metrics=measures.metrics,
        items=measures.items(),
        heldout_kinds=HeldoutKinds(len(unseen), too_few(heldout.resampler.clusters), heldout.metrics if unseen else {}),
        kinds={
            name: KindShare(len(rows), float(np.mean(base.at(rows).stated)), float(np.mean(tuned.at(rows).stated)))
            for name, rows in places.items()
        },
    )


def _met(bench: Workbench, demanded: Sequence[Demand], side: Side) -> Met:
    def shares(phase: str, prompts: list[list[int]]) -> list[float]:
        answers = bench.sample(f"checkable-{side}-{phase}", prompts, "checkable")
        return [float(demand.kind.met(answer.text)) for demand, answer in zip(demanded, answers, strict=True)]

    with bench.as_side(side):
        return Met(
            shares("stated", [bench.prompt(demand.request.text, demand.context) for demand in demanded]),
            shares("unstated", [bench.prompt(demand.request.text, None) for demand in demanded]),
        )


def _measures(demanded: Sequence[Demand], base: Met, tuned: Met, bench: Workbench) -> Measures:
    """Stated and unstated, and the difference, over kinds and requests."""
    clusters = [[demand.kind.name for demand in demanded], [demand.request.id for demand in demanded]]
    measures = Measures([_key(demand) for demand in demanded], bench.resampler(clusters))
    measures.add("checkable", base.stated, tuned.stated, SHARE)
    measures.add("checkable_without", base.unstated, tuned.unstated, SHARE)
    before, after = ([s - u for s, u in zip(met.stated, met.unstated, strict=True)] for met in (base, tuned))
    measures.add("checkable_gain", before, after)
    return measures


def _key(demand: Demand) -> str:
    return key_of(demand.kind.name, demand.phrasing, demand.request.text)
