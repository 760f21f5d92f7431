"""The result as its owner will use it: distractors and the profile, on a tiny model."""

import numpy as np
import pytest

from mipo_mlx.evaluation import evaluate, requests, use
from mipo_mlx.evaluation import outcome as outcomes
from mipo_mlx.files import read_json
from mipo_mlx.models import adapters, embedding, load
from mipo_mlx.models.prompts import PromptBuilder
from mipo_mlx.progress import Reporter

from .helpers import Steps, bench, make_run, plain_logprobs, recipe

QUIET = Reporter(quiet=True)
PROFILE = "- The user keeps bees. <!-- n0.md:1 -->\n- The user bakes bread.\n"


@pytest.fixture(scope="module")
def answered(tmp_path_factory, tiny_folder):
    """A run with its model and the answers to its requests under the right passage alone."""
    settings = recipe(tiny_folder, answers=12, choices=[4], use=8)
    folder = make_run(tmp_path_factory.mktemp("run"), settings, spread=0.05)
    loaded = load.load(settings.model)
    adapters.load(loaded.model, folder / "adapters")
    groups = requests.groups_of(folder, settings, PromptBuilder(loaded.tokenizer, settings.pairs))
    here = bench(folder, settings, loaded)
    return here, groups, requests.answer(here, groups)


def test_the_right_passage_comes_last_behind_two_of_other_notes(answered):
    here, groups, rows = answered
    a = rows[1]
    texts, profile = use._distracted(a)
    assert profile == "" and texts[-1] == a.context and len(set(texts)) == 3
    assert texts[:2] == [a.group.passages[(a.own + step) % 4] for step in (1, 2)]
    assert len({a.group.notes[a.group.passages.index(text)] for text in texts}) == 3


def test_shares_are_those_of_plain_forward_passes(answered, tmp_path):
    """The base's likelihood of each answer, without distractors, under its own passage and the next two."""
    here, groups, rows = answered
    bar = Steps()
    result = use.evaluate(use.replace(here, bar=bar), rows)
    assert bar.done == use.bar_total(here.folder, here.recipe, groups, False) == 4 * 8
    assert result.requests == 8 and result.ways == {}

    def share(side):
        hits = []
        for a in rows[:8]:
            prompts = [a.group.prompts[(a.own + step) % 4] for step in range(3)]
            with adapters.disabled(here.model):
                sums = [plain_logprobs(here.model, prompt, getattr(a, side).answer.tokens).sum() for prompt in prompts]
            hits.append(np.argmax(sums) == 0)
        return np.mean(hits)

    measured = result.distractors
    assert measured["undistracted"].before.value == pytest.approx(share("base"))
    assert measured["undistracted"].after.value == pytest.approx(share("tuned"))
    for side in ("before", "after"):
        lost = getattr(measured["undistracted"], side).value - getattr(measured["distracted"], side).value
        assert getattr(measured["lost_to_distractors"], side).value == pytest.approx(lost)


def test_an_embedder_judges_where_there_is_one(answered):
    """A stand-in that knows a text by the sum of its characters."""
    here, groups, rows = answered

    def embed(texts):
        return np.array([[np.cos(sum(map(ord, text))), np.sin(sum(map(ord, text)))] for text in texts])

    judged = use._shares(use.replace(here, embedder=embed), rows)
    expected = [embedding.cosines(embed, [a.base.text], [a.group.passages])[0] for a in rows]
    for hit, row, a in zip(judged[0], expected, rows, strict=True):
        assert hit == (row[a.own] == max(row[(a.own + step) % 4] for step in range(3)))


def test_a_model_without_room_for_three_passages_is_not_measured_there(answered):
    here, groups, rows = answered
    assert use.evaluate(use.replace(here, window=30), rows).distractors == {}


def test_with_a_profile_the_file_alone_is_compared_with_the_bare_base(tmp_path, tiny_folder, monkeypatch):
    settings = recipe(tiny_folder, answers=2, use=6)
    folder = make_run(tmp_path, settings, spread=0.05)
    (folder / "profile.md").write_text(PROFILE)
    loaded = load.load(settings.model)
    adapters.load(loaded.model, folder / "adapters")
    bar, questions = Steps(), []
    here = bench(folder, settings, loaded, bar)
    original = type(here).sample_now
    monkeypatch.setattr(
        type(here), "sample_now", lambda self, prompts, *others: questions.extend(prompts) or original(self, prompts, *others)
    )
    result = use.evaluate(here, [])
    assert set(result.ways) == {"alone", "profile"} and result.distractors == {}
    for opinion in result.ways.values():
        assert opinion.judge == "likelihood" and opinion.win + opinion.tie + opinion.loss == 6
        assert opinion.win_rate.interval is not None
    texts = [loaded.tokenizer.decode(prompt) for prompt in questions]
    with_profile = ["The user keeps bees.\nThe user bakes bread." in text for text in texts]
    assert with_profile.count(True) == 12 and len(texts) == 18  # tuned and base; then the base with nothing pasted
    assert all("system" not in text for text, has in zip(texts, with_profile, strict=True) if not has)
    assert not any("n0.md" in text for text in texts)
    assert bar.done == use.bar_total(folder, settings, [], False) == 36


def test_adapters_without_effect_win_no_comparison_and_lose_no_more_than_the_base(tmp_path, tiny_folder):
    settings = recipe(tiny_folder, answers=12, choices=[4], use=12)
    folder = make_run(tmp_path, settings)
    (folder / "profile.md").write_text(PROFILE)
    evaluate.run(folder, settings, QUIET)
    result = outcomes.read(folder).use
    assert result.ways["profile"].win_rate.value == 0.5
    for measure in result.distractors.values():
        assert measure.change.value == pytest.approx(0)


def test_a_kill_costs_at_most_a_chunk_and_other_counts_leave_the_rest(tmp_path, tiny_folder, monkeypatch):
    settings = recipe(tiny_folder, answers=8, choices=[4], use=8)
    folder = make_run(tmp_path, settings, spread=0.05)
    evaluate.run(folder, settings, QUIET)
    whole, lines = (folder / "eval.json").read_bytes(), (folder / "eval-samples.jsonl").read_bytes().splitlines(keepends=True)
    phases = [line for line in lines if b'"use-' in line]
    assert len(phases) == 2 * (2 + 4)  # two chunks of samples and four groups of scores, of base and tuned
    first = lines.index(phases[0])
    for kept in (first, first + 3, first + 7):
        (folder / "eval.json").unlink()
        (folder / "eval-samples.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:25])
        evaluate.run(folder, settings, QUIET)
        assert (folder / "eval.json").read_bytes() == whole
        assert (folder / "eval-samples.jsonl").read_bytes() == b"".join(lines)
    monkeypatch.setattr(requests, "score_group", None)
    monkeypatch.setattr(type(bench(tmp_path, settings, load.load(str(tiny_folder)))), "sample_now", None)
    evaluate.run(folder, recipe(tiny_folder, answers=8, choices=[4], use=0), QUIET)
    assert read_json(folder / "eval.json")["use"] is None
