"""Preferences that a program can check: does an answer do what the user said they want? Kinds of requirement, ten ways to say
each, and base against tuned with the requirement as context and without it.

recipes/checkable.yaml trains on such requirements. Kinds that no training pair told the model are also counted by themselves: a
third of all (`Kind.heldout`) is in no context there, and further ones are held out or pick the checkpoint."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import regex

from ..models import adapters
from ..models import prompts as chat
from ..progress import Bar
from ..recipe import Recipe
from ..records import HELDOUT, Prompt, read_records
from ..text.words import words
from ..training import train
from . import requests as sampling
from .journal import Journal
from .statistics import Measures, case, enough

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
    """One requirement: how it is said ("..., please {wish}") and how it is checked."""

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
    except ValueError:
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


def requests(folder: Path, recipe: Recipe) -> list[tuple[Kind, int, Prompt]]:
    """`evaluation.checkable` of (kind, phrasing, held-out prompt): every kind in turn, phrasings and prompts by the seed."""
    prompts = [p for p in read_records(folder / "prompts.jsonl", Prompt) if p.split == HELDOUT]
    if not prompts:
        return []
    rng = np.random.default_rng([recipe.seed, 0xC4EC])
    found = []
    for number in range(recipe.evaluation.checkable):
        kind = KINDS[number % len(KINDS)]
        found.append((kind, int(rng.integers(len(PHRASINGS))), prompts[int(rng.integers(len(prompts)))]))
    return found


def trained(folder: Path) -> set[str]:
    """The names of the kinds that a training pair of the run told the model; none of them in a run on notes."""
    told = {message["content"] for pair in train.trained_pairs(folder) for message in pair.prompt}
    return {kind.name for kind in KINDS if any(kind.wish in text for text in told)}


def work(folder: Path, recipe: Recipe) -> int:
    """How much the bar moves in `evaluate`."""
    return 4 * len(requests(folder, recipe))


def evaluate(
    model: Any, tokenizer: Any, folder: Path, recipe: Recipe, journal: Journal, bar: Bar | None = None
) -> dict[str, Any] | None:
    """{"requests", "metrics", "heldout_kinds", "kinds"}: the share of answers that meet the requirement, told it (checkable) and
    not told it (checkable_without), and the difference that telling makes (checkable_gain), before and after; "heldout_kinds" has
    the same of those kinds alone that were not trained on, and no requests where none of all was: those are all the requests.
    `model` has adapters on it. None where nothing is asked.
    """
    asked = requests(folder, recipe)
    if not asked:
        return None

    def answered(side: str, told: bool) -> list[float]:
        def sample(chunk: int, part: Sequence[tuple[Kind, int, Prompt]]) -> list[Any]:
            contexts = [PHRASINGS[phrasing].format(wish=kind.wish) if told else None for kind, phrasing, _ in part]
            prompts = [
                chat.encode(tokenizer, chat.messages(recipe.pairs, prompt.text, context))
                for (_, _, prompt), context in zip(part, contexts, strict=True)
            ]
            return sampling.answers(model, tokenizer, prompts, recipe.pairs, sampling.seed_of(recipe.seed, "checkable", chunk))

        rows = journal.map(f"checkable-{side}-{'told' if told else 'untold'}", asked, recipe.pairs.batch, sample, bar)
        return [float(kind.met(row["text"])) for (kind, _, _), row in zip(asked, rows, strict=True)]

    with adapters.disabled(model):
        base = {told: answered("base", told) for told in (True, False)}
    tuned = {told: answered("tuned", told) for told in (True, False)}
    everything = _measures(asked, base, tuned, recipe)
    seen = trained(folder)
    unseen = [i for i, (kind, _, _) in enumerate(asked) if seen and kind.name not in seen]
    part = [{told: [side[told][i] for i in unseen] for told in side} for side in (base, tuned)]
    heldout = _measures([asked[i] for i in unseen], *part, recipe)
    kinds: dict[str, list[float]] = {}
    for index, (kind, _, _) in enumerate(asked):
        row = kinds.setdefault(kind.name, [0.0, 0.0, 0.0])
        for place, value in enumerate((1.0, base[True][index], tuned[True][index])):
            row[place] += value
    return {
        "requests": len(asked),
        "no_interval": enough(everything.clusters),
        "metrics": everything.metrics,
        "items": everything.items(),
        "heldout_kinds": {
            "requests": len(unseen),
            "no_interval": enough(heldout.clusters),
            "metrics": heldout.metrics if unseen else {},
        },
        "kinds": {name: {"requests": int(n), "before": b / n, "after": t / n} for name, (n, b, t) in kinds.items()},
    }


def _measures(
    asked: Sequence[tuple[Kind, int, Prompt]], base: dict[bool, list[float]], tuned: dict[bool, list[float]], recipe: Recipe
) -> Measures:
    """Told and untold, and told - untold, over kinds and prompts."""
    keys = [case(kind.name, phrasing, prompt.text) for kind, phrasing, prompt in asked]
    clusters = [[kind.name for kind, _, _ in asked], [prompt.id for _, _, prompt in asked]]
    measures = Measures(keys, clusters, recipe.evaluation.bootstrap, recipe.seed)
    measures.add("checkable", base[True], tuned[True], share=True)
    measures.add("checkable_without", base[False], tuned[False], share=True)
    measures.add("checkable_gain", *([t - u for t, u in zip(side[True], side[False], strict=True)] for side in (base, tuned)))
    return measures
