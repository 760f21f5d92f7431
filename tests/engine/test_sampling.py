"""Sampling. The nucleus is mlx-lm's, token for token, and frequencies follow the tempered distribution inside it.

Shared prefixes: answers from a reused prefix are those of the whole prompt."""

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.sample_utils import apply_top_p

from mipo_mlx.engine import sampling
from mipo_mlx.engine.sampling import Prefixes, common_prefix, copy_of, nucleus_sampler, sample
from mipo_mlx.pairs.score import score_grids
from tests.conftest import build_model, tiny_config
from tests.pairs.helpers import make_recipe

OPENING = [1, *range(10, 35)]
CONTEXTS = {"a": list(range(40, 70)), "b": list(range(70, 130)), "lone": list(range(130, 160))}
PROMPTS = [
    (OPENING + CONTEXTS[name] + question, name)
    for name, question in [
        ("a", [200, 2]),
        ("b", [201, 202, 203, 2]),
        ("a", [204, 205, 2]),
        ("lone", [206, 2]),
        ("b", [207, 2]),
        ("a", [208, 2, 3]),
    ]
]
TOKENS, NAMES = [tokens for tokens, _ in PROMPTS], [(name,) for _, name in PROMPTS]
STARTS = list(zip(TOKENS, NAMES, strict=True))


def test_what_is_shared(tiny_model):
    prefixes = Prefixes(tiny_model, TOKENS, NAMES)
    assert prefixes.opening == OPENING
    assert prefixes.shared == {(name,): OPENING + CONTEXTS[name] for name in ("a", "b")}


def test_what_a_grid_and_its_contexts_share(tiny_model):
    """Behind distractors the prompts of a grid share these, and those of one context its passage too; the same context alone
    shares neither with them."""
    distractor = list(range(210, 250))
    behind = [(OPENING + distractor + CONTEXTS[name] + [70 + i, 2], ("d", name)) for i, name in enumerate("aabb")]
    alone = (OPENING + CONTEXTS["a"] + [80, 2], ("a",))
    prefixes = Prefixes(tiny_model, [tokens for tokens, _ in [*behind, alone]], [labels for _, labels in [*behind, alone]])
    assert prefixes.shared == {
        ("d",): OPENING + distractor,
        **{("d", name): OPENING + distractor + CONTEXTS[name] for name in "ab"},
    }
    for tokens, labels in [*behind, alone]:
        start = prefixes.start(tokens, labels)
        reused = tiny_model(mx.array([start.tokens]), cache=[copy_of(layer) for layer in start.cache])[0, -1]
        np.testing.assert_allclose(np.array(reused), np.array(tiny_model(mx.array([tokens]))[0, -1]), atol=2e-4)


def test_short_prefixes_are_not_worth_a_pass(tiny_model):
    prefixes = Prefixes(tiny_model, [[1, 2, 3, 4], [1, 2, 3, 5]], [("a",), ("a",)])
    assert prefixes.opening == [] and prefixes.shared == {}


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [([[1, 2, 3], [1, 2, 4, 5]], [1, 2]), ([[1, 2], [1, 2, 3]], [1]), ([[1, 2], [1, 2]], [1]), ([[1], [2]], []), ([[5]], [])],
)
def test_common_prefix_leaves_a_token(prompts, expected):
    assert common_prefix(prompts) == expected


def test_prefix_and_rest_are_the_prompt(tiny_model):
    prefixes = Prefixes(tiny_model, TOKENS, NAMES)
    for tokens, labels in STARTS:
        start = prefixes.start(tokens, labels)
        logits = tiny_model(mx.array([tokens]))[0, -1]
        cache = [copy_of(layer) for layer in start.cache]
        assert cache[0].offset == len(tokens) - 1 and start.tokens == tokens[-1:]
        reused = tiny_model(mx.array([start.tokens]), cache=cache)[0, -1]
        np.testing.assert_allclose(np.array(reused), np.array(logits), atol=2e-4)


def test_prefixes_are_run_once(tiny_model, monkeypatch):
    run = []

    class Counting:
        layers, language_model = tiny_model.layers, tiny_model

        def __call__(self, tokens, cache):
            run.append(tokens.shape[1])
            return tiny_model(tokens, cache=cache)

    prefixes = Prefixes(Counting(), TOKENS, NAMES)
    for start in STARTS:
        prefixes.start(*start)
    # The opening; context a and its first question; b and its; and then questions only, but for the context used once.
    assert run == [len(OPENING), 30, 1, 60, 3, 2, 30 + 1, 1, 2]


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("at_once", [60, 4096])
def test_prompts_that_run_together_are_as_each_by_itself(name, at_once, monkeypatch):
    """Prompts behind prefixes of 26, 56 and 86 tokens. The kept prefixes stay as they are."""
    monkeypatch.setattr(sampling, "AT_ONCE", at_once)
    model = build_model(tiny_config(name))
    prefixes, alone = (Prefixes(model, TOKENS, NAMES) for _ in range(2))
    passes = []
    original = sampling.Prefixes._run_together
    monkeypatch.setattr(sampling.Prefixes, "_run_together", lambda self, rows: passes.append(len(rows)) or original(self, rows))
    for _ in range(2):
        together = prefixes.starts(*zip(*STARTS, strict=True))
        for one, (tokens, labels) in zip(together, STARTS, strict=True):
            own = alone.start(tokens, labels)
            assert one.tokens == own.tokens and [layer.offset for layer in one.cache] == [layer.offset for layer in own.cache]
            for mine, theirs in zip(one.cache, own.cache, strict=True):
                assert mine.keys.shape == theirs.keys.shape
                np.testing.assert_allclose(np.array(mine.keys), np.array(theirs.keys), atol=2e-4)
                np.testing.assert_allclose(np.array(mine.values), np.array(theirs.values), atol=2e-4)
    assert sum(passes) == 2 * len(STARTS) and (len(passes) == 2) == (at_once == 4096)


