"""Context-aware decoding against plain forward passes, and the baselines of a run."""

import io
import shutil
from dataclasses import asdict, replace

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.commands import summary
from mipo_mlx.errors import UserError
from mipo_mlx.evaluation import baselines, requests
from mipo_mlx.evaluation import evaluate as stage
from mipo_mlx.evaluation.baselines import Contrast
from mipo_mlx.files import read_json, read_jsonl, write_json, write_jsonl
from mipo_mlx.models import adapters, embedding, load
from mipo_mlx.models.prompts import PromptBuilder
from mipo_mlx.progress import Reporter
from mipo_mlx.run import Run, run_stage
from mipo_mlx.training import rounds, train
from mipo_mlx.training import train as training

from .helpers import Steps, bench, make_run, recipe

QUIET = Reporter(quiet=True)

WITH, WITHOUT = [5, 6, 7, 8, 9, 10], [5, 10]


def greedy(tiny_folder):
    return recipe(tiny_folder).pairs.model_copy(update={"temperature": 0.0, "max_tokens": 5})


def contrast(loaded, prompts, strength, settings):
    return Contrast(strength, settings, 0).sample(loaded.model, loaded.tokenizer, prompts)


def logprobs_after(model, ids: list[int]) -> np.ndarray:
    """(vocabulary,) of the next token, by a pass of its own."""
    logits = np.array(model(mx.array([ids]))[0, -1], dtype=np.float64)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def test_strength_zero_is_the_base_with_its_context(tiny_folder, tmp_path):
    loaded = load.load(str(tiny_folder))
    prompts, plain = [WITH, [11, 12, 13]], [WITHOUT, [13]]
    contrasted = contrast(loaded, list(zip(prompts, plain, strict=True)), 0.0, greedy(tiny_folder))
    settings = recipe(tiny_folder).model_copy(update={"pairs": greedy(tiny_folder)})
    assert contrasted == bench(tmp_path, settings, loaded).sample_now(prompts, "any")


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_each_greedy_token_is_the_best_of_the_contrasted_distribution(tiny_folder, strength):
    loaded = load.load(str(tiny_folder))
    prompts, plain = [WITH, [11, 12, 13]], [WITHOUT, [13]]
    result = contrast(loaded, list(zip(prompts, plain, strict=True)), strength, greedy(tiny_folder))
    for with_context, without, answer in zip(prompts, plain, result, strict=True):
        so_far: list[int] = []
        for token in answer.tokens:
            near, far = (logprobs_after(loaded.model, ids + so_far) for ids in (with_context, without))
            assert int(np.argmax((1 + strength) * near - strength * far)) == token
            so_far.append(token)
        assert len(answer.tokens) == 5 or answer.finish == "stop"


def test_the_output_layer_never_reads_the_prompt(tiny_folder, monkeypatch):
    loaded = load.load(str(tiny_folder))
    kind, read = type(loaded.model), []
    original = kind.__call__
    monkeypatch.setattr(
        kind, "__call__", lambda self, tokens, **kept: read.append(tokens.shape[1]) or original(self, tokens, **kept)
    )
    contrast(loaded, [(WITH, WITHOUT)], 0.5, greedy(tiny_folder))
    assert set(read) == {1}


def test_contrasted_texts_leave_out_special_tokens_as_sampled_ones_do(tiny_folder, monkeypatch):
    loaded = load.load(str(tiny_folder))
    drawn = iter([50, 1, 51, 2])
    monkeypatch.setattr(baselines, "nucleus_sampler", lambda *_: lambda logps: mx.array([next(drawn)]))
    [answer] = contrast(loaded, [(WITH, WITHOUT)], 0.5, greedy(tiny_folder))
    assert answer.tokens == [50, 1, 51, 2] and answer.finish == "stop"
    assert answer.text == loaded.tokenizer.decode([50, 51]).strip() and "<|" not in answer.text


NAMES = {"no context", "context-aware decoding 0.5", "context-aware decoding 1.5", "SFT on the chosen answers"}


def trainable(folder, tiny_folder, **evaluation):
    """A run whose pairs also train: half of the held-out grids turned into training grids, one more for validation."""
    settings = recipe(tiny_folder, **evaluation)
    make_run(folder, settings, spread=0.05)
    rows = read_jsonl(folder / "pairs.jsonl")
    splits = ["train"] * 4 + ["validation"] + ["heldout"] * 3
    write_jsonl(folder / "pairs.jsonl", [{**row, "split": split} for row, split in zip(rows, splits, strict=True)])
    return settings


