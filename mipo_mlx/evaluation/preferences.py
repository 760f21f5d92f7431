"""Stated preferences that need no judge (`preferences` in eval.json): does the model favour the answer that respects one?

preferences.jsonl has the items. Each is a preference, a request whose obvious answer violates it, and four short answers of about
equal length, of which the first alone respects it. No letter names an answer. The model scores each answer's text, once with the
preference as context and once without any context.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..recipe import Recipe
from ..records import key_for
from .abilities import score_choices
from .answers import identified
from .outcome import Preferences
from .statistics import MEAN, SHARE, Measures, key_of, too_few
from .workbench import Workbench, drawn

FILE = Path(__file__).with_name("preferences.jsonl")


@dataclass(frozen=True)
class Item:
    """One preference and its question, the answers in a drawn order."""

    preference: str
    request: str
    answers: list[str]
    right: int  # the place of the answer that respects the preference


def items_of(recipe: Recipe) -> list[Item]:
    """`evaluation.preferences` items at most, in the file's order. The seed draws them and the order of each one's answers."""
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    rng = np.random.default_rng(key_for(recipe.seed, "preferences"))
    items = []
    for row in drawn(rows, recipe.evaluation.preferences, rng):
        order = rng.permutation(len(row["answers"])).tolist()
        items.append(Item(row["preference"], row["request"], [row["answers"][i] for i in order], order.index(0)))
    return items


def bar_total(recipe: Recipe) -> int:
    """How much the bar moves in `evaluate`."""
    return 2 * len(items_of(recipe))


def evaluate(bench: Workbench) -> Preferences | None:
    """The share of items whose right answer is the likeliest, before and after, with intervals over items. None without items.

    preferences: by mean log-probability a token, with the preference stated; preferences_untold: without it; preferences_gain: the
    difference. preferences_added: the right answer is the one that stating the preference makes likelier the most, by the whole
    answer's log-probability. So an answer that is likely anyway has no advantage. Tied answers share the point.
    """
    items = items_of(bench.recipe)
    if not items:
        return None
    here = bench.keyed_by([asdict(item) for item in items])
    names = ("preferences", "preferences_untold", "preferences_gain", "preferences_added")
    sides = here.by_side("preferences", items, lambda part: _shares(here, part))
    keys = [key_of(item.preference, item.request, sorted(item.answers)) for item in items]
    measures = Measures(keys, bench.resampler([list(range(len(items)))]))
    for place, name in enumerate(names):
        before, after = ([row[place] for row in side] for side in sides)
        measures.add(name, before, after, MEAN if name == "preferences_gain" else SHARE)
    return Preferences(len(items), too_few(measures.resampler.clusters), measures.metrics, measures.items())


def _shares(bench: Workbench, part: Sequence[Item]) -> list[Any]:
    """For each item its point with the preference stated, without it, the difference, and its point by what stating it adds."""
    answers = [item.answers for item in part]
    with_it = score_choices(bench, [bench.prompt(item.request, item.preference) for item in part], answers)
    without = score_choices(bench, [bench.prompt(item.request, None) for item in part], answers)
    shares = []
    for item, stated, unstated in zip(part, with_it, without, strict=True):
        means = [[float(one.mean()) for one in scores] for scores in (stated, unstated)]
        added = [float(s.sum(dtype="float64") - u.sum(dtype="float64")) for s, u in zip(stated, unstated, strict=True)]
        point, plain, by_adding = (identified(scores, item.right, len(scores)) for scores in (*means, added))
        shares.append([point, plain, point - plain, by_adding])
    return shares
