"""A GPU's path on the CPU: a 4-bit base in 16 bits through the stages, gradients, kill and resume, memory limits."""

import json
import math
import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import mipo_mlx
from mipo_mlx import backend
from mipo_mlx.engine.precision import compute_dtype
from mipo_mlx.export import fidelity
from mipo_mlx.files import read_json, read_jsonl
from mipo_mlx.models import adapters, load
from mipo_mlx.recipe import Lora, Training
from mipo_mlx.training import memory_plan, train
from mipo_mlx.training.step import gradient_step
from tests.conftest import build_model, tiny_config
from tests.test_kill import NOTES, RECIPE
from tests.training.test_exactness import make_pairs, plain_step, with_own_reference
from tests.training.test_train import QUIET, Killed, die_at, run, same
from tests.training.test_train import make_pairs as make_grids

SIZES = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 8, "num_hidden_layers": 2}  # multiples of a group of 32
DTYPES = ["bfloat16", "float16"]
# A CPU computes 4-bit products in 16 bits at a thousandth of its speed.
SHORT = ["pairs.grids=2", "pairs.validation_grids=1", "pairs.heldout_grids=1", "pairs.contexts_per_grid=2", "pairs.max_tokens=4"]
SHORT += ["training.epochs=1.0", "sources.context_tokens=32"]


def four_bits(dtype: mx.Dtype, spread: float = 1.5) -> nn.Module:
    """A tiny model. `spread` widens its weights: from 3 on, it is far more sensitive to rounding than a real model is."""
    model = build_model(tiny_config(**SIZES), spread=spread)
    model.set_dtype(dtype)
    nn.quantize(model, group_size=32, bits=4)
    model.eval()
    return model


def save(model: nn.Module, folder, tokenizer_folder, dtype: str):
    from mlx_lm.utils import save_model

    shutil.copytree(tokenizer_folder, folder)
    save_model(folder, model)
    config = {**tiny_config(**SIZES), "torch_dtype": dtype, "quantization": {"group_size": 32, "bits": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def dtypes(model: nn.Module) -> set[mx.Dtype]:
    return {x.dtype for name, x in tree_flatten(model.parameters()) if "lora_" not in name}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_stages_run_on_a_base_that_keeps_its_four_bits(dtype, tmp_path, tokenizer_folder, gpu_path):
    base = save(four_bits(getattr(mx, dtype), spread=1.0), tmp_path / "base", tokenizer_folder, dtype)
    assert dtypes(load.load(str(base)).model) == {mx.uint32, getattr(mx, dtype)}
    (tmp_path / "notes").mkdir()
    for name, text in NOTES:
        (tmp_path / "notes" / f"{name}.md").write_text(f"# {name}\n\n{text}\n")
    (tmp_path / "r.yaml").write_text(RECIPE.format(model=base, notes=tmp_path / "notes"))
    recipe = mipo_mlx.load_recipe(tmp_path / "r.yaml", SHORT)
    folder = tmp_path / "runs" / "r"
    mipo_mlx.run_stage(recipe, "training", folder)
    rows = read_jsonl(folder / "metrics.jsonl")
    first = next(row for row in rows if "loss" in row)
    # The reference comes from sampling and the loss from training, which round apart: in bfloat16 by up to 1.8e-3 over 12 seeds.
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3 if dtype == "float16" else 3e-3)
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert read_json(folder / "manifest.json")["device"].startswith("as on a GPU (metal")


@pytest.mark.parametrize("dtype, least", [(mx.bfloat16, 0.99), (mx.float16, 0.999)])
def test_gradients_point_where_those_of_float32_point(dtype, least, gpu_path):
    def gradient(model, checkpoint=False):
        adapters.attach(model, Lora(rank=4, scale=2.0), 0)
        for _, module in model.named_modules():
            if "lora_b" in module:
                module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape)
        return model

    exact, model = gradient(four_bits(dtype)), gradient(four_bits(dtype))
    exact.update(tree_map(lambda x: x.astype(mx.float32) if x.dtype == dtype else x, exact.parameters()))
    pairs = with_own_reference(exact, make_pairs([9, 30, 1], [[5, 12], [17, 3], [8, 8]]), np.random.default_rng(1))
    _, wanted = plain_step(exact, pairs, Training())
    for checkpoint in (False, True):
        step = gradient_step(model, pairs, Training(checkpoint_gradients=checkpoint), token_budget=150, pad_id=0)
        mine = mx.concatenate([x.reshape(-1) for _, x in tree_flatten(step.gradients)])
        cosine = (mine * wanted).sum() / mx.linalg.norm(mine) / mx.linalg.norm(wanted)
        assert cosine.item() > least


def test_a_training_in_bfloat16_that_was_killed_ends_with_the_same_bits(tmp_path, gpu_path):
    pairs, settings = make_grids(four_bits(mx.bfloat16)), Training(learning_rate=1e-3, checkpoint_every=2, max_kl=None)

    def fresh():
        model = four_bits(mx.bfloat16)
        adapters.attach(model, Lora(rank=4), 0)
        return model

    whole, _ = run(tmp_path / "whole", settings, fresh(), pairs, validation=[])
    with pytest.raises(Killed):
        run(tmp_path / "killed", settings, fresh(), pairs, validation=[], watchers=[die_at(4)])
    again, _ = run(tmp_path / "killed", settings, fresh(), pairs, validation=[])
    assert same(again, whole) and not same(again, fresh())


