"""Another reference than the base: recomputed once and stored; an equal model gives equal values, another tokenizer is refused."""

import math
import shutil

import numpy as np
import pytest

from mipo_mlx.errors import UserError
from mipo_mlx.files import read_records
from mipo_mlx.pairs import make
from mipo_mlx.records import HELDOUT, Pair
from mipo_mlx.training import metrics
from mipo_mlx.training import train as training
from tests.conftest import build_model, tiny_config, train_tokenizer

from .helpers import QUIET, fill, make_recipe


def with_reference(recipe, name, **settings):
    changed = recipe.training.model_copy(update={"reference": str(name), **settings})
    return recipe.model_copy(update={"training": changed})


@pytest.fixture(scope="module")
def recipe(tiny_folder):
    return make_recipe(tiny_folder, filters={"min_pmi": None})


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("plain"))
    make.run(folder, recipe, QUIET)
    return folder


def other_model(tiny_folder, target):
    """A model of the same tokenizer with other weights."""
    from mlx_lm.utils import save_model

    shutil.copytree(tiny_folder, target)
    save_model(target, build_model(tiny_config(), seed=7))
    shutil.copy(tiny_folder / "config.json", target)
    return target


def test_the_base_by_name_is_the_base(plain, recipe, tiny_folder, tmp_path):
    make.run(fill(tmp_path), with_reference(recipe, tiny_folder), QUIET)
    own, named = (read_records(folder / "pairs.jsonl", Pair) for folder in (plain, tmp_path))
    assert [pair.tokens for pair in named] == [pair.tokens for pair in own]
    for one, two in zip(named, own, strict=True):
        assert one.reference == pytest.approx(two.reference, abs=1e-3) and one.pmi == two.pmi


def test_another_model_changes_the_reference_and_the_first_loss(plain, recipe, tiny_folder, tmp_path):
    name = other_model(tiny_folder, tmp_path / "other")
    run = fill(tmp_path / "run")
    given = with_reference(recipe, name, learning_rate=1e-3, max_kl=None)
    make.run(run, given, QUIET)
    own, named = (read_records(folder / "pairs.jsonl", Pair) for folder in (plain, run))
    other = build_model(tiny_config(), seed=7)
    for one, two in zip(named, own, strict=True):
        assert one.tokens == two.tokens and one.pmi == two.pmi
        if one.split == HELDOUT:  # evaluation compares with the base, whatever the reference
            assert one.reference == two.reference
            continue
        for tokens, reference, base in zip(one.tokens, one.reference, two.reference, strict=True):
            assert reference == pytest.approx(plainly(other, one.prompt_tokens, tokens), abs=1e-3)
            assert abs(reference - base) > 1e-2
    training.run(run, given, QUIET)
    rows = metrics.read(run)
    before, first = rows[0], next(row for row in rows if "loss" in row)
    assert abs(before["validation_loss"] - math.log(2)) > 1e-3 and abs(first["loss"] - math.log(2)) > 1e-3
    assert before["validation_kl"] == 0  # the KL budget counts from the base


def plainly(model, prompt, tokens):
    """One row through the whole model, full softmax in float64."""
    import mlx.core as mx

    logits = np.array(model(mx.array([[*prompt, *tokens[:-1]]]))[0], dtype=np.float64)[len(prompt) - 1 :]
    logps = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return sum(logps[i, token] for i, token in enumerate(tokens))


def test_another_tokenizer_is_refused(recipe, tiny_folder, tmp_path):
    name = tmp_path / "other"
    shutil.copytree(tiny_folder, name)
    train_tokenizer(name, vocabulary=300)
    with pytest.raises(UserError, match=r"training.reference: .*other has another tokenizer than the base .*write base"):
        make.run(fill(tmp_path / "run"), with_reference(recipe, name), QUIET)


def test_a_reference_that_is_not_there(recipe, tmp_path):
    with pytest.raises(UserError, match=r"none\.gguf: no such model folder"):
        make.run(fill(tmp_path), with_reference(recipe, "none.gguf"), QUIET)
