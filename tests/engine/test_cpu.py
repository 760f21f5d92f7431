"""Block-wise attention and vectorised exponentials against MLX's own."""

import math
import re
import sys

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models import activations

from mipo_mlx import backend
from mipo_mlx.engine import cpu
from mipo_mlx.engine.cpu import attention
from mipo_mlx.engine.prefix import text_model
from tests.conftest import build_model, tiny_config


def random_mask(kind: str, batch: int, heads: int, length: int, seen: int):
    if kind == "bool":
        return (mx.random.uniform(shape=(batch, 1, length, seen)) > 0.3) | (mx.arange(seen) == seen - 1)
    if kind == "bool per head":
        return (mx.random.uniform(shape=(batch, heads, length, seen)) > 0.3) | (mx.arange(seen) == seen - 1)
    if kind == "bool matrix":
        return mx.tril(mx.ones((length, seen), mx.bool_), seen - length)
    if kind == "additive":
        return mx.where(mx.arange(seen) % 7 == 1, -mx.inf, mx.random.normal((1, 1, length, seen)))
    return None if kind == "none" else kind


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "bool per head", "bool matrix", "additive"])
@pytest.mark.parametrize("heads, key_heads, length, seen", [(4, 2, 37, 50), (9, 3, 300, 300), (4, 4, 129, 260), (2, 1, 1, 40)])
def test_attention_and_its_gradient_equal_the_official_ones(kind, heads, key_heads, length, seen):
    mx.random.seed(0)
    q, by = (mx.random.normal((2, heads, length, 16)) for _ in range(2))
    k, v = (mx.random.normal((2, key_heads, seen, 16)) for _ in range(2))
    mask = random_mask(kind, 2, heads, length, seen)
    (official,), expected = mx.vjp(
        lambda q, k, v: mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=mask), [q, k, v], [by]
    )
    (ours,), result = mx.vjp(lambda q, k, v: attention(q, k, v, scale=0.3, mask=mask), [q, k, v], [by])
    for a, b in zip([ours, *result], [official, *expected], strict=True):
        assert mx.abs(a - b).max().item() < 2e-5 * max(1.0, mx.abs(b).max().item())


def test_sixteen_bits_and_sinks_go_to_the_official_function():
    q = mx.random.normal((1, 2, 5, 16)).astype(mx.bfloat16)
    assert attention(q, q, q, scale=1.0).dtype == mx.bfloat16
    x, sinks = mx.random.normal((1, 2, 5, 16)), mx.zeros((2,))
    official = mx.fast.scaled_dot_product_attention(x, x, x, scale=1.0, sinks=sinks)
    assert mx.allclose(attention(x, x, x, scale=1.0, sinks=sinks), official)


def test_exponentials_are_right_to_float32_rounding():
    x = mx.linspace(-87, 87, 100_001)
    assert (mx.abs(cpu.exp_minus(x, mx.array(0.0)) - mx.exp(x)) / mx.exp(x)).max().item() < 1e-6
    assert cpu.exp_minus(mx.array([-mx.inf, -1e30, -1e5, -88.5]), mx.array(0.0)).max().item() < 1e-37


@pytest.mark.parametrize("shape", [(3, 50_000), (2, 5, 63), (7,)])
def test_logsumexp_is_the_official_one(shape):
    x = 30 * mx.random.normal(shape, key=mx.random.key(3))
    x[..., 2] = -mx.inf
    for keepdims in (True, False):
        ours, official = cpu.logsumexp(x, axis=-1, keepdims=keepdims), mx.logsumexp(x, axis=-1, keepdims=keepdims)
        assert ours.shape == official.shape and mx.allclose(ours, official, rtol=1e-6, atol=1e-5)
    assert mx.allclose(cpu.logsumexp(x, axis=0), mx.logsumexp(x, axis=0)) and cpu.logsumexp(x).shape == ()


@pytest.mark.parametrize(
    "ours, official, inputs",
    [(cpu.silu, nn.silu, 1), (cpu.gelu_approx, nn.gelu_approx, 1), (cpu.swiglu, activations.swiglu, 2)],
)
def test_activations_and_their_gradients_equal_the_official_ones(ours, official, inputs):
    mx.random.seed(1)
    args, by = [8 * mx.random.normal((40, 50)) for _ in range(inputs)], mx.random.normal((40, 50))
    args[0][0, :4] = mx.array([-200.0, -100.0, 100.0, 200.0])
    (a,), grads = mx.vjp(ours, args, [by])
    (b,), expected = mx.vjp(official, args, [by])
    for x, y in zip([a, *grads], [b, *expected], strict=True):
        assert mx.abs(x - y).max().item() < 1e-5 * max(1.0, mx.abs(y).max().item())
    assert ours(*(x.astype(mx.float16) for x in args)).dtype == mx.float16


def test_without_a_compiler_everything_is_the_same_only_slower(monkeypatch):
    x, by = 8 * mx.random.normal((40, 50)), mx.random.normal((40, 50))
    _, (fused,) = mx.vjp(cpu.silu, [x], [by])
    monkeypatch.setattr(cpu, "_compiles", lambda: False)
    _, (plain,) = mx.vjp(cpu.silu, [x], [by])
    assert mx.allclose(fused, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not (backend.on_cpu() and cpu._compiles()), reason="nothing is fused without a compiler")
def test_loops_are_fused_where_gradients_are_traced(tmp_path):
    """MLX leaves a compiled function unfused there, which made the steps of training a third longer."""
    model = text_model(build_model(tiny_config()))
    tokens = mx.arange(12)[None]

    def loss(embedded: mx.array) -> mx.array:
        with cpu.swapped(model, gradient=True):
            return model.model(tokens, input_embeddings=embedded).sum()

    mx.export_to_dot(str(tmp_path / "graph.dot"), mx.grad(loss)(mx.random.normal((1, 12, model.args.hidden_size))))
    graph = (tmp_path / "graph.dot").read_text()
    assert len(re.findall('"Compiled\\w*LeftShift"', graph)) == 4 * len(model.layers)  # attention and SwiGLU, there and back
    assert '"LeftShift"' not in graph


QWEN35 = tiny_config(
    "qwen3_5_text", head_dim=16, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=32,
    linear_value_head_dim=32, linear_conv_kernel_dim=4, full_attention_interval=2,
)  # fmt: skip


@pytest.mark.skipif(not backend.on_cpu(), reason="nothing is swapped on a GPU")
@pytest.mark.parametrize(
    "config, owner",
    [(tiny_config(), "llama"), (tiny_config("smollm3"), "llama"), ({"model_type": "qwen3_5", "text_config": QWEN35}, "qwen3_next")],
)
def test_swapping_reaches_a_model_and_ends(config, owner):
    """owner: the mlx-lm module where the model's feed-forward layers stand, which for many models is another one's."""
    model = text_model(build_model(config))
    before = mx.fast.scaled_dot_product_attention, nn.silu, nn.gelu_approx
    code = sys.modules[f"mlx_lm.models.{owner}"]
    with cpu.swapped(model):
        seen = [mx.fast.scaled_dot_product_attention, nn.silu, code.swiglu]
    assert seen == [attention, cpu.silu, cpu.swiglu]
    assert before == (mx.fast.scaled_dot_product_attention, nn.silu, nn.gelu_approx)
    assert code.swiglu is activations.swiglu


def test_the_exact_gelu_is_that_of_the_error_function():
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -1e4, 1e4]])
    true = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])
    result = np.array(cpu.gelu(mx.array(x, dtype=mx.float32)), np.float64)
    assert np.abs(result - true).max() < 1e-6 and np.all(np.isfinite(result))
