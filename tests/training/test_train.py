"""The loop: schedule, order of the data, stop rules, and that an interrupted run ends bit-identical to one that was not."""

import math
import shutil
from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mipo_mlx.errors import Failure, UserError
from mipo_mlx.files import read_jsonl
from mipo_mlx.models import adapters
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe import Lora, Training
from mipo_mlx.records import TRAIN, VALIDATION, Pair
from mipo_mlx.training import schedule, train, validation
from mipo_mlx.training import step as gradients
from tests.conftest import build_model, tiny_config

QUIET = Reporter(quiet=True)


def make_pairs(model, grids=6, k=3, split=TRAIN, seed=0):
    """Grids of k pairs of random tokens with the model's own reference log-probabilities."""
    from mipo_mlx.engine.logprobs import token_logprobs

    rng = np.random.default_rng(seed)
    pairs = []
    for grid in range(grids):
        answers = [rng.integers(3, 380, rng.integers(3, 9)).tolist() for _ in range(k)]
        for i in range(k):
            prompt = rng.integers(3, 380, rng.integers(5, 14)).tolist()
            tokens = [answers[i], answers[(i + 1) % k]]
            reference = [float(x.sum()) for x in token_logprobs(model, [prompt], [tokens])[0]]
            pairs.append(
                Pair(f"{grid}-{i}", split, grid, [], [], [], [], prompt, tokens, reference, pmi=[0.0], kinds=["random_context"])
            )
    return pairs


def fresh(lora=None, seed=0):
    model = build_model(tiny_config())
    adapters.attach(model, lora or Lora(rank=4), seed)
    return model


def run(folder, settings, model=None, pairs=None, seed=0, round_number=1, budget=512, **watching):
    model = model or fresh()
    base = build_model(tiny_config())
    pairs = pairs or make_pairs(base)
    of_validation = watching.pop("validation", None)
    if of_validation is None:
        of_validation = make_pairs(base, grids=2, split=VALIDATION, seed=9)
    folder.mkdir(exist_ok=True)
    job = train.Job(pairs, of_validation, settings, folder, seed, budget=budget, pad=0, round_number=round_number)
    return model, train.train(model, job, train.Watch(QUIET, **watching))


def weights(model):
    return {name: np.array(value) for name, value in adapters.weights(model).items()}


def same(one, two):
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