def test_scores_from_prompts_that_were_run(tiny_model):
    prefixes = Prefixes(tiny_model, TOKENS, NAMES)
    answers = [[5, 6, 2], [7, 8, 9, 10], [2]]
    grids = [(TOKENS[:3], answers), (TOKENS[3:], answers[::-1])]
    recorded = [prefixes.start(*row).recorded for row in STARTS]
    np.testing.assert_allclose(score_grids(tiny_model, grids, recorded), score_grids(tiny_model, grids), atol=1e-3)


def test_same_answers_as_whole_prompts(tiny_model, tiny_tokenizer):
    settings = make_recipe(max_tokens=12, temperature=0.0, batch=6).pairs
    prefixes = Prefixes(tiny_model, TOKENS, NAMES)
    whole = sample(tiny_model, tiny_tokenizer, TOKENS, settings, 1)
    for _ in range(2):  # the kept caches must come out of it unharmed
        assert sample(tiny_model, tiny_tokenizer, [prefixes.start(*row) for row in STARTS], settings, 1) == whole


def test_bits_do_not_depend_on_history(tiny_model):
    """A prefix that was dropped for lack of room, or is computed in another order, comes back the same."""
    one, tight = Prefixes(tiny_model, TOKENS, NAMES), Prefixes(tiny_model, TOKENS, NAMES, kept_bytes=1)
    for start in STARTS:
        one.start(*start)
    for start in reversed(STARTS):
        for mine, theirs in zip(tight.start(*start).cache, one.start(*start).cache, strict=True):
            assert np.array_equal(np.array(mine.keys), np.array(theirs.keys))
            assert np.array_equal(np.array(mine.values), np.array(theirs.values))
    assert len(tight._kept) == 1 and len(one._kept) == 2


def test_models_with_other_caches_run_whole_prompts(tiny_model, monkeypatch):
    from mlx_lm.models.cache import RotatingKVCache

    monkeypatch.setattr("mipo_mlx.engine.sampling.make_prompt_cache", lambda model: [RotatingKVCache(8)])
    start = Prefixes(tiny_model, TOKENS, NAMES).start(*STARTS[0])
    assert start.cache is None and start.tokens == TOKENS[0]


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
    result = np.bincount(drawn, minlength=100) / 40000
    assert np.abs(result - expected).max() < 4 * np.sqrt(expected.max() / 40000)


def test_a_wider_nucleus_ends_at_the_limit():
    logprobs = mx.log(mx.arange(1, 101) / 5050)[None]
    mx.random.seed(2)
    drawn = nucleus_sampler(1.0, 0.999, 10)(mx.repeat(logprobs, 5000, axis=0))
    assert set(drawn.tolist()) == set(range(90, 100))


def test_both_devices_have_one_nucleus():
    logprobs = distribution(20, 300, spread=2.0)
    kept = []
    for way in (sampling._nucleus, sampling._nucleus_on_cpu):
        values, ids = (np.array(x) for x in way(logprobs, 0.9, 64))
        rows = zip(values, ids, strict=True)
        kept.append([dict(zip(i[np.isfinite(v)].tolist(), v[np.isfinite(v)].tolist(), strict=True)) for v, i in rows])
    assert kept[0] == kept[1] and len({len(row) for row in kept[0]}) > 3


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


def test_answers_that_are_cut_end_with_a_sentence(tiny_model, tiny_tokenizer, monkeypatch):
    """The tokens of a cut answer are a prefix of those without the key; an answer that the model ended stays whole."""
    settings = make_recipe("x", max_tokens=24, temperature=1.0).pairs
    plain = sample(tiny_model, tiny_tokenizer, TOKENS * 8, settings, 0)
    monkeypatch.setattr("mipo_mlx.engine.sampling.whole_sentences", lambda text: text[: text.rfind("a") + 1] or text)  # "a" ends
    whole = sample(tiny_model, tiny_tokenizer, TOKENS * 8, settings.model_copy(update={"whole_sentences": True}), 0)
    shortened = 0
    for before, after in zip(plain, whole, strict=True):
        assert after.tokens == before.tokens[: len(after.tokens)] and after.finish == before.finish
        if before.finish == "stop" or "a" not in before.text:
            assert after == before
        else:
            shortened += len(after.tokens) < len(before.tokens)
            assert "a" in tiny_tokenizer.decode(after.tokens[-1:]) and after.text.startswith(
                before.text[: before.text.rfind("a") + 1]
            )
    assert shortened > 4
