"""The reranker: gains against plain forward passes, without the adapters, and only where there is time."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mipo_mlx import backend
from mipo_mlx.memory import reranker
from mipo_mlx.memory.reranker import Reranker, affordable
from mipo_mlx.models import adapters, prompts
from mipo_mlx.models.load import LoadedModel
from mipo_mlx.recipe import Lora, Pairs
from tests.evaluation.helpers import plain_logprobs

SETTINGS = Pairs(system="About the user: {context}", plain_system="Be brief.")
PASSAGES = ["I keep bees.", "I bake bread on Sundays."]
QUESTION = "What should I bake?"


@pytest.fixture
def loaded(tiny_model, tiny_tokenizer, tmp_path) -> LoadedModel:
    return LoadedModel(tiny_model, tiny_tokenizer, {}, "tiny", tmp_path)


def test_gains_are_those_of_plain_forward_passes(loaded):
    def mean(passage: str | None) -> float:
        """Of the question's tokens: those between what all prompts of the passage begin and end with."""
        turn = [{"role": "user", "content": QUESTION}]
        system = prompts.system_message(SETTINGS, passage)
        before = loaded.tokenizer.encode(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n", add_special_tokens=False)
        question = loaded.tokenizer.encode(QUESTION, add_special_tokens=False)
        assert prompts.encode(loaded.tokenizer, [{"role": "system", "content": system}, *turn])[: len(before) + len(question)] == [
            *before, *question,
        ]  # fmt: skip
        return float(np.mean(plain_logprobs(loaded.model, before, question)))

    gains = Reranker(loaded, SETTINGS)(QUESTION, PASSAGES)
    assert gains == pytest.approx([mean(passage) - mean(None) for passage in PASSAGES], abs=1e-4)


def test_adapters_take_no_part(loaded):
    before = Reranker(loaded, SETTINGS)(QUESTION, PASSAGES)
    adapters.attach(loaded.model, Lora(rank=2), 0)
    loaded.model.update(tree_map(lambda p: p + 0.5 * mx.random.normal(p.shape), loaded.model.trainable_parameters()))
    prompt = prompts.encode(loaded.tokenizer, prompts.messages(SETTINGS, QUESTION, PASSAGES[0]))
    tuned = plain_logprobs(loaded.model, prompt, [5, 6])
    with adapters.disabled(loaded.model):
        assert np.abs(plain_logprobs(loaded.model, prompt, [5, 6]) - tuned).max() > 0.1
    assert Reranker(loaded, SETTINGS)(QUESTION, PASSAGES) == pytest.approx(before, abs=1e-5)


def test_a_slow_machine_does_without(loaded, monkeypatch):
    if not backend.on_cpu():
        pytest.skip("a GPU always has the time")
    weights = reranker._weights(loaded.model)
    assert 20_000 < weights < 200_000  # two layers of width 48, without the embedding
    for passages, most in ((2.5, None), (6.5, 6), (99, reranker.MOST)):
        rate = passages * 2 * weights * reranker.TOKENS / reranker.SECONDS / reranker.REACHED
        monkeypatch.setattr(backend, "sgemm_rate", lambda rate=rate: rate)
        fits = affordable(loaded, SETTINGS)
        assert (fits and fits.most) == most