def test_baselines_are_measured_when_asked_for_and_kept(tmp_path, tiny_folder, monkeypatch):
    settings = trainable(tmp_path, tiny_folder, answers=4)
    questions = recipe(tiny_folder, answers=4, baselines=True)
    monkeypatch.setattr(embedding, "installed", lambda: None)
    stage.run(tmp_path, settings, QUIET)
    first = read_json(tmp_path / "eval.json")
    on_top = {"baselines", "settings"}
    assert first["baselines"] is None
    baselines.prepare(tmp_path, questions, QUIET)
    scored = []
    original = requests.score_group
    monkeypatch.setattr(requests, "score_group", lambda *args: scored.append(1) or original(*args))
    stage.run(tmp_path, questions, QUIET)
    second = read_json(tmp_path / "eval.json")
    assert {k: v for k, v in first.items() if k not in on_top} == {k: v for k, v in second.items() if k not in on_top}
    assert set(second["baselines"]) == NAMES and len(scored) == 4 * 2
    for measures in second["baselines"].values():
        assert measures["tokens"]["before"] == first["fresh"]["metrics"]["tokens"]["before"]
        assert {"identified_by_base_2", "perplexity", "parroting", "self_bleu"} <= set(measures)
        tuned = first["fresh"]["metrics"]["tokens"]["after"]["value"]  # a relative change
        assert measures["tokens"]["to_tuned"]["value"] == pytest.approx(tuned / measures["tokens"]["after"]["value"] - 1)
        share, after = measures["parroting"], first["fresh"]["metrics"]["parroting"]["after"]["value"]
        assert share["to_tuned"]["value"] == pytest.approx(after - share["after"]["value"])
    stage.run(tmp_path, settings, QUIET)
    assert read_json(tmp_path / "eval.json") == second  # a later evaluation without them keeps them
    stage.run(tmp_path, recipe(tiny_folder, answers=4, examples=1, everyday=0), QUIET)  # nor does another setting lose them
    assert read_json(tmp_path / "eval.json")["baselines"] == second["baselines"]
    assert len(scored) == 8
    message = summary.evaluation(Run(tmp_path, questions)).splitlines()
    assert [line.split("  ")[1] for line in message[-6:]] == [
        "no context", "context in the prompt (base)", "context-aware decoding 0.5", "context-aware decoding 1.5",
        "SFT on the chosen answers", "trained",
    ]  # fmt: skip
    tokens = {line[2:34].strip(): float(line[34:].split()[2]) for line in message[-6:]}
    for name, measures in second["baselines"].items():
        assert tokens[name] == pytest.approx(measures["tokens"]["after"]["value"], abs=0.051)


def test_the_bar_moves_as_far_as_it_was_told(tmp_path, tiny_folder):
    """Requests of a pair file made elsewhere have no prompt without a context, so that only SFT is measured."""
    settings = trainable(tmp_path, tiny_folder, baselines=True)
    baselines.prepare(tmp_path, settings, QUIET)
    loaded = load.load(str(tiny_folder))
    adapters.load(loaded.model, tmp_path / "adapters")
    own = requests.groups_of(tmp_path, settings, PromptBuilder(loaded.tokenizer, settings.pairs))[:2]
    for name, groups, methods in (("own", own, 4), ("made elsewhere", [replace(g, plain=None) for g in own], 1)):
        bar, here = Steps(), bench(tmp_path, settings, loaded).keyed_by(name)
        answered = requests.answer(here, groups)
        measured = baselines.evaluate(replace(here, bar=bar), answered)
        assert len(measured) == methods and bar.done == baselines.bar_total(groups) == 2 * 4 * methods


