"""The context said back as one more rejected answer: whose, how often, and with the score that the model gives it."""

import numpy as np
import pytest

from mipo_mlx.engine.logprobs import token_logprobs
from mipo_mlx.files import read_json, read_records
from mipo_mlx.models.load import load
from mipo_mlx.pairs import build, make
from mipo_mlx.pairs.build import SAID_BACK
from mipo_mlx.records import TRAIN, Context, Pair

from .helpers import QUIET, fill, make_recipe


def run(folder, **pairs) -> list[Pair]:
    make.run(fill(folder), make_recipe(**pairs), QUIET)
    return read_records(folder / "pairs.jsonl", Pair)


@pytest.mark.parametrize("candidates", [2, 3])
def test_a_share_of_the_training_pairs_rejects_its_own_passage(candidates, tiny_folder, tmp_path):
    pairs = run(tmp_path, model=str(tiny_folder), said_back=0.5, grids=16, candidates=candidates)
    contexts = {context.id: context for context in read_records(tmp_path / "contexts.jsonl", Context)}
    loaded = load(str(tiny_folder))
    with_it = [pair for pair in pairs if SAID_BACK in pair.kinds]
    assert all(pair.split == TRAIN for pair in with_it)
    assert read_json(tmp_path / "pairs.json")["said_back"] == len(with_it)
    assert 0.3 < len(with_it) / sum(pair.split == TRAIN for pair in pairs) < 0.7
    for pair in with_it:
        text = contexts[pair.context_id].text
        assert pair.kinds == ["random_context"] * (candidates - 2) + [SAID_BACK]
        assert len(pair.pmi) == len(pair.wrong_context_ids) == candidates - 1
        assert pair.rejected[0]["content"] == pair.negatives[0] and len(pair.tokens) == candidates
        assert pair.tokens[-1] == loaded.tokenizer.encode(text, add_special_tokens=False)[:8]
        assert pair.negatives[-1] == loaded.tokenizer.decode(pair.tokens[-1]) != text and text.startswith(pair.negatives[-1])
        (logps,) = token_logprobs(loaded.model, [pair.prompt_tokens], [[pair.tokens[-1]]])[0]
        assert pair.reference[-1] == pytest.approx(float(np.sum(logps)), abs=1e-3)


def test_the_rest_of_a_pair_is_as_without(tiny_folder, tmp_path):
    without, every = (run(tmp_path / str(share), model=str(tiny_folder), said_back=share) for share in (0.0, 1.0))
    assert all(SAID_BACK not in pair.kinds for pair in without)
    for before, after in zip(without, every, strict=True):
        if after.split == TRAIN:
            assert after.kinds == [SAID_BACK] and after.tokens[0] == before.tokens[0]
            assert after.pmi == before.pmi and after.wrong_context_ids == before.wrong_context_ids
            assert after.reference[0] == before.reference[0] and after.chosen == before.chosen
        else:
            assert after == before


def test_who_is_drawn_does_not_hang_on_the_others(tiny_folder, tmp_path):
    """A filter that drops a pair leaves the candidates of the others alone."""
    pairs = run(tmp_path, model=str(tiny_folder), said_back=0.0)
    contexts = {context.id: context for context in read_records(tmp_path / "contexts.jsonl", Context)}
    loaded, recipe = load(str(tiny_folder)), make_recipe(tiny_folder, said_back=0.5)
    every = build.add_said_back(pairs, contexts, recipe, loaded)
    some = build.add_said_back(pairs[1:], contexts, recipe, loaded)
    assert [pair.kinds for pair in some] == [pair.kinds for pair in every[1:]]
