"""The objective `tilt` against a slow version of it, its gradient against finite differences, and a run of it that is killed."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mipo_mlx.models import adapters
from mipo_mlx.recipe import Recipe, Training
from mipo_mlx.recipe_loading import RecipeError, parse
from mipo_mlx.training import distilling
from tests.conftest import build_model, tiny_config
from tests.training.test_step import adapted, distance, flat, make_grid, step
from tests.training.test_train import Killed, die_at, make_pairs, run, same

STRENGTH = 0.7


def plain_logps(model: nn.Module, prompt: list[int], answer: list[int]) -> mx.array:
    """(answer tokens, vocabulary): the prompt and the answer in one row."""
    logits = model(mx.array([[*prompt, *answer]]))[0, len(prompt) - 1 : -1]
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def plain_goal(pairs, i: int, kept: int) -> tuple[list[list[int]], np.ndarray]:
    """Entries and goal of each token of answer i, from the formula, token by token: the base has no adapters."""
    base, answer = build_model(tiny_config()), pairs[i].tokens[0]
    under = [np.exp(np.array(plain_logps(base, pair.prompt_tokens, answer), np.float64)) for pair in pairs]
    entries, goals = [], []
    for t, token in enumerate(answer):
        right, wrong = under[i][t], np.mean([p[t] for j, p in enumerate(under) if j != i or len(pairs) == 1], axis=0)
        some = [token, *(int(v) for v in np.argsort(-right) if v != token)][:kept]
        p, other = ([*x[some], 1 - x[some].sum()] for x in (right, wrong))
        weights = np.array(p) * (np.array(p) / np.array(other)) ** STRENGTH
        entries.append(some)
        goals.append(weights / weights.sum())
    return entries, np.array(goals)


def plain_loss(model: nn.Module, pairs, goals) -> mx.array:
    each = []
    for pair, (entries, goal) in zip(pairs, goals, strict=True):
        kept = mx.take_along_axis(mx.exp(plain_logps(model, pair.prompt_tokens, pair.tokens[0])), mx.array(entries), axis=1)
        p, q = mx.concatenate([kept, 1 - kept.sum(axis=1, keepdims=True)], axis=1), mx.array(goal.astype(np.float32))
        each.append((q * mx.log(q / p)).sum(axis=1).mean())
    return mx.stack(each).mean()


def test_a_step_equals_the_slow_form_also_for_grids_of_unequal_size(monkeypatch):
    monkeypatch.setattr(distilling, "KEPT", 12)
    model, kept = adapted(), 12
    grids = [make_grid(model, 1, contexts=3), make_grid(model, 2, contexts=2), make_grid(model, 3, contexts=1)]
    goals = [plain_goal(grid, i, kept) for grid in grids for i in range(len(grid))]
    pairs = [pair for grid in grids for pair in grid]
    value, slope = nn.value_and_grad(model, lambda model: plain_loss(model, pairs, goals))(model)
    model = adapted()
    result = step(model, pairs, objective="tilt", tilt_strength=STRENGTH)
    assert result.loss == pytest.approx(value.item(), rel=1e-4)
    assert distance(result.gradients, slope) < 1e-3
    logps = [np.array(plain_logps(model, p.prompt_tokens, p.tokens[0])) for p in pairs]
    own = [float(np.take_along_axis(x, np.array(p.tokens[0])[:, None], 1).sum()) for x, p in zip(logps, pairs, strict=True)]
    assert result.metrics["chosen_logp"] == pytest.approx(np.mean(own), rel=1e-4)
    change = np.mean([value - pair.reference[0] for value, pair in zip(own, pairs, strict=True)])
    assert result.metrics["chosen_reward"] == pytest.approx(0.1 * change, abs=1e-4)


def test_the_gradient_follows_the_loss():
    """Finite differences along the gradient."""
    model = adapted()
    pairs, start = make_grid(model, 4), model.trainable_parameters()
    first = step(model, pairs, objective="tilt")
    norm = mx.linalg.norm(flat(first.gradients)).item()

    def at(along: float) -> float:
        moved = [(name, x + along / norm * dict(tree_flatten(first.gradients))[name]) for name, x in tree_flatten(start)]
        model.load_weights(moved, strict=False)
        return step(model, pairs, objective="tilt").loss

    assert (at(1e-3) - at(-1e-3)) / 2e-3 == pytest.approx(norm, rel=1e-2)
    assert step(model, pairs, objective="tilt", tilt_strength=1.0).loss > 1.05 * first.loss


def test_more_strength_moves_mass_to_what_the_context_changes():
    right, wrong = np.log([[0.5, 0.3, 0.1]]), list(np.log([[[0.2, 0.5, 0.1]], [[0.3, 0.4, 0.1]]]))
    none = np.zeros((1, 3), bool)
    goals = [distilling.tilt(right, wrong, strength, none) for strength in (1e-9, 0.5, 1.0)]
    assert all(kept.sum() + tail.sum() == pytest.approx(1, abs=1e-6) for kept, tail in goals)
    np.testing.assert_allclose(goals[0][0], np.exp(right), atol=1e-5)
    first, second, _ = zip(*(kept[0] for kept, _ in goals), strict=True)
    assert list(first) == sorted(first) and list(second) == sorted(second, reverse=True) and first[2] > first[0] + 0.1
    # By hand: 0.5 (0.5 / 0.25), 0.3 (0.3 / 0.45), 0.1 (0.1 / 0.1), 0.1 (0.1 / (1 - 0.8)), normalised.
    np.testing.assert_allclose(goals[2][0][0], np.array([1.0, 0.2, 0.1]) / 1.35, rtol=1e-5)
    untilted = distilling.tilt(right, wrong, 1.0, np.array([[True, False, False]]))[0][0]
    np.testing.assert_allclose(untilted, np.array([0.5, 0.2, 0.1]) / 0.85, rtol=1e-5)
    np.testing.assert_allclose(distilling.tilt(right, [], 1.0, none)[0], np.exp(right), atol=1e-6)  # nothing to contrast


def test_what_continues_a_copied_run_is_not_tilted():
    prompt = [9, 1, 2, 3, 4, 5, 9, 1, 2, 3, 7]
    answer = [8, 1, 2, 3, 6, 2, 3, 4]
    ids = np.array([[4, 7, 5]] * len(answer))
    continuing = distilling.copies(prompt, answer, ids)
    expected = np.zeros(ids.shape, bool)
    expected[4] = [True, True, False]  # behind 1 2 3 the prompt goes on with 4 and with 7, and the answer leaves the run there
    np.testing.assert_array_equal(continuing, expected)
    assert not distilling.copies(prompt[:3], answer, ids).any() and not distilling.copies(prompt, [1, 2], ids[:2]).any()


def test_a_killed_run_of_it_ends_bit_identical(tmp_path):
    pairs = make_pairs(build_model(tiny_config()), grids=2, k=2)
    settings = Training(objective="tilt", learning_rate=1e-3, checkpoint_every=1)
    whole, result = run(tmp_path / "whole", settings, pairs=pairs, validation=[])
    with pytest.raises(Killed):
        run(tmp_path / "killed", settings, pairs=pairs, validation=[], watchers=[die_at(2)])
    again, second = run(tmp_path / "killed", settings, pairs=pairs, validation=[])
    assert same(again, whole) and second == result


def test_the_base_gives_the_goals_whatever_the_adapters_are():
    pairs = make_grid(adapted(), 5)
    one, two = adapted(spread=0.1), adapted(spread=0.0)
    with distilling.as_base(one), distilling.as_base(two):
        tokens = mx.array([pairs[0].prompt_tokens])
        np.testing.assert_allclose(np.array(one(tokens)), np.array(two(tokens)), atol=1e-5)
    assert adapters.weights(one).keys() == adapters.weights(two).keys()
    assert not np.allclose(np.array(one(tokens)), np.array(two(tokens)), atol=1e-3)


@pytest.mark.parametrize("key", ["label_smoothing=0.1", "length_normalized=true", "nll_weight=1", "reference=some/model"])
def test_a_key_that_tilt_would_ignore_is_refused(key):
    name, value = key.split("=")
    with pytest.raises(RecipeError, match=name):
        parse(f"model: x\ntraining:\n  objective: tilt\n  {name}: {value}\n")
    assert isinstance(parse("model: x\ntraining: {objective: tilt, beta: 0.5}\n"), Recipe)