def test_the_sft_adapters_are_those_of_a_run_with_that_objective(tmp_path, tiny_folder):
    """The pairs, steps, adapters and learning rate are the run's. Label smoothing and stop rules are not."""
    settings = trainable(tmp_path, tiny_folder, baselines=True)
    changed = {"epochs": 2.0, "learning_rate": 1e-3, "label_smoothing": 0.2, "max_kl": 1e-9, "checkpoint_every": 2}
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=changed)})
    baselines.prepare(tmp_path, settings, QUIET)
    plain = settings.training.model_copy(
        update={"objective": "sft", "label_smoothing": 0.0, "max_kl": None, "min_chosen_reward": None}
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "pairs.jsonl").write_bytes((tmp_path / "pairs.jsonl").read_bytes())
    summary = training.run(other, settings.model_copy(update={"training": plain}), QUIET)
    assert summary["steps"] == 8
    kept = tmp_path / "sft" / "adapters"
    for name in ("adapters.safetensors", "adapter_config.json"):
        assert (kept / name).read_bytes() == (other / "adapters" / name).read_bytes()
    # SFT raises the chosen answers' likelihood.
    rows = [row for row in read_jsonl(tmp_path / "sft" / "metrics.jsonl") if "nll" in row]
    assert np.mean([r["nll"] for r in rows[4:]]) < np.mean([r["nll"] for r in rows[:4]])


def test_sft_has_the_pairs_and_steps_of_every_round_that_counts(tmp_path, tiny_folder, monkeypatch):
    """Four pairs in the first round, three in the second; the adapters are the second's, then the first's."""
    run = tmp_path / "run"
    settings = trainable(run, tiny_folder, baselines=True)
    settings = settings.model_copy(update={"rounds": 2})
    rows = [row for row in read_jsonl(run / "pairs.jsonl") if row["split"] == "train"]
    write_jsonl(run / "pairs-2.jsonl", [{**row, "grid": 8 + row["grid"], "tokens": row["tokens"][::-1]} for row in rows[:3]])
    manifest = {"stages": {"training-2": {"summary": {"round": 2, "taken": True}}}}
    write_json(run / "manifest.json", manifest)
    shutil.copytree(run, tmp_path / "other")
    baselines.prepare(run, settings, QUIET)
    taken = [(row["round"], row["step"]) for row in read_jsonl(run / "sft" / "metrics.jsonl") if "nll" in row]
    assert taken == [(1, step) for step in range(1, 5)] + [(2, step) for step in range(1, 4)]
    (tmp_path / "other" / "whole").mkdir()
    for number in (1, 2):
        folder, plain = tmp_path / "other" / "whole", baselines.settings(settings, 2)
        start = rounds.begin(tmp_path / "other", folder, plain, number)
        training.fit(start, folder, plain, train.Watch(QUIET), f"adapters-{number}")
    of_round = [(tmp_path / f"other/whole/adapters-{n}/adapters.safetensors").read_bytes() for n in (1, 2)]
    assert (run / "sft/adapters/adapters.safetensors").read_bytes() == of_round[1] != of_round[0]
    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", None)
        baselines.prepare(run, settings, QUIET)  # finished: nothing is trained
    manifest["stages"]["training-2"]["summary"]["taken"] = False  # now the second round taught nothing
    write_json(run / "manifest.json", manifest)
    baselines.prepare(run, settings, QUIET)
    assert (run / "sft/adapters/adapters.safetensors").read_bytes() == of_round[0]


def test_sft_is_trained_once_and_continued_after_a_kill(tmp_path, tiny_folder, monkeypatch):
    settings = trainable(tmp_path / "run", tiny_folder, baselines=True)
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"checkpoint_every": 1})})
    trainable(tmp_path / "whole", tiny_folder)
    baselines.prepare(tmp_path / "whole", settings, QUIET)
    taken = []
    original = train.gradient_step

    def step(*args, **options):
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(1)
        return original(*args, **options)

    monkeypatch.setattr(train, "gradient_step", step)
    with pytest.raises(KeyboardInterrupt):
        baselines.prepare(tmp_path / "run", settings, QUIET)
    monkeypatch.setattr(train, "gradient_step", lambda *args, **options: taken.append(1) or original(*args, **options))
    baselines.prepare(tmp_path / "run", settings, QUIET)
    assert len(taken) == 4  # two before, two after; none of the first two again
    sides = [(tmp_path / run / "sft/adapters/adapters.safetensors").read_bytes() for run in ("run", "whole")]
    assert sides[0] == sides[1]
    monkeypatch.setattr(train, "gradient_step", None)
    baselines.prepare(tmp_path / "run", settings, QUIET)  # finished: nothing is trained
    faster = settings.model_copy(update={"training": settings.training.model_copy(update={"learning_rate": 1.0})})
    with pytest.raises(TypeError):
        baselines.prepare(tmp_path / "run", faster, QUIET)  # another recipe is trained anew


