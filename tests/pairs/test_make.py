"""The stage on a tiny model: the same seed gives the same bytes, killed anywhere or not; bad input ends with one line."""

import io
import json
import random
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.engine.sampling import Prefixes, sample
from mipo_mlx.errors import Failure, UserError
from mipo_mlx.files import read_records
from mipo_mlx.models.load import load
from mipo_mlx.pairs import make, score
from mipo_mlx.pairs.score import score_grids
from mipo_mlx.progress import Reporter
from mipo_mlx.records import HELDOUT, TRAIN, Answer, Context, Grid, Pair

from .helpers import QUIET, fill, make_recipe

FILES = ("samples.jsonl", "pairs.jsonl", "pairs.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def recipe(tiny_folder):
    """Eight grids of three from 18 contexts: some contexts come back, so that their prefixes are reused."""
    return make_recipe(tiny_folder, negatives={"random_context": 2.0, "no_context": 1.0}, candidates=3, grids=8)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Path:
    """The run directory of an uninterrupted run."""
    folder = fill(tmp_path_factory.mktemp("whole"))
    make.run(folder, recipe, QUIET)
    return folder


def test_every_grid_and_answer_is_there(whole, recipe):
    grids = read_records(whole / "samples.jsonl", Grid)
    assert [grid.id for grid in grids] == list(range(13))
    for grid in grids:
        assert len(grid.contexts) == 4 and grid.contexts[-1] is None
        assert np.array(grid.scores).shape == (4, 4)
        for answer in grid.answers:
            assert 1 <= len(answer.tokens) <= 8
            assert (answer.finish == "stop") == (answer.tokens[-1] == 2)
            assert answer.finish == "stop" or len(answer.tokens) == 8
    pairs = read_records(whole / "pairs.jsonl", Pair)
    assert pairs and [pair.grid for pair in pairs] == sorted(pair.grid for pair in pairs)  # a grid's pairs stand together


def test_nothing_is_on_both_sides(whole):
    pairs = read_records(whole / "pairs.jsonl", Pair)
    seen = {
        split: {name for pair in pairs if pair.split == split for name in (pair.context_id, *pair.wrong_context_ids) if name}
        for split in (TRAIN, "validation", HELDOUT)
    }
    notes = {split: {name.rpartition("-")[0] for name in names} for split, names in seen.items()}
    assert all(notes.values())
    assert not notes[TRAIN] & notes["validation"] and not (notes[TRAIN] | notes["validation"]) & notes[HELDOUT]


def test_no_negative_of_the_same_note(whole):
    for pair in read_records(whole / "pairs.jsonl", Pair):
        notes = [name.rpartition("-")[0] for name in (pair.context_id, *pair.wrong_context_ids) if name]
        assert len(set(notes)) == len(notes)


def test_same_seed_same_bytes(whole, recipe, tmp_path):
    mx.random.seed(99)  # what was drawn before must not matter
    make.run(fill(tmp_path), recipe, QUIET)
    assert contents(tmp_path) == contents(whole)


def test_prefixes_are_reused(whole, recipe, tmp_path, monkeypatch):
    prefixes = []
    monkeypatch.setattr(make, "Prefixes", lambda *args: prefixes.append(Prefixes(*args)) or prefixes[0])
    make.run(fill(tmp_path), recipe, QUIET)
    assert len(prefixes[0].shared) > 3


def test_scores_go_on_from_what_sampling_kept(whole, recipe, tmp_path, monkeypatch):
    kept, original = [], score.token_logprobs

    def watched(model, prompts, answers, recorded=None):
        kept.append(len(recorded or []) / len(prompts))
        return original(model, prompts, answers, recorded=recorded)

    monkeypatch.setattr(score, "token_logprobs", watched)
    make.run(fill(tmp_path), recipe, QUIET)
    assert kept and set(kept) == {1.0}


def test_another_seed_gives_other_answers(whole, recipe, tmp_path):
    make.run(fill(tmp_path), recipe.model_copy(update={"seed": 1}), QUIET)
    assert contents(tmp_path)["samples.jsonl"] != contents(whole)["samples.jsonl"]


@pytest.mark.parametrize("point", range(10))
def test_killed_while_writing(point, whole, recipe, tmp_path):
    """What a kill leaves of samples.jsonl: any number of its bytes, and pairs.jsonl or nothing."""
    folder = fill(tmp_path)
    rng = random.Random(f"bytes {point}")
    written = (whole / "samples.jsonl").read_bytes()
    (folder / "samples.jsonl").write_bytes(written[: rng.randrange(len(written) + 1)])
    if rng.random() < 0.5:
        shutil.copy(whole / "pairs.jsonl", folder)
    make.run(folder, recipe, QUIET)
    assert contents(folder) == contents(whole)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("point", range(10))
def test_killed_while_sampling_or_scoring(point, whole, recipe, tmp_path, monkeypatch):
    folder = fill(tmp_path)
    left = random.Random(f"calls {point}").randrange(1, 12)

    def dying(function):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("sample", "score_grids", "append_jsonl", "build"):
            patch.setattr(make, name, dying(getattr(make, name)))
        with pytest.raises(Killed):
            make.run(folder, recipe, QUIET)
    make.run(folder, recipe, QUIET)
    assert contents(folder) == contents(whole)


def test_a_finished_run_samples_nothing(whole, recipe, monkeypatch):
    before = contents(whole)
    monkeypatch.setattr(make, "sample", None)
    assert "tokens_per_second" not in make.run(whole, recipe, QUIET)
    assert contents(whole) == before


def test_samples_of_another_plan_are_refused(whole, recipe):
    kept = (whole / "samples.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"samples.jsonl:1: .*--fresh"):
        make.run(whole, recipe.model_copy(update={"seed": 5}), QUIET)
    assert (whole / "samples.jsonl").read_bytes() == kept


def test_samples_of_an_edited_context_are_refused(whole, recipe, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "contexts.jsonl"
    path.write_text(path.read_text().replace("I like", "I love"))
    with pytest.raises(UserError, match=r"samples.jsonl:1: .*--fresh"):
        make.run(tmp_path / "run", recipe, QUIET)


def test_scores_equal_those_of_one_answer_at_a_time(whole, recipe):
    """The plain way: prompt and answer in one row, full softmax in float64."""
    loaded = load(recipe.model)
    pairs = read_records(whole / "pairs.jsonl", Pair)
    for pair in pairs[::5]:
        for tokens, reference in zip(pair.tokens, pair.reference, strict=True):
            row = [*pair.prompt_tokens, *tokens]
            logits = np.array(loaded.model(mx.array([row[:-1]]))[0], dtype=np.float64)[len(pair.prompt_tokens) - 1 :]
            logps = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
            assert reference == pytest.approx(sum(logps[i, token] for i, token in enumerate(tokens)), abs=1e-3)


def test_pmi_is_the_difference_under_both_contexts(whole):
    grids = {grid.id: grid for grid in read_records(whole / "samples.jsonl", Grid)}
    for pair in read_records(whole / "pairs.jsonl", Pair):
        grid, row = grids[pair.grid], grids[pair.grid].contexts.index(pair.context_id)
        for wrong, pmi in zip(pair.wrong_context_ids, pair.pmi, strict=True):
            assert pmi == pytest.approx(grid.scores[row][row] - grid.scores[grid.contexts.index(wrong)][row], abs=1e-4)


def test_prompt_beyond_the_window_loses_context_only(tiny_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 80}))
    folder = fill(tmp_path / "run")
    output = io.StringIO()
    make.run(folder, make_recipe(model, filters={"min_pmi": None}), Reporter(stream=output))
    assert "contexts were cut to fit the model's window of 72 prompt tokens" in output.getvalue()
    texts = {row["id"]: row["text"] for row in map(json.loads, (folder / "contexts.jsonl").read_text().splitlines())}
    requests = {row["id"]: row["text"] for row in map(json.loads, (folder / "prompts.jsonl").read_text().splitlines())}
    pairs = read_records(folder / "pairs.jsonl", Pair)
    for pair in pairs:
        assert len(pair.prompt_tokens) <= 72
        assert pair.prompt[1]["content"] == requests[pair.prompt_id]
        kept = pair.prompt[0]["content"].removesuffix(" In two sentences.")
        assert texts[pair.context_id].startswith(kept)
    assert any(len(pair.prompt_tokens) == 72 for pair in pairs)


def test_prompt_that_fills_the_window_alone(tiny_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40}))
    with pytest.raises(UserError, match="has no room beside a context in the model's window"):
        make.run(fill(tmp_path / "run"), make_recipe(model), QUIET)
    with pytest.raises(UserError, match="pairs.max_tokens: 8 tokens of answer leave no room"):
        (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8}))
        make.run(fill(tmp_path / "run"), make_recipe(model), QUIET)


