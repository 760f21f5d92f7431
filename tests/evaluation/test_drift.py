"""Drift from the base on requests without a context, against plain forward passes."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mipo_mlx.evaluation import drift
from mipo_mlx.files import write_records
from mipo_mlx.models import adapters, load, prompts
from mipo_mlx.models.journal import Journal
from mipo_mlx.recipe import Lora
from mipo_mlx.records import Prompt

from .helpers import bench, recipe


def prepare(folder, settings):
    """A model with random adapters."""
    write_records(folder / "prompts.jsonl", [Prompt(f"p{i}", f"What about {i}?", "x", "heldout") for i in range(8)])
    loaded = load.load(settings.model)
    adapters.attach(loaded.model, Lora(rank=8, scale=4.0), 0)
    mx.random.seed(5)
    loaded.model.update(tree_map(lambda p: p + 0.05 * mx.random.normal(p.shape), loaded.model.trainable_parameters()))
    return loaded


def log_softmax(model, ids: list[int]) -> np.ndarray:
    logits = np.array(model(mx.array([ids]))[0], dtype=np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("temperature, at_once", [(1.0, 16), (0.1, 2)])
def test_drift_is_summed_over_the_vocabulary_whatever_the_temperature(tmp_path, tiny_folder, monkeypatch, temperature, at_once):
    monkeypatch.setattr(drift, "AT_ONCE", at_once)
    settings = recipe(tiny_folder, everyday=3)
    settings = settings.model_copy(update={"pairs": settings.pairs.model_copy(update={"temperature": temperature})})
    loaded = prepare(tmp_path, settings)
    result = drift.evaluate(bench(tmp_path, settings, loaded))
    assert len(result.answers) == 3
    expected = []
    rows = Journal(tmp_path / "journal.jsonl", "k").done["unprompted", 0]
    for answer, row in zip(result.answers, rows, strict=True):
        ids = prompts.encode(loaded.tokenizer, prompts.messages(settings.pairs, answer.request, None))
        tuned = log_softmax(loaded.model, ids + row["tokens"])
        with adapters.disabled(loaded.model):
            base = log_softmax(loaded.model, ids + row["tokens"])
        expected.append((np.exp(tuned) * (tuned - base)).sum(-1)[len(ids) - 1 : -1].mean())
    assert result.kl_per_token.value == pytest.approx(np.mean(expected), rel=1e-3) and np.mean(expected) > 1e-4


def test_nothing_to_ask_is_no_result(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, everyday=0)
    loaded = prepare(tmp_path, settings)
    assert drift.evaluate(bench(tmp_path, settings, loaded)) is None
    assert drift.bar_total(tmp_path, settings) == 0
