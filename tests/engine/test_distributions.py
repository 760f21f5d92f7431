"""Likeliest entries with a tail, and the loss towards a goal, against all logits at once."""

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.engine import distributions
from mipo_mlx.engine import head as heads
from tests.conftest import build_model, tiny_config

TOKENS, KEPT = 30, 8


@pytest.fixture(params=[{}, {"tie_word_embeddings": False}, {"model_type": "cohere", "logit_scale": 0.3, "layer_norm_eps": 1e-5}],
                ids=["tied", "untied", "scaled"])  # fmt: skip
def setting(request, monkeypatch):
    """A frozen head, hidden states, own tokens, a random goal; the vocabulary takes four blocks, the tokens three chunks."""
    for module in (heads, distributions):
        monkeypatch.setattr(module, "BLOCK", 100)
        monkeypatch.setattr(module, "CHUNK_TOKENS", 13)
    model = build_model(tiny_config(**request.param))
    model.freeze()
    hidden, own = mx.random.normal((TOKENS, 48)), mx.random.randint(0, 384, (TOKENS,))
    head = heads.OutputHead(model)
    ids, logps = distributions.likeliest(head, hidden, own, KEPT)
    goal = np.random.default_rng(0).dirichlet(np.ones(KEPT + 1), TOKENS).astype(np.float32)
    return head, hidden, np.array(own), (ids, logps), distributions.Goal(ids, goal[:, :-1], goal[:, -1])


def all_logps(head, hidden) -> np.ndarray:
    logits = np.array(head(hidden), np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def test_the_support_is_the_own_token_and_the_likeliest_others(setting):
    head, hidden, own, (ids, logps), _ = setting
    every = all_logps(head, hidden)
    for row, token in enumerate(own):
        others = [i for i in np.argsort(-every[row]) if i != token]
        assert set(ids[row]) == {token, *others[: KEPT - 1]}
    np.testing.assert_allclose(logps, np.take_along_axis(every, ids, 1), atol=1e-5)
    np.testing.assert_allclose(
        distributions.logprobs_at(head, hidden, ids[::-1]), np.take_along_axis(every, ids[::-1], 1), atol=1e-5
    )


def test_the_divergence_and_its_gradient_equal_the_plain_ones(setting):
    head, hidden, _, (ids, logps), goal = setting
    by = mx.random.normal((TOKENS,))

    def plain(hidden: mx.array) -> mx.array:
        """KL over the kept entries and the sum of all others, written out."""
        p = mx.softmax(head(hidden), axis=-1)
        kept = mx.take_along_axis(p, mx.array(ids), axis=1)
        rest = mx.put_along_axis(p, mx.array(ids), mx.zeros(ids.shape), axis=1).sum(axis=1)
        q, tail = mx.array(goal.kept), mx.array(goal.tail)
        return (((q * mx.log(q / kept)).sum(axis=1) + tail * mx.log(tail / rest)) * by).sum()

    def ours(hidden: mx.array) -> mx.array:
        return (distributions.divergence(head, hidden, goal)[0] * by).sum()

    expected, slope = mx.value_and_grad(plain)(hidden)
    value, gradient = mx.value_and_grad(ours)(hidden)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    np.testing.assert_allclose(np.array(gradient), np.array(slope), atol=1e-5 * np.abs(np.array(slope)).max() * 10)
    np.testing.assert_allclose(np.array(distributions.divergence(head, hidden, goal)[1]), logps, atol=1e-5)


def test_it_is_zero_with_a_zero_gradient_where_the_model_is_the_goal(setting):
    head, hidden, _, (ids, logps), _ = setting
    kept = np.exp(logps)
    own = distributions.Goal(ids, kept, 1 - kept.sum(axis=1))
    value, gradient = mx.value_and_grad(lambda h: distributions.divergence(head, h, own)[0].sum())(hidden)
    assert abs(value.item()) < 1e-4 and np.abs(np.array(gradient)).max() < 1e-4