def test_only_empty_answers(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(
        make,
        "sample",
        lambda model, tokenizer, prompts, *rest: [Answer("", [2], "stop") for _ in prompts],
    )
    with pytest.raises(Failure, match="every sampled answer is empty"):
        make.run(fill(tmp_path), recipe, QUIET)


def test_nothing_left_to_train_on(recipe, tmp_path):
    strict = make_recipe(recipe.model, filters={"min_pmi": 1e6})
    with pytest.raises(UserError, match=r"no train pair is left; most were dropped as min_pmi \(10 of 15\)"):
        make.run(fill(tmp_path), strict, QUIET)


def test_answers_stop_at_the_end_of_turn(tiny_folder):
    """The end-of-turn token is kept where the model wrote it, once, and is not in the text."""
    loaded = load(str(tiny_folder))
    settings = make_recipe(max_tokens=30).pairs
    prompts = [[1, 5, 9, 2, 201], [1, 7, 2], [1] * 40]

    class Eager:
        """The model with a logit bias of 6 on the end-of-turn token."""

        layers, language_model = loaded.model.layers, loaded.model

        def __call__(self, *args, **kwargs):
            return loaded.model(*args, **kwargs) + 6.0 * (mx.arange(384) == 2)

    answers, ends = sample(Eager(), loaded.tokenizer, prompts * 10, settings, 1), loaded.tokenizer.eos_token_ids
    assert "stop" in {answer.finish for answer in answers} and any(answer.tokens[-1] == 2 for answer in answers)
    for answer in answers:
        assert (answer.finish == "stop") == (answer.tokens[-1] in ends) and not ends & set(answer.tokens[:-1])
        assert "<|im_end|>" not in answer.text


def test_mixture_with_random_prompt(tiny_folder, tmp_path):
    """Grids of both shapes, resumed in the middle; scores of other questions' answers are the model's own."""
    recipe = make_recipe(tiny_folder, negatives={"random_prompt": 1.0, "hard_context": 1.0}, grids=6)
    make.run(fill(tmp_path), recipe, QUIET)
    pairs = read_records(tmp_path / "pairs.jsonl", Pair)
    assert {pair.kinds[0] for pair in pairs if pair.split == TRAIN} == {"random_prompt", "hard_context"}
    loaded, before = load(recipe.model), contents(tmp_path)
    pair = next(pair for pair in pairs if pair.kinds == ["random_prompt"])
    row = [*pair.prompt_tokens, *pair.tokens[1]]
    logits = np.array(loaded.model(mx.array([row[:-1]]))[0], dtype=np.float64)[len(pair.prompt_tokens) - 1 :]
    logps = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    assert pair.reference[1] == pytest.approx(sum(logps[i, token] for i, token in enumerate(pair.tokens[1])), abs=1e-3)
    written = before["samples.jsonl"]
    (tmp_path / "samples.jsonl").write_bytes(written[: len(written) // 2])
    make.run(tmp_path, recipe, QUIET)
    assert contents(tmp_path) == before


def test_trl_can_read_the_pairs(whole):
    """Conversational preference rows: prompt, chosen and rejected are lists of {role, content}."""
    from datasets import load_dataset

    rows = load_dataset("json", data_files=str(whole / "pairs.jsonl"), split="train", cache_dir=str(whole / "cache"))
    assert len(rows) == len(read_records(whole / "pairs.jsonl", Pair))
    for row in rows:
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        for name in ("chosen", "rejected"):
            assert [message["role"] for message in row[name]] == ["assistant"] and row[name][0]["content"]


@pytest.fixture(scope="module")
def behind(tiny_folder, tmp_path_factory) -> Path:
    """A run in which every grid has two distractors."""
    folder = fill(tmp_path_factory.mktemp("behind"))
    make.run(folder, make_recipe(tiny_folder, distractors=[0.0, 0.0, 1.0], grids=8), QUIET)
    return folder


def test_what_was_shown_is_recorded(behind):
    texts = {context.id: context.text for context in read_records(behind / "contexts.jsonl", Context)}
    grids = {grid.id: grid for grid in read_records(behind / "samples.jsonl", Grid)}
    pairs = read_records(behind / "pairs.jsonl", Pair)
    assert pairs
    for pair in pairs:
        assert pair.distractor_ids == grids[pair.grid].distractors
        assert len(pair.distractor_ids) == (2 if pair.split != "validation" else 0)  # three notes: each has a row of its own
        system = "\n\n".join(texts[name] for name in (*pair.distractor_ids, pair.context_id))
        assert pair.prompt[0]["content"] == f"{system} In two sentences."
    counted = json.loads((behind / "pairs.json").read_text())["grids"]
    assert {split: of["behind"] for split, of in counted.items()} == {TRAIN: [0, 0, 8], "validation": [2, 0, 0], HELDOUT: [0, 0, 3]}


def test_scores_behind_distractors(behind, tiny_folder):
    """The scores that sampling left, from shared prefixes, are those of whole prompts."""
    loaded = load(str(tiny_folder))
    for pair in read_records(behind / "pairs.jsonl", Pair)[:6]:
        [scored] = score_grids(loaded.model, [([pair.prompt_tokens] * 2, pair.tokens)])
        assert scored[0] == pytest.approx(pair.reference, abs=1e-3)


def test_the_prompts_of_a_grid_share_its_distractors(tiny_folder, tmp_path, monkeypatch):
    prefixes = []
    monkeypatch.setattr(make, "Prefixes", lambda *args: prefixes.append(Prefixes(*args)) or prefixes[0])
    grids = make_recipe(tiny_folder, distractors=[0.0, 0.0, 1.0], grids=8)
    make.run(fill(tmp_path), grids, QUIET)
    of_grids = [labels for labels in prefixes[0].shared if isinstance(labels[0], tuple)]
    assert len({labels for labels in of_grids if len(labels) == 1}) == 11  # all but the two validation grids have some


def test_distractors_go_where_the_window_is_small(tiny_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    config = json.loads((model / "config.json").read_text())
    texts = {}
    for window in (300, 120):
        (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": window}))
        folder = fill(tmp_path / str(window))
        output = io.StringIO()
        make.run(folder, make_recipe(model, distractors=[0.0, 0.0, 1.0]), Reporter(stream=output))
        assert "were cut to fit" not in output.getvalue()
        pairs = read_records(folder / "pairs.jsonl", Pair)
        assert all(len(pair.prompt_tokens) <= window - 8 for pair in pairs)
        texts[window] = {len(pair.distractor_ids) for pair in pairs if pair.split == TRAIN}
    assert texts[300] == {2} and max(texts[120]) < 2


def test_killed_behind_distractors(behind, tiny_folder, tmp_path):
    folder = fill(tmp_path)
    (folder / "samples.jsonl").write_bytes((behind / "samples.jsonl").read_bytes()[:-900])
    make.run(folder, make_recipe(tiny_folder, distractors=[0.0, 0.0, 1.0], grids=8), QUIET)
    assert contents(folder) == contents(behind)
    with pytest.raises(UserError, match=r"samples.jsonl:1: sampled from other contexts"):
        make.run(folder, make_recipe(tiny_folder, distractors=[1.0], grids=8), QUIET)
