"""A GPU's path on the CPU: a 4-bit base in 16 bits through the stages, gradients, kill and resume, memory limits."""

import json
import math
import shutil
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import mipo_mlx
from mipo_mlx import backend
from mipo_mlx.engine import sampling
from mipo_mlx.engine.logprobs import batch_logprobs, token_logprobs
from mipo_mlx.engine.precision import compute_dtype
from mipo_mlx.errors import one_line
from mipo_mlx.export import fidelity
from mipo_mlx.files import read_json, read_jsonl
from mipo_mlx.models import adapters, load
from mipo_mlx.recipe import Lora, Training
from mipo_mlx.training import memory_plan, train
from mipo_mlx.training.step import batch_of, gradient_step
from tests.conftest import build_model, tiny_config
from tests.test_kill import RECIPE, write_notes
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


def test_a_variable_keeps_a_process_off_the_gpu(monkeypatch):
    chosen = []
    monkeypatch.setattr(mx, "set_default_device", chosen.append)
    for value in ("", "cpu"):
        monkeypatch.setenv("MIPO_DEVICE", value)
        backend.start()
    assert chosen == [mx.cpu]
    monkeypatch.setenv("MIPO_DEVICE", "gpu")
    with pytest.raises(backend.UnknownDevice) as error:
        backend.start()
    line, code = one_line(error.value)
    assert line.startswith("MIPO_DEVICE=gpu: expected cpu") and code == 2


def dtypes(model: nn.Module) -> set[mx.Dtype]:
    return {x.dtype for name, x in tree_flatten(model.parameters()) if "lora_" not in name}


def through_the_stages(dtype: str, folder, tokenizer_folder, *sets: str):
    """Sources, pairs and training on a tiny 4-bit base in `folder`; the rows of metrics.jsonl and the manifest."""
    base = folder / "base"
    if not base.exists():
        save(four_bits(getattr(mx, dtype), spread=1.0), base, tokenizer_folder, dtype)
        write_notes(folder / "notes")
        (folder / "r.yaml").write_text(RECIPE.format(model=base, notes=folder / "notes"))
    assert dtypes(load.load(str(base)).model) == {mx.uint32, getattr(mx, dtype)}
    run_folder = folder / "runs" / "-".join(["r", *sets]).replace("=", "-")
    mipo_mlx.run_stage(mipo_mlx.load_recipe(folder / "r.yaml", [*SHORT, *sets]), "training", run_folder)
    return read_jsonl(run_folder / "metrics.jsonl"), read_json(run_folder / "manifest.json")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_stages_run_on_a_base_that_keeps_its_four_bits(dtype, tmp_path, tokenizer_folder, gpu_path):
    rows, manifest = through_the_stages(dtype, tmp_path, tokenizer_folder)
    first = next(row for row in rows if "loss" in row)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)  # over eleven seeds, 3.3e-7 at most in bfloat16
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert manifest["device"].startswith("as on a GPU (metal")


def test_training_and_scoring_round_alike(gpu_path):
    """Else the first loss is not log 2. Scoring has batches of other shapes and another attention.

    A sum in another order may move one number of bfloat16, which a model of 32 numbers a token notices: in few of the trials.
    """
    apart = []
    for seed in range(12):
        model, rng = four_bits(mx.bfloat16, spread=1.0), np.random.default_rng(seed)
        pairs = make_pairs(rng.integers(2, 40, 3).tolist(), rng.integers(1, 12, (3, 2)).tolist())
        scored = token_logprobs(model, [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs], token_budget=64)
        adapters.attach(model, Lora(), seed)
        trained = np.array(batch_logprobs(model, batch_of(pairs, 0), gradient=True).sum(axis=-1))
        apart.append(np.abs(trained - [[some.sum() for some in row] for row in scored]).max())
    assert sorted(apart)[8] < 1e-5 and max(apart) < 0.1, apart


def gradients_of(dtype: mx.Dtype) -> list[float]:
    """Cosines of a step's gradient with that of float32 the plain way, without and with gradient checkpointing."""

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
    cosines = []
    for checkpoint in (False, True):
        step = gradient_step(model, pairs, Training(checkpoint_gradients=checkpoint), token_budget=150, pad_id=0)
        mine = mx.concatenate([x.reshape(-1) for _, x in tree_flatten(step.gradients)])
        cosine = (mine * wanted).sum() / mx.linalg.norm(mine) / mx.linalg.norm(wanted)
        cosines.append(cosine.item())
    return cosines