def large_values(dtype: mx.Dtype, top: float) -> nn.Module:
    """A model whose hidden values reach about `top`: one layer writes them into the residual stream."""
    model = build_model(tiny_config(**SIZES))
    first = model.model.layers[0]
    factor = top / mx.abs(first(model.model.embed_tokens(mx.array([[1, 300, 5]])))).max()
    for part in (first.mlp.up_proj, first.mlp.down_proj):  # float16 holds both, where it cannot hold their product
        part.weight = part.weight * mx.sqrt(factor)
    model.set_dtype(dtype)
    nn.quantize(model, group_size=32, bits=4)
    return model


@pytest.mark.parametrize(
    "top, dtype, kept",
    [(10.0, "float16", True), (45_000.0, "float16", False), (1e6, "float16", False), (45_000.0, "bfloat16", True)],
)
def test_a_base_near_the_range_of_float16_computes_in_bfloat16(top, dtype, kept, tmp_path, tokenizer_folder, gpu_path):
    base = save(large_values(getattr(mx, dtype), top), tmp_path / "base", tokenizer_folder, dtype)
    model = load.load(str(base)).model
    assert compute_dtype(model) == (getattr(mx, dtype) if kept else mx.bfloat16)
    assert dtypes(model) == {mx.uint32, compute_dtype(model)}
    assert mx.isfinite(model(mx.array([[1, 300, 5]]))).all()


def test_fidelity_compares_in_float32(tmp_path, tokenizer_folder, gpu_path, monkeypatch):
    base = save(four_bits(mx.bfloat16), tmp_path / "base", tokenizer_folder, "bfloat16")
    loaded = load.load(str(base))
    adapters.save(loaded.model, tmp_path / "adapters", adapters.attach(loaded.model, Lora(rank=2), 0))
    used, real = [], fidelity.logprobs
    monkeypatch.setattr(fidelity, "logprobs", lambda model, *rest: used.append(compute_dtype(model)) or real(model, *rest))
    reference = fidelity.reference(str(base), tmp_path / "adapters", [([1, 300, 5, 9], [1, 2])])
    figures = fidelity.compare(reference, base)
    assert set(used) == {mx.float32} and len(used) == 3
    assert figures.kl == pytest.approx(0, abs=1e-6)  # fresh adapters change nothing


MAC = {"device_name": "Apple M2", "max_recommended_working_set_size": 5_726_623_061, "memory_size": 8 << 30}
NVIDIA = {"device_name": "NVIDIA H200", "total_memory": 150_000_000_000}


@pytest.fixture
def limits(monkeypatch):
    """What MLX is to keep within, by the name of the function; a machine of `info` is put under the code by calling it."""
    bounds: dict[str, int] = {}

    def machine(info: dict, kind: str):
        monkeypatch.setattr(backend, "on_cpu", lambda: False)
        monkeypatch.setattr(mx, "device_info", lambda: info)
        monkeypatch.setattr(mx.metal, "is_available", lambda: kind == "metal")
        for name in ("set_cache_limit", "set_memory_limit", "set_wired_limit"):
            monkeypatch.setattr(mx, name, lambda size, name=name: bounds.__setitem__(name, size))
        return bounds

    return machine


def test_a_macs_limits_leave_a_fifth_to_other_programs(limits):
    bounds = limits(MAC, "metal")
    device = backend.device()
    assert (device.kind, device.memory) == ("metal", MAC["max_recommended_working_set_size"])
    backend.settle(1_500_000_000, 4_400_000_000)  # of 4.58 GB: the cache may not take what the budget does not have
    assert bounds["set_cache_limit"] == backend.CACHE and bounds["set_memory_limit"] == device.budget == int(0.8 * device.memory)
    assert bounds["set_wired_limit"] == device.memory
    backend.settle(1_500_000_000, 4_000_000_000)
    assert bounds["set_cache_limit"] == device.budget - 4_000_000_000
    backend.settle(1_500_000_000, 2_000_000_000)
    assert bounds["set_cache_limit"] == 1_500_000_000


def test_an_nvidia_gpu_has_its_own_memory_and_no_wired_limit(limits):
    bounds = limits(NVIDIA, "cuda")
    assert (backend.device().kind, backend.device().memory) == ("cuda", NVIDIA["total_memory"])
    backend.settle(1 << 30, 10 << 30)
    assert bounds == {"set_cache_limit": 1 << 30, "set_memory_limit": backend.device().budget}


def test_training_settles_before_its_first_step(tmp_path, tokenizer_folder, limits, monkeypatch):
    base = save(four_bits(mx.bfloat16), tmp_path / "base", tokenizer_folder, "bfloat16")
    bounds, seen = limits(MAC, "metal"), []
    monkeypatch.setattr(train, "train", lambda model, job, watch: seen.append((dict(bounds), job.budget)))
    monkeypatch.setattr(backend, "CACHE", 1)
    (tmp_path / "r.yaml").write_text(RECIPE.format(model=base, notes=tmp_path))
    pairs = make_grids(four_bits(mx.bfloat16), grids=1)
    recipe = mipo_mlx.load_recipe(tmp_path / "r.yaml")
    train.fit(train.begin(pairs, recipe), tmp_path, recipe, train.Watch(QUIET))
    ((at_start, budget),) = seen
    assert at_start["set_memory_limit"] == backend.device().budget
    assert at_start["set_cache_limit"] > 1  # what a step takes again; the settling of every load keeps CACHE alone
    assert budget <= memory_plan.MOST_TOKENS[False]


def test_an_eight_gigabyte_mac_trains_a_base_of_one_and_a_half_billion(limits):
    from mipo_mlx.commands import doctor

    limits(MAC, "metal")
    fits = {fit.name: fit for fit in doctor.fitting(backend.device())}
    assert fits["Qwen2.5-1.5B"].fits and fits["Qwen2.5-1.5B"].peak <= backend.device().budget
    assert not fits["Qwen2.5-7B"].fits
