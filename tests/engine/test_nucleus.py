"""The nucleus is mlx-lm's, token for token; frequencies follow the tempered distribution inside it."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import apply_top_p

from mipo_mlx.engine.sampling import nucleus_sampler


def distribution(rows, size, seed=0, spread=3.0):
    logits = mx.random.normal((rows, size), key=mx.random.key(seed)) * spread
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


@pytest.mark.parametrize("limit", [48, 4096])
@pytest.mark.parametrize("top_p", [0.3, 0.9])
def test_same_nucleus_as_mlx_lm(top_p, limit):
    logprobs = distribution(1, 64, spread=1.5)
    kept = set(np.flatnonzero(np.isfinite(np.array(apply_top_p(logprobs, top_p)[0]))))
    assert 1 < len(kept) < 48
    mx.random.seed(0)
    drawn = nucleus_sampler(5.0, top_p, limit)(mx.repeat(logprobs, 20000, axis=0))
    assert set(drawn.tolist()) == kept


@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_16_bit_logits_have_the_nucleus_of_their_exact_softmax(dtype, top_p, monkeypatch):
    logits = (mx.random.normal((1, 50_000), key=mx.random.key(4)) * 4 + 20).astype(dtype)
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)  # as mlx-lm hands them over
    falling = np.sort(np.array(logprobs[0].astype(mx.float32), dtype=np.float64))[::-1]
    sums = np.cumsum(np.exp(falling))
    expected = (falling >= falling[np.searchsorted(sums, top_p * sums[-1])]).sum()
    kept = []
    monkeypatch.setattr(mx.random, "categorical", lambda scores: kept.append(scores) or mx.array([0]))
    nucleus_sampler(1.0, top_p)(logprobs)
    assert 10 < expected < 4096 and mx.isfinite(kept[0]).sum().item() == expected


def test_frequencies():
    logprobs = distribution(1, 100, spread=1.5)
    inside = np.array(apply_top_p(logprobs, 0.8)[0], dtype=np.float64) / 0.7
    expected = np.exp(inside - np.logaddexp.reduce(inside))
    mx.random.seed(1)
    drawn = np.array(nucleus_sampler(0.7, 0.8, 64)(mx.repeat(logprobs, 40000, axis=0)))
    found = np.bincount(drawn, minlength=100) / 40000
    assert np.abs(found - expected).max() < 4 * np.sqrt(expected.max() / 40000)


def test_a_wider_nucleus_ends_at_the_limit():
    logprobs = mx.log(mx.arange(1, 101) / 5050)[None]
    mx.random.seed(2)
    drawn = nucleus_sampler(1.0, 0.999, 10)(mx.repeat(logprobs, 5000, axis=0))
    assert set(drawn.tolist()) == set(range(90, 100))


def test_each_row_has_its_own_nucleus():
    certain = mx.array([[0.0, -50.0, -50.0], [-50.0, 0.0, -50.0]])
    assert nucleus_sampler(1.0, 0.5)(certain).tolist() == [0, 1]


def test_temperature_zero_is_greedy():
    logprobs = distribution(50, 64)
    assert nucleus_sampler(0.0, 0.9)(logprobs).tolist() == mx.argmax(logprobs, axis=-1).tolist()


def test_whole_distribution_where_top_p_is_one():
    mx.random.seed(3)
    drawn = nucleus_sampler(1.0, 1.0, 10)(mx.zeros((20000, 64)))
    assert len(set(drawn.tolist())) == 64