@pytest.mark.parametrize("dtype, least", [(mx.bfloat16, 0.99), (mx.float16, 0.999)])
def test_gradients_point_where_those_of_float32_point(dtype, least, gpu_path):
    assert min(gradients_of(dtype)) > least


def killed_and_whole(folder):
    """Train in bfloat16 once whole and once with a kill; both must end with the same bits."""
    pairs, settings = make_grids(four_bits(mx.bfloat16)), Training(learning_rate=1e-3, checkpoint_every=2, max_kl=None)

    def fresh():
        model = four_bits(mx.bfloat16)
        adapters.attach(model, Lora(rank=4), 0)
        return model

    whole, _ = run(folder / "whole", settings, fresh(), pairs, validation=[])
    with pytest.raises(Killed):
        run(folder / "killed", settings, fresh(), pairs, validation=[], watchers=[die_at(4)])
    again, _ = run(folder / "killed", settings, fresh(), pairs, validation=[])
    assert same(again, whole) and not same(again, fresh())


def test_a_training_in_bfloat16_that_was_killed_ends_with_the_same_bits(tmp_path, gpu_path):
    killed_and_whole(tmp_path)


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
NVIDIA = {"device_name": "NVIDIA H200", "total_memory": 150_000_000_000, "free_memory": 150_000_000_000}


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


def vm_stat(anonymous: int, wired: int, compressed: int = 0, purgeable: int = 0) -> str:
    """What macOS's program prints, in pages of 16 KB."""
    return (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:                               9721.\n"
        f"Pages active:                           120011.\nPages wired down:          {wired}.\nPages purgeable:    {purgeable}.\n"
        f'"Translation faults":                 219583212.\nAnonymous pages:      {anonymous}.\nFile-backed pages:       99999.\n'
        f"Pages stored in compressor:             777777.\nPages occupied by compressor:    {compressed}.\n"
    )


def test_what_all_programs_hold_on_a_mac_is_read_from_vm_stat():
    assert backend.held_on_macos(vm_stat(100, 30, 7, 20)) == (100 - 20 + 30 + 7) * 16384


@pytest.fixture
def others(monkeypatch):
    """Gives other programs so many bytes of a Mac's memory."""

    def hold(size: int) -> None:
        monkeypatch.setattr(backend, "_held_by_others", lambda: size)

    hold(0)
    return hold


