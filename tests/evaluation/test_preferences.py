"""Stated preferences: what the items are like, and the likelihoods against plain forward passes."""

import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from mipo_mlx.evaluation import preferences
from mipo_mlx.models import adapters, load
from mipo_mlx.models import prompts as chat

from .helpers import bench, make_run, plain_logprobs, recipe

ROWS = [json.loads(line) for line in preferences.FILE.read_text(encoding="utf-8").splitlines()]


def test_every_item_has_four_answers_of_about_equal_length():
    assert len(ROWS) >= 200
    for row in ROWS:
        assert row.keys() == {"preference", "request", "answers"} and len(set(row["answers"])) == len(row["answers"]) == 4
        lengths = [len(answer.split()) for answer in row["answers"]]
        assert max(lengths) - min(lengths) <= 2, row


def test_the_length_of_an_answer_does_not_tell_which_one_is_right():
    lengths = np.array([[len(answer) for answer in row["answers"]] for row in ROWS])
    assert abs(lengths[:, 0].mean() - lengths[:, 1:].mean()) < 1
    assert 0.1 < np.mean(lengths[:, 0] > lengths[:, 1:].max(1)) < 0.3 and 0.1 < np.mean(lengths[:, 0] < lengths[:, 1:].min(1)) < 0.3


def test_no_two_items_have_the_same_words_but_one():
    without = defaultdict(set)
    for place, row in enumerate(ROWS):
        words = sorted(re.findall(r"\w+", f"{row['preference']} {row['request']}".lower()))
        for left_out in range(len(words)):
            without[tuple(words[:left_out] + words[left_out + 1 :])].add(place)
    assert not [places for places in without.values() if len(places) > 1]
    assert max(Counter(row["request"] for row in ROWS).values()) == max(Counter(row["preference"] for row in ROWS).values()) == 1


def test_the_seed_draws_the_items_and_shuffles_their_answers():
    settings = recipe("none", preferences=60)
    items = preferences.items_of(settings)
    assert len(items) == 60 and preferences.items_of(settings) == items
    assert set(Counter(item.right for item in items)) == {0, 1, 2, 3}
    rows = {row["preference"]: row for row in ROWS}
    for item in items:
        row = rows[item.preference]
        assert (sorted(item.answers), item.answers[item.right]) == (sorted(row["answers"]), row["answers"][0])
    other = preferences.items_of(settings.model_copy(update={"seed": 1}))
    assert {item.preference for item in other} != {item.preference for item in items}
    assert len(preferences.items_of(recipe("none", preferences=5000))) == len(ROWS)


def test_shares_equal_plain_forward_passes(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, preferences=8)
    folder = make_run(tmp_path, settings, spread=0.05)
    loaded = load.load(settings.model)
    model = adapters.load(loaded.model, folder / "adapters")
    result = preferences.evaluate(bench(folder, settings, loaded))
    items = preferences.items_of(settings)

    def points() -> np.ndarray:
        """(items, 3): stated, not stated, by what stating adds."""
        rows = []
        for item in items:
            tokens = [loaded.tokenizer.encode(answer, add_special_tokens=False) for answer in item.answers]
            scores = []
            for context in (item.preference, None):
                ids = chat.encode(loaded.tokenizer, chat.messages(settings.pairs, item.request, context))
                scores.append([plain_logprobs(model, ids, answer) for answer in tokens])
            means = [[one.mean() for one in some] for some in scores]
            added = [stated.sum() - unstated.sum() for stated, unstated in zip(*scores, strict=True)]
            rows.append([float(np.argmax(row) == item.right) for row in (*means, added)])
        return np.array(rows)

    after = points()
    with adapters.disabled(model):
        before = points()
    assert 0 < after.sum() < after.size and (after != before).any()
    for side, of in (("before", before), ("after", after)):
        values = [getattr(result.metrics[name], side).value for name in ("preferences", "preferences_untold", "preferences_added")]
        assert values == pytest.approx(of.mean(0))
        assert getattr(result.metrics["preferences_gain"], side).value == pytest.approx((of[:, 0] - of[:, 1]).mean())
    assert result.questions == 8 and result.no_interval is None and result.metrics["preferences"].change.interval


def test_none_are_asked_where_the_recipe_wants_none(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, preferences=0)
    assert (
        preferences.evaluate(bench(tmp_path, settings, load.load(settings.model))) is None and preferences.bar_total(settings) == 0
    )