def test_the_sft_answers_are_sampled_from_the_sft_model(tmp_path, tiny_folder):
    """The journal holds them: the same as those of a model that has only these adapters."""
    settings = trainable(tmp_path, tiny_folder, answers=4, baselines=True)
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"learning_rate": 0.05})})
    baselines.prepare(tmp_path, settings, QUIET)
    stage.run(tmp_path, settings, QUIET)
    journal = {(r["phase"], r["chunk"]): r["results"] for r in read_jsonl(tmp_path / "eval-samples.jsonl")[1:]}
    loaded = load.load(str(tiny_folder))
    adapters.load(loaded.model, tmp_path / "sft" / "adapters")
    groups = requests.groups_of(tmp_path, settings, PromptBuilder(loaded.tokenizer, settings.pairs))
    prompts = [g.prompts[i] for g in groups for i in range(g.wanted)]
    expected = [asdict(answer) for answer in bench(tmp_path, settings, loaded).sample_now(prompts, "answers 0")]
    assert journal["baseline SFT on the chosen answers", 0] == expected
    assert expected != journal["sample-tuned", 0] and expected != journal["sample-base", 0]


def test_swapped_adapters_come_back_and_other_layouts_are_refused(tmp_path, tiny_folder):
    settings = trainable(tmp_path, tiny_folder, baselines=True)
    baselines.prepare(tmp_path, settings, QUIET)
    model = adapters.load(load.load(str(tiny_folder)).model, tmp_path / "adapters")
    before = {name: np.array(value) for name, value in adapters.weights(model).items()}
    with adapters.swapped(model, tmp_path / "sft" / "adapters"):
        assert any(not np.array_equal(before[name], np.array(value)) for name, value in adapters.weights(model).items())
    assert all(np.array_equal(before[name], np.array(value)) for name, value in adapters.weights(model).items())
    with pytest.raises(UserError, match="no adapters there"), adapters.swapped(model, tmp_path / "none"):
        pass
    larger = adapters.attach(load.load(str(tiny_folder)).model, settings.training.lora.model_copy(update={"rank": 3}), 0)
    model = load.load(str(tiny_folder)).model
    adapters.attach(model, settings.training.lora.model_copy(update={"rank": 3}), 0)
    adapters.save(model, tmp_path / "larger", larger)
    model = adapters.load(load.load(str(tiny_folder)).model, tmp_path / "adapters")
    with pytest.raises(UserError, match="another layout"), adapters.swapped(model, tmp_path / "larger"):
        pass


def test_the_run_layer_trains_sft_before_an_evaluation_with_baselines(tmp_path, tiny_folder, monkeypatch):
    order = []
    monkeypatch.setattr(baselines, "prepare", lambda *args: order.append("sft"))

    def evaluate(folder, *_):
        order.append("evaluation")
        write_json(folder / "eval.json", {})

    make_run(tmp_path, recipe(tiny_folder))
    monkeypatch.setattr(stage, "run", evaluate)
    for wanted in (False, True):
        run_stage(Run(tmp_path, recipe(tiny_folder, baselines=wanted)), "evaluation", QUIET)
    assert order == ["evaluation", "sft", "evaluation"]
    (tmp_path / "contexts.jsonl").unlink()  # nothing can be asked: nothing to compare SFT with
    run_stage(Run(tmp_path, recipe(tiny_folder, baselines=True)), "evaluation", QUIET)
    assert order[3:] == ["evaluation"]


def test_judges_and_baselines_without_requests_are_left_out_with_a_warning(tmp_path, tiny_folder):
    make_run(tmp_path, recipe(tiny_folder), spread=0.05)
    for name in ("contexts.jsonl", "prompts.jsonl"):
        (tmp_path / name).unlink()
    settings = recipe(tiny_folder, judge="base", baselines=True)
    notes = settings.sources.model_copy(update={"canaries": 0})
    for file, needed in ((None, "two held-out notes"), ("pairs.jsonl", "two rows with other prompts in one held-out grid")):
        printed = io.StringIO()
        values = settings.model_copy(update={"pairs": settings.pairs.model_copy(update={"file": file}), "sources": notes})
        stage.run(tmp_path, values, Reporter(quiet=True, stream=printed))
        output = printed.getvalue()
        assert output.startswith("warning: evaluation.judge and evaluation.baselines: left out") and needed in output