@pytest.mark.parametrize("held, smaller, saving", [(1e9, False, False), (2.6e9, True, False), (4e9, True, True), (7e9, True, True)])
def test_an_eight_gigabyte_mac_with_a_base_of_one_and_a_half_billion_keeps_a_fifth_free(
    held, smaller, saving, limits, others, monkeypatch
):
    from mipo_mlx.commands import doctor

    monkeypatch.setattr(doctor, "BASES", {name: doctor.BASES[name] for name in ["Qwen2.5-1.5B"]})
    bounds = limits(MAC, "metal")
    others(int(held))
    device, whole = backend.device(), MAC["memory_size"]
    share = int(0.8 * device.memory)
    assert device.others == held and device.budget == max(share // 2, min(share, int(0.8 * whole) - int(held)))
    assert (device.budget < share) == smaller
    [fit] = doctor.fitting(device)
    assert fit.checkpoints == (saving and fit.fits) and fit.fits == (held < 7e9 or fit.peak <= share // 2)
    backend.set_memory_limits()
    assert bounds["set_memory_limit"] == device.budget
    if device.budget > share // 2:  # below, the system has to page others out
        assert fit.fits and held + fit.peak <= held + device.budget <= 0.8 * whole


def test_what_other_programs_hold_leaves_out_this_one(monkeypatch):
    printed = vm_stat(200_000, 50_000)
    monkeypatch.setattr(backend.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(backend.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=printed))
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1_000_000_000)
    monkeypatch.setattr(mx, "get_cache_memory", lambda: 500_000_000)
    assert backend._held_by_others() == 250_000 * 16384 - 1_500_000_000
    printed = "nothing that is known"
    assert backend._held_by_others() == 0


def test_a_cpus_budget_does_not_depend_on_other_programs_and_a_crowded_one_is_named():
    plans = [memory_plan.Plan(100, peak, 10, True) for peak in (3_000_000_000, 5_000_000_000)]
    empty, full = (backend.Device("cpu", "a machine", 8 << 30, "", 8 << 30, held) for held in (0, 4 << 30))
    assert empty.budget == full.budget
    assert [memory_plan.crowded(plan, empty) for plan in plans] == [None, None]
    fine, crowded = (memory_plan.crowded(plan, full) for plan in plans)
    assert fine is None and "hold 4.3 GB, leave 4.3 GB; close some of them" in crowded


@pytest.mark.parametrize("limit, expected", [("max", 5), ("4096", 0)])
def test_what_programs_outside_of_a_container_hold_does_not_count(limit, expected, others, monkeypatch):
    others(5)
    real = backend.Path.exists
    monkeypatch.setattr(backend.Path, "exists", lambda path: str(path) == "/sys/fs/cgroup/memory.max" or real(path))
    monkeypatch.setattr(backend.Path, "read_text", lambda path: limit)
    assert backend.device().others == expected
    assert (backend.device().whole == 4096) == (limit == "4096")


@pytest.mark.parametrize("gigabytes, expected", [(2, int(0.8 * (2 << 30)) // 8), (64, 1 << 30)])
def test_keys_and_values_that_are_kept_are_scaled_to_the_machine(gigabytes, expected, monkeypatch):
    monkeypatch.setattr(backend, "device", lambda: backend.Device("metal", "a Mac", gigabytes << 30, "device"))
    prefixes = sampling.Prefixes(build_model(tiny_config()), [[1, 2]], [("a",)])
    assert prefixes.kept_bytes == expected == backend.cache_bytes(sampling.KEPT_BYTES)


def test_a_macs_limits_leave_a_fifth_to_other_programs(limits, others):
    bounds = limits(MAC, "metal")
    device = backend.device()
    assert (device.kind, device.memory) == ("metal", MAC["max_recommended_working_set_size"])
    backend.set_memory_limits(1_500_000_000, 4_400_000_000)  # of 4.58 GB: the cache may not take what the budget does not have
    assert bounds["set_cache_limit"] == backend.CACHE and bounds["set_memory_limit"] == device.budget == int(0.8 * device.memory)
    assert bounds["set_wired_limit"] == device.memory
    backend.set_memory_limits(1_500_000_000, 4_000_000_000)
    assert bounds["set_cache_limit"] == device.budget - 4_000_000_000
    backend.set_memory_limits(1_500_000_000, 2_000_000_000)
    assert bounds["set_cache_limit"] == 1_500_000_000


def test_an_nvidia_gpu_has_its_own_memory_and_no_wired_limit(limits):
    bounds = limits(NVIDIA, "cuda")
    assert (backend.device().kind, backend.device().memory) == ("cuda", NVIDIA["total_memory"])
    backend.set_memory_limits(1 << 30, 10 << 30)
    assert bounds == {"set_cache_limit": 1 << 30, "set_memory_limit": backend.device().budget}
    assert backend.device().budget == int(0.8 * NVIDIA["total_memory"])
    limits({**NVIDIA, "free_memory": 90_000_000_000}, "cuda")
    taken = 60_000_000_000 - mx.get_active_memory() - mx.get_cache_memory()  # what this process holds is its own
    assert backend.device().budget == pytest.approx(int(0.8 * NVIDIA["total_memory"]) - taken, abs=1 << 20)


def test_every_load_settles_before_the_first_array(tiny_folder, monkeypatch):
    order, real = [], load._load_folder
    monkeypatch.setattr(backend, "set_memory_limits", lambda: order.append("limits"))
    monkeypatch.setattr(load, "_load_folder", lambda path: order.append("weights") or real(path))
    load.load(str(tiny_folder))
    assert order == ["limits", "weights"]


def test_training_settles_before_its_first_step(tmp_path, tokenizer_folder, limits, others, monkeypatch):
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


def test_an_eight_gigabyte_mac_trains_a_base_of_one_and_a_half_billion(limits, others):
    from mipo_mlx.commands import doctor

    limits(MAC, "metal")
    fits = {fit.name: fit for fit in doctor.fitting(backend.device())}
    assert fits["Qwen2.5-1.5B"].fits and fits["Qwen2.5-1.5B"].peak <= backend.device().budget
    assert not fits["Qwen2.5-7B"].fits
