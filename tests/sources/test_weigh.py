"""Ranking by the model: nats against plain forward passes, and what it changes of what is kept."""

import numpy as np
import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.models.load import LoadedModel
from mipo_mlx.models.prompts import encode, messages
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Pairs
from mipo_mlx.records import Prompt
from mipo_mlx.sources import read, weigh
from mipo_mlx.sources.note import Passage, Tally
from mipo_mlx.sources.own_choice import FIRST, OwnChoice
from tests.evaluation.helpers import plain_logprobs

SETTINGS = Pairs(system="About the user: {context}", plain_system="Be brief.")
REQUESTS = ["What should I bake?", "Plan my week."]
PASSAGES = ["I keep bees.", "I bake bread on Sundays with my sister, and I sing.", "I keep bees."]
QUIET = Reporter(quiet=True)


def passage(number: int, rank: float = 1.5) -> Passage:
    return Passage(f"I saw bird {number} by the river and wrote down its song.", f"n{number}", f"n{number}.md", 1, 12, rank=rank)


def test_nats_are_those_of_plain_forward_passes(tiny_model, tiny_tokenizer, tmp_path, monkeypatch):
    loaded, seen = LoadedModel(tiny_model, tiny_tokenizer, {}, "tiny", tmp_path), []

    def sampled(*given):
        seen.extend(sample(*given))
        return seen

    sample = weigh.sample
    monkeypatch.setattr(weigh, "sample", sampled)
    monkeypatch.setattr(weigh, "AT_ONCE", 2)
    nats = weigh.changes(loaded, SETTINGS, REQUESTS, 7, QUIET)(PASSAGES)

    def mean(text: str | None) -> float:
        prompts = [encode(tiny_tokenizer, messages(SETTINGS, request, text)) for request in REQUESTS]
        return float(np.mean([plain_logprobs(tiny_model, p, a.tokens).sum() for p, a in zip(prompts, seen, strict=True)]))

    assert nats == pytest.approx([mean(None) - mean(text) for text in PASSAGES], abs=1e-3)
    assert nats[0] == pytest.approx(nats[2], abs=1e-4) and abs(nats[0] - nats[1]) > 1e-3
    assert all(0 < len(answer.tokens) <= weigh.TOKENS for answer in seen)


def test_ranks_are_dealt_anew_and_what_the_owner_keeps_stays_first():
    ranks = [1.4, FIRST - 1.0, 2.5, 1.9]
    dealt = weigh.in_order([passage(n, rank) for n, rank in enumerate(ranks)], [3.0, 0.0, 1.0, 2.0])
    assert [p.rank for p in dealt] == [2.5, FIRST - 1.0, 1.4, 1.9]


@pytest.mark.parametrize(("limit", "asks"), [(8, True), (40, False)])
def test_the_key_decides_what_is_kept_only_where_some_have_to_go(limit, asks, monkeypatch):
    """A model that says most of the passages that signs rank lowest."""
    every = [passage(n, 3.0 - n / 40) for n in range(20)]
    loads = []
    monkeypatch.setattr(weigh, "load", loads.append)
    monkeypatch.setattr(weigh, "changes", lambda *given: lambda texts: [float(n) for n in range(len(texts))])
    overrides = [f"sources.max_contexts={limit}", "sources.notes=.", "sources.rank=model", "pairs.contexts_per_grid=2"]
    recipe = recipe_loading.parse("model: none", overrides=overrides)
    prompts = [Prompt(f"p{n}", text, "", "train") for n, text in enumerate(REQUESTS)]

    def kept(order) -> list[int]:
        return [int(context.note[1:]) for context in read.choose(recipe, every, OwnChoice(), Tally(), order)]

    by_model = kept(lambda passages: weigh.by_model(recipe, QUIET)(passages, prompts))
    assert bool(loads) == asks and len(by_model) == min(limit, 20)
    assert (np.mean(by_model) > np.mean(kept(None)) + 3) == asks
