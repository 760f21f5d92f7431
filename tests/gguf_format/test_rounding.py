"""Rounding on the base's levels: exact where nothing was trained, right on average where something was, the same bytes twice."""

import gguf
import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.gguf_format.rounding import encode_on, of_affine
from mipo_mlx.gguf_format.types import encode


@pytest.fixture(scope="module", params=[32, 64])
def base(request):
    """(levels, base values) of a random 4-bit weight with float16 scales."""
    weight = mx.array(np.random.default_rng(1).normal(size=(64, 1024)).astype(np.float32))
    packed, scales, biases = mx.quantize(weight, group_size=request.param, bits=4)
    scales, biases = (x.astype(mx.float16) for x in (scales, biases))
    wide = [x.astype(mx.float32) for x in (scales, biases)]
    values = np.array(mx.dequantize(packed, *wide, group_size=request.param, bits=4))
    return of_affine(scales, biases, 4, request.param), values


def decoded(data: np.ndarray, kind: str) -> np.ndarray:
    return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_1"])
def test_untrained_weights_are_exact(base, kind):
    levels, values = base
    assert np.array_equal(decoded(encode_on(levels, values, kind, "w"), kind), values)


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_1"])
def test_a_small_change_survives_on_average(base, kind):
    levels, values = base
    change = 0.05 * np.repeat(levels.scale, 32, axis=-1)  # a twentieth of a step, everywhere
    inside = (values - np.repeat(levels.bias, 32, axis=-1)) / np.repeat(levels.scale, 32, axis=-1) < 14.5

    def kept(data: np.ndarray) -> float:
        return float(((decoded(data, kind) - values) / change)[inside].mean())

    assert kept(encode_on(levels, values + change, kind, "w")) == pytest.approx(1.0, abs=0.1)


def test_rounding_to_the_nearest_level_would_lose_it(base):
    """The control: what chance keeps, nearest rounding on the same levels would not; and levels fitted anew are far noisier."""
    levels, values = base
    step, bias = (np.repeat(x, 32, axis=-1) for x in (levels.scale, levels.bias))
    nearest = np.round((values + 0.05 * step - bias) / step) * step + bias
    assert np.abs(nearest - values).max() < 1e-3
    ours = decoded(encode_on(levels, values + 0.01 * step, "Q5_1", "w"), "Q5_1")
    anew = decoded(encode(values + 0.01 * step, "Q5_1"), "Q5_1")
    wanted = values + 0.01 * step
    assert np.mean((ours - wanted) ** 2) < 0.3 * np.mean((anew - wanted) ** 2)


def test_the_same_name_gives_the_same_bytes(base):
    levels, values = base
    moved = values + 0.01
    assert np.array_equal(encode_on(levels, moved, "Q4_1", "a"), encode_on(levels, moved, "Q4_1", "a"))
    assert not np.array_equal(encode_on(levels, moved, "Q4_1", "a"), encode_on(levels, moved, "Q4_1", "b"))


def test_types_without_the_levels_are_left_to_others(base):
    levels, values = base
    assert encode_on(levels, values, "Q8_0", "w") is None and encode_on(levels, values, "Q4_0", "w") is None


def test_groups_and_scales_that_gguf_cannot_hold():
    packed, scales, biases = mx.quantize(mx.random.normal((8, 64)), group_size=32, bits=4)
    assert of_affine(scales, biases, 4, 32) is None  # float32 scales
    assert of_affine(scales.astype(mx.float16), biases.astype(mx.float16), 4, 16) is None
