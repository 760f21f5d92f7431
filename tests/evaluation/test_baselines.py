"""Context-aware decoding against plain forward passes, and the baselines of a run."""

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.evaluation import baselines, sampling, stage
from mipo_mlx.files import read_json
from mipo_mlx.models import loading
from mipo_mlx.progress import Reporter

from .helpers import make_run, recipe

WITH, WITHOUT = [5, 6, 7, 8, 9, 10], [5, 10]


def greedy(tiny_folder):
    return recipe(tiny_folder).pairs.model_copy(update={"temperature": 0.0, "max_tokens": 5})


def logprobs_after(model, ids: list[int]) -> np.ndarray:
    """(vocabulary,) of the next token, by a pass of its own."""
    logits = np.array(model(mx.array([ids]))[0, -1], dtype=np.float64)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def test_strength_zero_is_the_base_with_its_context(tiny_folder):
    loaded = loading.load(str(tiny_folder))
    prompts, plain = [WITH, [11, 12, 13]], [WITHOUT, [13]]
    contrasted = baselines.contrast(loaded.model, loaded.tokenizer, prompts, plain, 0.0, greedy(tiny_folder), 0)
    assert contrasted == sampling.answers(loaded.model, loaded.tokenizer, prompts, greedy(tiny_folder), 0)


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_each_greedy_token_is_the_best_of_the_contrasted_distribution(tiny_folder, strength):
    loaded = loading.load(str(tiny_folder))
    prompts, plain = [WITH, [11, 12, 13]], [WITHOUT, [13]]
    found = baselines.contrast(loaded.model, loaded.tokenizer, prompts, plain, strength, greedy(tiny_folder), 0)
    for with_context, without, answer in zip(prompts, plain, found, strict=True):
        so_far: list[int] = []
        for token in answer["tokens"]:
            near, far = (logprobs_after(loaded.model, ids + so_far) for ids in (with_context, without))
            assert int(np.argmax((1 + strength) * near - strength * far)) == token
            so_far.append(token)
        assert len(answer["tokens"]) == 5 or answer["finish"] == "stop"


def test_baselines_are_measured_when_asked_for_and_kept(tmp_path, tiny_folder, monkeypatch):
    settings = recipe(tiny_folder, answers=4)
    folder = make_run(tmp_path, settings, spread=0.05)
    stage.run(folder, settings, Reporter(quiet=True))
    first = read_json(folder / "eval.json")
    assert first["baselines"] is None
    monkeypatch.setattr(stage.asking, "score_group", None)  # nothing that is known is computed again
    stage.run(folder, recipe(tiny_folder, answers=4, baselines=True), Reporter(quiet=True))
    second = read_json(folder / "eval.json")
    assert {k: v for k, v in first.items() if k != "baselines"} == {k: v for k, v in second.items() if k != "baselines"}
    assert set(second["baselines"]) == {"no context", "context-aware decoding 0.5", "context-aware decoding 1.5"}
    for measures in second["baselines"].values():
        assert measures["tokens"]["before"] == first["fresh"]["metrics"]["tokens"]["before"]
        assert {"identified_by_base_2", "perplexity", "parroting", "self_bleu"} <= set(measures)
    stage.run(folder, settings, Reporter(quiet=True))
    assert read_json(folder / "eval.json") == second  # a later evaluation without them keeps them
