"""16 bits on a GPU: scores of attention in training, the range of float16, and sums that are no numbers."""

import mlx.core as mx
import numpy as np
import pytest

from mipo_mlx.engine import cpu, logprobs, precision
from mipo_mlx.errors import Failure
from mipo_mlx.models import adapters
from mipo_mlx.recipe import Lora
from tests.conftest import build_model, tiny_config

BATCH = ([[5, 9, 20, 31], [7, 300, 8]], [[[11, 12, 13], [14]], [[15, 16], [17, 18, 19]]])


def adapted():
    model = build_model(tiny_config())
    model.set_dtype(mx.bfloat16)
    adapters.attach(model, Lora(rank=4), 0)
    return model


@pytest.mark.parametrize("checkpoint", [False, True])
def test_scores_are_float32_while_gradients_are_traced(checkpoint, gpu_path, monkeypatch):
    """The official attention keeps the scores in its inputs' dtype, so its inputs tell."""
    inputs, real, before = [], cpu._official, mx.fast.scaled_dot_product_attention
    monkeypatch.setattr(
        cpu, "_official", lambda q, k, v, **rest: inputs.append({q.dtype, k.dtype, v.dtype}) or real(q, k, v, **rest)
    )
    model = adapted()
    batch = logprobs._padded(*BATCH)

    def loss(parameters):
        model.update(parameters)
        return logprobs.batch_logprobs(model, batch, checkpoint=checkpoint).sum()

    start = model.trainable_parameters()
    mx.eval(mx.grad(loss)(start))
    model.update(start)
    assert len(inputs) >= 4 and all(kinds == {mx.float32} for kinds in inputs)  # two layers, prompts and answers
    assert mx.fast.scaled_dot_product_attention is before
    inputs.clear()
    logprobs.token_logprobs(model, *BATCH)
    assert all(kinds == {mx.float32} for kinds in inputs)  # these heads have no kernel, which has float32 by itself


@pytest.mark.parametrize(
    "head_dim, heads, tokens, wide",
    [
        (256, 4, 20, True), (48, 4, 20, True), (64, 4, 20, False), (128, 4, 20, False),
        (256, 4, 8, False), (64, 12, 8, True), (64, 12, 5, False), (48, 4, 1, False),
    ],
)  # fmt: skip
def test_prompts_without_a_kernel_of_mlx_have_scores_in_float32(head_dim, heads, tokens, wide, gpu_path, monkeypatch):
    model = build_model(tiny_config(head_dim=head_dim, num_attention_heads=heads))
    model.set_dtype(mx.bfloat16)
    inputs, real = [], cpu._official
    monkeypatch.setattr(cpu, "_official", lambda *qkv, **rest: inputs.extend(x.dtype for x in qkv) or real(*qkv, **rest))
    logprobs.token_logprobs(model, [list(range(3, 4 + tokens))], [[[5]]])  # the last token goes with the answer
    assert inputs == [mx.float32] * (2 * 3 if wide else 0)  # queries, keys and values of each layer


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("mask", [None, "causal", "array"])
def test_wide_attention_has_smaller_errors_forward_and_backward(dtype, mask):
    mx.random.seed(0)
    q, k, v = (2 * mx.random.normal((2, heads, 24, 16)).astype(dtype) for heads in (4, 2, 2))
    mask = mx.arange(24) <= mx.arange(24)[:, None] + 3 if mask == "array" else mask
    by = mx.random.normal((2, 4, 24, 16))

    def derivatives(function, *inputs):
        return mx.grad(lambda *x: (function(*x, scale=1.0, mask=mask) * by).sum(), argnums=(0, 1, 2))(*inputs)

    exact = derivatives(cpu._official, *(x.astype(mx.float32) for x in (q, k, v)))
    plain, wide = derivatives(cpu._official, q, k, v), derivatives(cpu.wide_attention, q, k, v)
    assert cpu.wide_attention(q, k, v, scale=1.0, mask=mask).dtype == dtype
    for right, a, b in zip(exact, plain, wide, strict=True):
        assert mx.linalg.norm(b.astype(mx.float32) - right) < 0.5 * mx.linalg.norm(a.astype(mx.float32) - right)


def test_hidden_values_that_overflow_count_as_infinite(gpu_path):
    model = build_model(tiny_config())
    finite = precision.largest(model, [1, 300, 5])
    assert 0 < finite < 1e4
    model.model.layers[0].mlp.down_proj.weight = model.model.layers[0].mlp.down_proj.weight * mx.nan
    assert precision.largest(model, [1, 300, 5]) == mx.inf


def test_the_cpu_asks_no_prompt_and_casts_nothing():
    model = build_model(tiny_config())
    model.set_dtype(mx.float16)
    assert precision.within_range(model, lambda: pytest.fail("no prompt is needed")) is model
    assert precision.compute_dtype(precision.in_float32(model)) == mx.float16


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_end_in_one_line(odd):
    with pytest.raises(Failure, match="not finite"):
        logprobs.total(np.array([-1.0, odd, -2.0], np.float32))
    assert logprobs.total(np.array([-1.0, -2.0], np.float32)) == -3.0
