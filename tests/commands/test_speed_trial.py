"""The short trial behind a GPU's time estimates: what it measures grows with the base, and a dry run multiplies by it."""

import pytest

from mipo_mlx import backend, recipe_loading
from mipo_mlx.commands import dry_run, speed_trial
from tests.commands.test_dry_run import planned
from tests.conftest import tiny_config
from tests.export.helpers import MODELS
from tests.test_gpu_path import SIZES

RECIPE = recipe_loading.parse("model: x\nsources: {notes: n}\n", overrides=["pairs.batch=2"])
CONFIG = tiny_config(**{**SIZES, "num_hidden_layers": 9}, quantization={"group_size": 32, "bits": 4}, torch_dtype="bfloat16")


def test_a_layer_is_told_from_the_head(monkeypatch):
    seen = []
    taken = {1: (1.0, 2.0, 5.0), 3: (2.0, 2.0, 4.9)}  # the last two: noise, where layers take no time at all
    monkeypatch.setattr(speed_trial, "_trial", lambda config, recipe: seen.append(config) or taken[config["num_hidden_layers"]])
    each = speed_trial.seconds({**CONFIG, "layer_types": ["a", "b", *"cdefghi"], "eos_token_id": [1, 2]}, RECIPE)
    assert each == speed_trial.Seconds(1.0 + 8 * 0.5, 2.0, 5.0)
    assert [config["layer_types"] for config in seen] == [["a"], ["a", "b", "c"]] and seen[0]["eos_token_id"] == [1, 2]


@pytest.fixture
def brief(gpu_path, monkeypatch):
    for name, value in (("PROMPT", 8), ("ANSWER", 3), ("STEPS", 2), ("PAIRS", 2), ("TRIES", 1), ("MORE", 1)):
        monkeypatch.setattr(speed_trial, name, value)


def test_it_runs_with_four_bits_and_each_part_takes_time(brief):
    each = speed_trial.seconds(CONFIG, RECIPE)
    assert min(each.sampled, each.scored, each.trained) > 0


@pytest.mark.parametrize("name, outer, turn", [("qwen3.5", "qwen3_5", 3), ("ministral3", "mistral3", 1), ("lfm2", None, 2)])
def test_layers_of_several_kinds_and_a_model_within_another_are_tried(name, outer, turn, brief, monkeypatch):
    inner, seen, trial = MODELS[name][0], [], speed_trial._trial
    config = {"model_type": outer, "text_config": {**inner, "num_hidden_layers": 9}} if outer else {**inner, "num_hidden_layers": 9}

    def noted(config, recipe):
        seen.append(config.get("text_config", config)["num_hidden_layers"])
        return trial(config, recipe) if len(seen) == 1 else (9.0, 9.0, 9.0)  # the shallow one is the one that lacks a kind

    monkeypatch.setattr(speed_trial, "_trial", noted)
    each = speed_trial.seconds({**config, "torch_dtype": "float32"}, RECIPE)
    assert min(each.sampled, each.scored, each.trained) > 0 and seen == [turn, 2 * turn]


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_gpus_plan_multiplies_by_the_trial_and_a_cpus_does_not(on_cpu, tiny_folder, monkeypatch):
    monkeypatch.setattr(backend, "on_cpu", lambda: on_cpu)
    monkeypatch.setattr(backend, "sgemm_rate", lambda: 1e12)
    work, recipe = planned(), RECIPE.model_copy(update={"model": str(tiny_folder)})
    rough = dry_run.times(work, 1000, 1e12)
    monkeypatch.setattr(speed_trial, "seconds", lambda *_: speed_trial.Seconds(0.5, 0.25, 2.0))
    times = dry_run.measured(work, 1000, recipe)
    assert times == (rough if on_cpu else dry_run.Times(work.sampled * 0.5, work.scored * 0.25, work.trained * 2.0))

    def broken(*_):
        raise RuntimeError("[malloc] Unable to allocate")

    monkeypatch.setattr(speed_trial, "seconds", broken)
    assert dry_run.measured(work, 1000, recipe) == rough
