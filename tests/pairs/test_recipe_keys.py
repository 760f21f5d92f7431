"""Every recipe key of pairs and of its filters changes what the stage writes."""

import pytest

from mipo_mlx.pairs import make
from mipo_mlx.recipe import Filters, Pairs

from .helpers import QUIET, fill, make_recipe
from .test_build import FAULTY, OFF, ORDINARY, build_grids, make_grid

CHANGES = {
    "system": "About me: {context} In two sentences.",
    "plain_system": "Be brief.",
    "contexts_per_grid": 4,
    "candidates": 4,
    "negatives": {"random_context": 1.0},
    "distractors": [1.0, 2.0],
    "fitting": 1.0,
    "kinds": {"personal": 1.0, "general": 1.0},
    "grids": 6,
    "validation_grids": 1,
    "heldout_grids": 2,
    "max_tokens": 6,
    "temperature": 0.5,
    "top_p": 0.6,
    "batch": 4,
    "said_back": 0.5,
}
BASE = {"negatives": {"random_context": 1.0, "no_context": 1.0}, "candidates": 3}


@pytest.fixture(scope="module")
def plain(tiny_folder, tmp_path_factory) -> bytes:
    folder = fill(tmp_path_factory.mktemp("plain"))
    make.run(folder, make_recipe(tiny_folder, **BASE), QUIET)
    return (folder / "pairs.jsonl").read_bytes()


def test_no_key_is_forgotten():
    # votes: see test_ballots.py
    # own_prompts: see test_questions; file: see test_import_pairs; profile_system: see tests/memory/test_distil.py
    # whole_sentences: see tests/engine/test_sampling.py
    assert {*CHANGES, "whole_sentences", "filters", "own_prompts", "votes", "file", "profile_system"} == set(Pairs.model_fields)
    assert {*FAULTY, "min_pmi", "max_length_ratio"} == set(Filters.model_fields)


@pytest.mark.parametrize("key", CHANGES)
def test_key_changes_the_pairs(key, plain, tiny_folder, tmp_path):
    make.run(fill(tmp_path), make_recipe(tiny_folder, **{**BASE, key: CHANGES[key]}), QUIET)
    assert (tmp_path / "pairs.jsonl").read_bytes() != plain


LENIENT = {"repeated_ngrams": 0.99, "quotes_context": 50, "near_duplicates": 0.999}


@pytest.mark.parametrize("key", LENIENT)
def test_filter_thresholds_count(key):
    """A lenient threshold keeps what the strict one of FAULTY drops (see test_build)."""
    grid = make_grid(texts=[*ORDINARY[:3], FAULTY[key][1], ORDINARY[4]])
    assert len(build_grids([grid], filters={**OFF, key: LENIENT[key]}).pairs) == 5
    assert len(build_grids([grid], filters={**OFF, key: FAULTY[key][0]}).pairs) == 4