def test_learning_rate_warms_up_and_falls_to_its_floor():
    settings = Training(learning_rate=1.0, warmup=0.1, final_learning_rate=0.1)
    rates = [schedule.learning_rate(step, 100, settings) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[-1] == pytest.approx(0.1) and max(rates) == 1.0
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
    middle = 10 + (100 - 1 - 10) // 2  # halfway down the cosine: the mean of peak and floor
    assert schedule.learning_rate(middle, 100, settings) == pytest.approx(0.55, abs=0.02)


def test_every_grid_is_used_once_an_epoch_and_epochs_differ():
    steps = schedule.plan_steps(7, Training(epochs=2.0, grids_per_step=2), seed=1)
    flat = [g for step in steps for g in step]
    assert sorted(flat[:7]) == sorted(flat[7:]) == list(range(7)) and flat[:7] != flat[7:]
    assert len(steps) == 7
    assert schedule.plan_steps(7, Training(), seed=1) != schedule.plan_steps(7, Training(), seed=2)
    assert sum(map(len, schedule.plan_steps(10, Training(epochs=0.5), seed=1))) == 5


def test_more_grids_a_step_than_there_are_is_refused():
    with pytest.raises(UserError, match="training.grids_per_step: 8 grids a step, but only 7"):
        schedule.plan_steps(7, Training(grids_per_step=8), seed=0)


def test_training_lowers_the_loss_and_moves_only_the_adapters(tmp_path):
    model = fresh()
    frozen = {n: np.array(v) for n, v in tree_flatten(model.parameters()) if "lora_" not in n}
    before = weights(model)
    _, result = run(tmp_path, Training(learning_rate=3e-3, epochs=6.0, min_chosen_reward=None, max_kl=None), model, validation=[])
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert np.mean([r["loss"] for r in rows[-6:]]) < 0.8 * math.log(2)
    after = dict(tree_flatten(model.parameters()))
    assert all(np.array_equal(frozen[n], np.array(after[n])) for n in frozen)
    assert any(not np.array_equal(before[n], w) for n, w in weights(model).items())
    assert result.steps == result.planned == 36 and result.stopped is None


def test_the_weights_of_the_lowest_validation_loss_are_kept(tmp_path):
    settings = Training(learning_rate=1e-3, epochs=3.0, evaluate_every=3, min_chosen_reward=None, max_kl=None)
    model, result = run(tmp_path, settings)
    losses = {r["step"]: r["validation_loss"] for r in read_jsonl(tmp_path / "metrics.jsonl") if "validation_loss" in r}
    assert set(losses) == {0, 3, 6, 9, 12, 15, 18}
    assert result.first_loss == losses.pop(0)
    assert result.best_step == min(losses, key=losses.get) and result.best_loss == min(losses.values())
    saved = mx.load(str(tmp_path / "checkpoints" / f"step-{result.best_step:06d}" / "adapters.safetensors"))
    assert all(np.array_equal(np.array(saved[n]), w) for n, w in weights(model).items())


@pytest.mark.parametrize("every", [2, 3, 4, 9])
def test_validation_pairs_are_scored_as_often_as_a_dry_run_counts(tmp_path, monkeypatch, every):
    from mipo_mlx.commands import dry_run

    scored, real = [], validation._score
    monkeypatch.setattr(validation, "_score", lambda model, pairs: scored.append(len(pairs)) or real(model, pairs))
    settings = Training(evaluate_every=every, max_kl=None)
    _, result = run(tmp_path, settings)
    assert result.steps == 6 and len(scored) == dry_run._validations(6, settings)


def test_validation_rows_tell_decay_from_learning(tmp_path):
    """Before training the log-probabilities are the reference's and the rewards 0; afterwards rewards are beta times the change."""
    settings = Training(learning_rate=1e-3, epochs=1.0, min_chosen_reward=None, max_kl=None)
    held = make_pairs(build_model(tiny_config()), grids=2, split=VALIDATION, seed=9)
    run(tmp_path, settings, validation=held)
    first, *_, last = [row for row in read_jsonl(tmp_path / "metrics.jsonl") if "validation_loss" in row]
    for place, name in ((0, "chosen"), (1, "rejected")):
        reference = np.mean([pair.reference[place] for pair in held])
        assert first[f"validation_{name}_logp"] == pytest.approx(reference, abs=1e-3)
        assert first[f"validation_{name}_reward"] == pytest.approx(0, abs=1e-4)
        change = last[f"validation_{name}_logp"] - reference
        assert last[f"validation_{name}_reward"] == pytest.approx(settings.beta * change, abs=1e-4)
    steps = [row for row in read_jsonl(tmp_path / "metrics.jsonl") if "loss" in row]
    assert all(row["chosen_logp"] < 0 and row["rejected_logp"] < 0 for row in steps)


class Killed(Exception):
    pass


def die_at(kill, round_number=1):
    """A watcher that kills the training while it logs a step: nothing of the step itself is saved."""

    def die(row):
        if (row["round"], row["step"]) == (round_number, kill) and "loss" in row:
            raise Killed

    return die


@pytest.mark.parametrize("lora, scored", [(Lora(rank=4), 1), (Lora(rank=4, dora=True), 2), (None, 2)])
def test_before_the_first_step_the_base_is_not_scored_again(lora, scored, monkeypatch):
    """None: adapters that a round before has trained. DoRA's rounding differs from the base's."""
    model, calls = fresh(lora), []
    if lora is None:
        model.update(tree_map(lambda p: p + 0.05 * mx.random.normal(p.shape), model.trainable_parameters()))
    pairs, original = make_pairs(build_model(tiny_config()), grids=2, split=VALIDATION), validation._score
    monkeypatch.setattr(validation, "_score", lambda *args: calls.append(1) or original(*args))
    of_base = validation.Validation.start(model, pairs, named=False)
    measured = of_base.measure(model, beta=0.1)
    assert len(calls) == scored
    expected = [original(model, [pair])[0][0].sum() for pair in pairs]
    assert measured["validation_chosen_logp"] == pytest.approx(np.mean(expected), abs=1e-4)
    untrained = measured["validation_kl"] < 1e-9 and abs(measured["validation_loss"] - math.log(2)) < 1e-5
    assert untrained == bool(lora)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_killed_run_ends_bit_identical(tmp_path, dropout):
    lora = Lora(rank=4, dropout=dropout)
    settings = Training(learning_rate=1e-3, epochs=2.0, checkpoint_every=2, evaluate_every=5, max_kl=None, lora=lora)
    whole, result = run(tmp_path / "whole", settings, fresh(lora))
    lines = [(r["step"], r.get("loss"), r.get("validation_loss")) for r in read_jsonl(tmp_path / "whole" / "metrics.jsonl")]
    for kill in (1, 4, 5, 9, 11):
        folder = tmp_path / f"killed-{kill}"
        with pytest.raises(Killed):
            run(folder, settings, fresh(lora), watchers=[die_at(kill)])
        again, second = run(folder, settings, fresh(lora))
        assert same(again, whole) and second == result
        assert [(r["step"], r.get("loss"), r.get("validation_loss")) for r in read_jsonl(folder / "metrics.jsonl")] == lines


def test_a_half_written_checkpoint_is_ignored(tmp_path):
    settings = Training(learning_rate=1e-3, checkpoint_every=2, max_kl=None)
    whole, _ = run(tmp_path / "whole", settings)
    with pytest.raises(Killed):
        run(tmp_path / "torn", settings, watchers=[die_at(5)])
    torn = tmp_path / "torn" / "checkpoints" / ".step-000006.partial"
    shutil.copytree(tmp_path / "torn" / "checkpoints" / "step-000004", torn)
    (torn / "state.json").unlink()
    again, _ = run(tmp_path / "torn", settings)
    assert same(again, whole)


def test_collapse_of_the_chosen_reward_stops_and_keeps_the_last_good_weights(tmp_path):
    settings = Training(learning_rate=0.5, epochs=5.0, checkpoint_every=1, evaluate_every=100, warmup=0.0, min_chosen_reward=-0.5)
    model, result = run(tmp_path, settings)
    assert "chosen reward fell" in result.stopped and result.steps < result.planned
    assert all(np.isfinite(w).all() for w in weights(model).values())
    assert result.best_step >= 1


def poison(monkeypatch, at):
    real = train.gradient_step
    calls = []

    def step(*args, **kwargs):
        result = real(*args, **kwargs)
        calls.append(1)
        if len(calls) == at:
            result.loss = float("nan")
        return result

    monkeypatch.setattr(train, "gradient_step", step)


def test_nan_stops_before_it_reaches_the_weights(tmp_path, monkeypatch):
    poison(monkeypatch, at=4)
    model, result = run(tmp_path, Training(learning_rate=1e-3, checkpoint_every=1, evaluate_every=100))
    assert "loss is nan at step 4" in result.stopped and result.best_step == 3
    assert all(np.isfinite(w).all() for w in weights(model).values())


def test_nan_at_once_leaves_nothing_to_keep(tmp_path, monkeypatch):
    poison(monkeypatch, at=1)
    with pytest.raises(Failure, match="stopped before its first checkpoint"):
        run(tmp_path, Training())


def test_what_did_not_fit_into_memory_is_not_tried_again_not_even_after_a_kill(tmp_path, monkeypatch):
    """Pairs do not fit beside another one, nor alone without gradient checkpointing."""
    real, tried = gradients.batch_logprobs, []

    def limited(model, batch, *, checkpoint=False, gradient=True):
        tried.append((batch.prompts.shape[0], checkpoint))
        if tried[-1] != (1, True):
            raise RuntimeError("[malloc] Unable to allocate 123456 bytes.")
        return real(model, batch, checkpoint=checkpoint, gradient=gradient)

    monkeypatch.setattr(gradients, "batch_logprobs", limited)
    settings = Training(learning_rate=1e-3, checkpoint_every=1, max_kl=None)
    whole, _ = run(tmp_path / "whole", settings)
    failed = [shape for shape in tried if shape != (1, True)]
    assert failed == tried[: len(failed)] and failed[0] == (3, False) and failed[-1] == (1, False)
    assert tried[len(failed) :] == [(1, True)] * 18  # six steps of three pairs
    with pytest.raises(Killed):
        run(tmp_path / "killed", settings, watchers=[die_at(3)])
    tried.clear()
    again, _ = run(tmp_path / "killed", settings)
    assert tried == [(1, True)] * 12 and same(again, whole)


def test_a_resumed_training_keeps_the_micro_batches_that_it_began_with(tmp_path, monkeypatch):
    """The plan of a GPU counts what other programs hold, so a later one may differ, and with it the last bits."""
    budgets, real = [], train.gradient_step
    monkeypatch.setattr(train, "gradient_step", lambda *_, **more: budgets.append(more["token_budget"]) or real(*_, **more))
    settings = Training(learning_rate=1e-3, checkpoint_every=1, epochs=1.0, max_kl=None)
    pairs = make_pairs(build_model(tiny_config()), grids=3)
    begin = partial(run, settings=settings, pairs=pairs, validation=[])
    whole, _ = begin(tmp_path / "whole", budget=50)
    with pytest.raises(Killed):
        begin(tmp_path / "killed", budget=50, watchers=[die_at(2)])
    again, _ = begin(tmp_path / "killed", budget=9999)
    assert set(budgets) == {50} and same(again, whole)


def test_kl_budget_stops(tmp_path):
    settings = Training(learning_rate=1e-3, epochs=5.0, evaluate_every=1, checkpoint_every=1, min_chosen_reward=None, max_kl=None)
    _, free = run(tmp_path / "free", settings)
    moved = [r["validation_kl"] for r in read_jsonl(tmp_path / "free" / "metrics.jsonl") if "validation_kl" in r]
    assert free.stopped is None and min(moved) >= 0 and max(moved[:3]) < 0.5 * max(moved)
    _, result = run(tmp_path / "bound", settings.model_copy(update={"max_kl": 0.5 * max(moved)}))
    assert "KL from the base reached" in result.stopped and 1 < result.steps < free.steps


BASE = Training(learning_rate=1e-3, epochs=2.0, evaluate_every=4, checkpoint_every=4, max_kl=None)


@pytest.mark.parametrize(
    "change",
    [
        {"beta": 0.5}, {"learning_rate": 2e-3}, {"epochs": 1.0}, {"warmup": 0.5}, {"final_learning_rate": 0.9},
        {"weight_decay": 5.0}, {"betas": [0.5, 0.6]}, {"clip": 1e-6}, {"grids_per_step": 2}, {"label_smoothing": 0.3},
        {"length_normalized": True}, {"nll_weight": 1.0}, {"objective": "ipo"}, {"objective": "tilt"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_training_key_changes_the_outcome(tmp_path, change):
    pairs = make_pairs(build_model(tiny_config()), grids=4)
    plain, _ = run(tmp_path / "plain", BASE, pairs=pairs, validation=[])
    changed, _ = run(tmp_path / "changed", BASE.model_copy(update=change), pairs=pairs, validation=[])
    assert not same(plain, changed)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 2},
        {"scale": 1.0},
        {"dropout": 0.5},
        {"layers": 1},
        {"keys": ["self_attn.q_proj"]},
        {"rank_stabilized": True},
        {"dora": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_adapter_key_changes_the_outcome(tmp_path, change):
    pairs = make_pairs(build_model(tiny_config()), grids=2)
    outcomes = []
    for name, lora in (("plain", Lora(rank=4)), ("changed", Lora(rank=4).model_copy(update=change))):
        model, _ = run(tmp_path / name, BASE, fresh(lora), pairs=pairs, validation=[])
        model.eval()
        outcomes.append(np.array(model(mx.array([[5, 6, 7, 8]]))))
    assert not np.array_equal(*outcomes)


def test_the_seed_changes_the_outcome(tmp_path):
    pairs = make_pairs(build_model(tiny_config()), grids=4)
    one, _ = run(tmp_path / "one", BASE, fresh(seed=0), pairs=pairs, seed=0, validation=[])
    two, _ = run(tmp_path / "two", BASE, fresh(seed=1), pairs=pairs, seed=1, validation=[])
    assert not same(one, two)
