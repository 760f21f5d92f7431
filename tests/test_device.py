"""On this machine's GPU: `pytest -m device`. All else of the suite stays on the CPU, also on a Mac (conftest).

These are the tests of the GPU's path without their stand-in, and what no stand-in has: MLX's limits, memory, the sampler's kernels.
"""

import math

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx import backend
from mipo_mlx.commands import self_test
from mipo_mlx.engine import sampling
from mipo_mlx.models import adapters
from mipo_mlx.recipe import Lora, Training
from mipo_mlx.training import memory_plan
from tests.engine.test_sampling import distribution
from tests.test_gpu_path import gradients_of, killed_and_whole, through_the_stages
from tests.training.test_memory_plan import measured_peak, middling

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("on_gpu")]


def test_the_gpu_computes_what_the_cpu_computes():
    differences = self_test.compare()
    print(f"{backend.device()}: {differences}")
    assert differences.agree and not backend.on_cpu()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_stages_run_and_the_first_loss_is_log_two(dtype, tmp_path, tokenizer_folder):
    rows, manifest = through_the_stages(dtype, tmp_path, tokenizer_folder)
    first = next(row for row in rows if "loss" in row)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert manifest["device"] == str(backend.device())


@pytest.mark.parametrize("dtype, least", [(mx.bfloat16, 0.99), (mx.float16, 0.999)])
def test_gradients_point_where_those_of_float32_point(dtype, least):
    assert min(gradients_of(dtype)) > least


def test_a_training_that_was_killed_ends_with_the_same_bits(tmp_path):
    killed_and_whole(tmp_path)


def test_the_nucleus_is_that_of_the_cpu():
    logprobs = distribution(20, 50_000, spread=4.0)
    values, ids = (np.array(x) for x in sampling._nucleus(logprobs, 0.9, 4096))
    expected, own = (np.array(x) for x in sampling._nucleus_on_cpu(logprobs, 0.9, 4096))
    for row in range(20):
        kept = set(ids[row][np.isfinite(values[row])].tolist())
        assert len(kept ^ set(own[row][np.isfinite(expected[row])].tolist())) <= 1  # rounding may move the last one


@pytest.mark.parametrize("shape", [(1, 257, 2, 64), (2, 65, 4, 32)])
def test_the_memory_plan_is_near_the_measured_peak(shape):
    model = middling(3)
    model.set_dtype(mx.bfloat16)
    adapters.attach(model, Lora(), 0)
    planned = memory_plan.predict(model, Training(), memory_plan.Shape(*shape), 0).peak_bytes
    assert planned == pytest.approx(measured_peak(model, memory_plan.Shape(*shape), False), rel=0.25)


def test_mlx_keeps_within_its_limits():
    kept = mx.set_memory_limit(8 << 30), mx.set_cache_limit(1 << 30)
    try:
        device = backend.device()
        assert device.kind in ("metal", "cuda") and device.memory > 1 << 30
        backend.set_memory_limits(reused=1 << 30, peak=1 << 28)
        for length in range(1000, 1040):
            mx.eval(mx.random.normal((length, 4096)) * 2)
        assert mx.get_cache_memory() <= max(backend.CACHE, 1 << 30) and mx.get_active_memory() < device.budget
    finally:
        mx.set_memory_limit(kept[0]), mx.set_cache_limit(kept[1])
