"""Gain and cost by the kind of request, against plain forward passes."""

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.evaluation import by_kind, judge_votes, requests
from mipo_mlx.evaluation.answers import clusters_of
from mipo_mlx.evaluation.compare import compare
from mipo_mlx.evaluation.outcome import Outcome, write
from mipo_mlx.files import read_records, write_records
from mipo_mlx.models import adapters, load, prompts
from mipo_mlx.models.journal import Journal
from mipo_mlx.records import CHORES, GENERAL, HELDOUT, PERSONAL, TRAIN, Prompt

from .helpers import FACTS, Steps, bench, make_run, plain_logprobs, recipe

COUNT = 6
MEASURES = ("pmi_per_token", "tokens", "perplexity", "parroting")


@pytest.fixture(scope="module")
def measured(tmp_path_factory, tiny_folder):
    """A run whose bank has three kinds, and what was measured of each."""
    folder = tmp_path_factory.mktemp("kinds")
    settings = recipe(tiny_folder, kinds=COUNT, answers=16)
    make_run(folder, settings, spread=0.05)
    personal = read_records(folder / "prompts.jsonl", Prompt)
    others = [
        Prompt(f"{kind}{i}", f"What is {kind} number {i}?", "any", HELDOUT if i < 9 else TRAIN, kind)
        for kind in (GENERAL, CHORES)
        for i in range(12)
    ]
    write_records(folder / "prompts.jsonl", personal + others)
    loaded = load.load(settings.model)
    adapters.load(loaded.model, folder / "adapters")
    ask = prompts.PromptBuilder(loaded.tokenizer, settings.pairs)
    bar = Steps()
    here = bench(folder, settings, loaded, bar)
    groups, fresh = by_kind.groups_of(folder, settings, ask), requests.groups_of(folder, settings, ask)
    answered = requests.answer(here, fresh)
    bar.done = 0
    result = by_kind.evaluate(here, groups, answered)
    assert bar.done == by_kind.bar_total(groups, fresh)
    return here, groups, answered, result


def test_each_kind_has_requests_of_its_own_that_are_held_out(measured):
    _, groups, answered, result = measured
    assert list(result) == [PERSONAL, GENERAL, CHORES] and list(groups) == [GENERAL, CHORES]
    assert {row.requests for row in result.values()} == {COUNT}
    for kind, some in groups.items():
        texts = [group.requests[0] for group in some]
        assert len(set(texts)) == COUNT and all(text.startswith(f"What is {kind} number") for text in texts)
        assert all(int(group.request_ids[0].removeprefix(kind)) < 9 for group in some)  # the others are trained on
        assert all(group.wanted == 1 and len(set(group.notes)) == 2 for group in some)
        assert len({group.notes[0] for group in some}) == COUNT  # of eight notes: all come up evenly
    assert all(not a.request.startswith("What is") for a in answered)  # the verdict stands on personal requests


def plain_divergence(model, prompt, answer):
    """(tokens,) KL(tuned || base), from whole forward passes in float64."""

    def logs():
        logits = np.array(model(mx.array([prompt + answer]))[0], dtype=np.float64)[len(prompt) - 1 : -1]
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    tuned = logs()
    with adapters.disabled(model):
        base = logs()
    return (np.exp(tuned) * (tuned - base)).sum(-1)


@pytest.mark.parametrize("kind", [PERSONAL, GENERAL])
def test_distances_and_measures_equal_plain_forward_passes(measured, kind):
    here, groups, answered, result = measured
    every = [*groups[GENERAL], *groups[CHORES]]
    rows = by_kind.spread_out(answered, COUNT)
    if kind != PERSONAL:
        rows = requests.answer(here, every, "kinds-", by_tuned=False)[:COUNT]
        assert all(a.group is group and a.own == 0 for a, group in zip(rows, groups[GENERAL], strict=True))
    of_kind = result[kind]
    with_context = [plain_divergence(here.model, a.group.prompts[a.own], a.tuned.answer.tokens) for a in rows]
    lengths = [a.tuned.length for a in rows]
    assert of_kind.kl_told.value == pytest.approx(np.average([kl.mean() for kl in with_context], weights=lengths), rel=1e-3)
    samples = Journal(here.folder / "journal.jsonl", "k").done
    untold = [row["tokens"] for chunk in range(5) for row in samples["kinds-untold", chunk]]
    plain = untold[:COUNT] if kind == PERSONAL else untold[COUNT : 2 * COUNT]
    without = [plain_divergence(here.model, a.group.plain, tokens) for a, tokens in zip(rows, plain, strict=True)]
    assert of_kind.kl_untold.value == pytest.approx(np.concatenate(without).mean(), rel=1e-3)
    assert of_kind.kl_told.value > 1e-4 and of_kind.kl_told.interval and of_kind.no_interval is None
    with adapters.disabled(here.model):
        base = [plain_logprobs(here.model, a.group.prompts[a.own], a.tuned.answer.tokens) for a in rows]
    assert of_kind.metrics["perplexity"].after.value == pytest.approx(np.exp(-np.concatenate(base).mean()), rel=1e-3)
    assert of_kind.metrics["tokens"].after.value == pytest.approx(np.mean(lengths))
    assert of_kind.fit == judge_votes.fit(rows, here.recipe.evaluation, 0, None)
    assert [len(set(labels)) for labels in clusters_of(rows)] == [COUNT, COUNT] and all(
        any(fact in a.context for fact in FACTS) for a in rows
    )


def test_kinds_share_batches_and_nothing_is_scored_that_no_figure_needs(measured):
    """Eighteen answers without a context fill batches of four to their last; the trained model scores none but personal answers."""
    here, _, answered, _ = measured
    done = Journal(here.folder / "journal.jsonl", "k").done
    sizes = {phase: [len(done[key]) for key in sorted(done) if key[0] == phase] for phase, _ in done}
    assert sizes["kinds-untold"] == [4, 4, 4, 4, 2] and sizes["kinds-sample-tuned"] == sizes["kinds-sample-base"] == [4, 4, 4]
    assert [phase for phase in sizes if "score-tuned" in phase] == ["score-tuned"]
    assert all(a.tuned.tuned for a in answered)


def test_two_runs_are_compared_by_kind(measured, tmp_path):
    here, _, _, result = measured
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, Outcome(here.recipe.model, kinds=result))
    measures = compare([tmp_path / "a"], [tmp_path / "b"]).measures
    assert set(measures) == {f"{kind}_{name}" for kind in (GENERAL, CHORES) for name in MEASURES}
    assert all(measure.change == 0 for measure in measures.values())


@pytest.mark.parametrize("kinds, own", [(0, False), (COUNT, True)])
def test_without_other_kinds_nothing_is_measured(measured, tmp_path, kinds, own):
    """None are wanted, or the run has requests of its owner's alone, which count as personal."""
    here, groups, answered, _ = measured
    settings = recipe(here.recipe.model, kinds=kinds, answers=16)
    (tmp_path / "contexts.jsonl").write_bytes((here.folder / "contexts.jsonl").read_bytes())
    rows = read_records(here.folder / "prompts.jsonl", Prompt)
    write_records(tmp_path / "prompts.jsonl", [row for row in rows if row.kind == PERSONAL or not own])
    ask = prompts.PromptBuilder(here.tokenizer, settings.pairs)
    assert by_kind.groups_of(tmp_path, settings, ask) == {}
    assert by_kind.evaluate(here, {}, answered) == {} == by_kind.evaluate(here, groups, [])
