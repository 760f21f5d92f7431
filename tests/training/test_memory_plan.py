"""The planner against measured peaks."""

from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mipo_mlx import backend
from mipo_mlx.engine import logprobs
from mipo_mlx.errors import UserError
from mipo_mlx.models import adapters
from mipo_mlx.recipe import Lora, Training
from mipo_mlx.training import memory_plan
from tests.conftest import build_model, tiny_config
from tests.export.helpers import MODELS

MAMBA = {"state_size": 8, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 4}
GPT2 = {"n_ctx": 64, "n_embd": 48, "n_head": 4, "n_layer": 2, "n_positions": 64, "layer_norm_epsilon": 1e-5}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1, "mlp_only_layers": [],
       "norm_topk_prob": True}  # fmt: skip
LONGEST = memory_plan.Shape.of_pair(prompt=200, candidates=2, answer=60)


def middling(layers: int = 4, **changes):
    """SmolLM2-135M's widths, fewer layers and words."""
    sizes = {"hidden_size": 576, "num_hidden_layers": layers, "intermediate_size": 1536, "num_attention_heads": 9,
             "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 2048, "max_position_embeddings": 2048}  # fmt: skip
    return build_model(tiny_config(**{**sizes, **changes}), spread=1.0)


def measured_peak(model, shape: memory_plan.Shape, checkpoint: bool) -> int:
    rng = np.random.default_rng(0)
    batch = SimpleNamespace(
        prompts=mx.array(rng.integers(0, 2000, (shape.pairs, shape.prompt)).astype(np.int32)),
        prompt_lengths=mx.full((shape.pairs,), shape.prompt, dtype=mx.int32),
        answers=mx.array(rng.integers(0, 2000, (shape.pairs, shape.candidates, shape.answer)).astype(np.int32)),
        answer_lengths=mx.full((shape.pairs, shape.candidates), shape.answer, dtype=mx.int32),
    )
    mx.eval(model.parameters())
    before = mx.get_active_memory() - sum(x.nbytes for _, x in tree_flatten(model.parameters()))
    mx.reset_peak_memory()
    _, gradient = nn.value_and_grad(model, lambda m: logprobs.batch_logprobs(m, batch, checkpoint=checkpoint).sum())(model)
    mx.eval(gradient)
    return mx.get_peak_memory() - before


@pytest.mark.skipif(not backend.on_cpu(), reason="fitted on the CPU")
@pytest.mark.parametrize(
    "shape, checkpoint",
    [
        ((1, 257, 2, 64), False), ((1, 65, 2, 128), False), ((3, 65, 2, 48), False), ((1, 257, 2, 64), True),
        ((1, 321, 4, 32), True), ((1, 33, 2, 128), True), ((1, 513, 2, 64), True),
    ],
)  # fmt: skip
def test_prediction_is_within_15_percent_of_the_measured_peak(shape, checkpoint):
    model = middling()
    adapters.attach(model, Lora(), 0)
    shape = memory_plan.Shape(*shape)
    predicted = memory_plan.predict(model, Training(checkpoint_gradients=checkpoint), shape, 0).peak_bytes
    assert predicted == pytest.approx(measured_peak(model, shape, checkpoint), rel=0.15)


@pytest.mark.parametrize("shape", [(1, 129, 2, 32), (2, 65, 4, 32)])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_a_gpus_way_is_predicted_too(shape, dtype, monkeypatch):
    """Official attention, which keeps its scores, and adapters that compute in float32 beside 16 bits; run on this device."""
    monkeypatch.setattr(backend, "on_cpu", lambda: False)
    model = middling(3, hidden_size=256, intermediate_size=640, num_attention_heads=4, num_key_value_heads=2)
    model.set_dtype(dtype)
    adapters.attach(model, Lora(), 0)
    shape = memory_plan.Shape(*shape)
    assert memory_plan.predict(model, Training(), shape, 0).peak_bytes == pytest.approx(
        measured_peak(model, shape, False), rel=0.15
    )


@pytest.mark.parametrize("layers, checkpoint", [(2, False), (4, False), (4, True)])
def test_the_states_of_linear_attention_are_counted(layers, checkpoint):
    """mlx-lm trains Qwen3.5 token by token, and a state is larger than all else that a token leaves for the backward pass."""
    sizes = {"num_hidden_layers": layers, "full_attention_interval": 2, "linear_key_head_dim": 64, "linear_value_head_dim": 64}
    config = {**MODELS["qwen3.5"][0], **sizes}
    model = build_model({"model_type": "qwen3_5", "text_config": {**config, "vocab_size": 2048}}, spread=1.0)
    adapters.attach(model, Lora(), 0)
    model.train()
    shape = memory_plan.Shape(1, 33, 2, 16)
    plan = memory_plan.predict(model, Training(checkpoint_gradients=checkpoint), shape, 0)
    measured = measured_peak(model, shape, checkpoint) - fixed(plan)
    assert plan.activation_bytes == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize("model_type, changes", [("mamba", MAMBA), ("qwen3_moe", MOE)])
def test_models_with_other_parts_can_be_planned(model_type, changes):
    model = build_model(tiny_config(model_type, **changes), spread=1.0)
    result, saving = plan(model, 10 << 30), plan(model, 10 << 30, checkpoint_gradients=True)
    assert result.fits and saving.activation_bytes < result.activation_bytes
    before = fixed(result) - size(model)
    adapters.attach(model, Lora(), 0)
    trained = sum(x.nbytes for _, x in tree_flatten(model.trainable_parameters()))
    assert before == 5 * trained  # the adapters, their gradients, the sum of those and AdamW's two averages


def test_a_model_whose_layers_cannot_be_found_is_refused():
    with pytest.raises(UserError, match="gpt2: no model, backbone or transformer part with layers was found"):
        plan(build_model(tiny_config("gpt2", **GPT2)), 10 << 30)


def test_where_nothing_fits_the_way_out_is_named():
    model = middling(4)
    whole, saving = plan(model, 1), plan(model, 1, checkpoint_gradients=True)
    limit = (whole.peak_bytes + saving.peak_bytes) // 2
    advice = memory_plan.advice(plan(model, limit), model, Training(), LONGEST, limit)
    assert advice.endswith("set training.checkpoint_gradients: true")
    assert "smaller or quantised model" in memory_plan.advice(whole, model, Training(), LONGEST, 1)
    assert memory_plan.advice(plan(model, 10 << 30), model, Training(), LONGEST, 10 << 30) is None


def plan(model, limit: int, **settings) -> memory_plan.Plan:
    return memory_plan.choose(model, Training(**settings), LONGEST, limit)


def fixed(result: memory_plan.Plan) -> int:
    """What does not grow with the micro-batch: weights, adapters and what the optimizer keeps for them."""
    return result.peak_bytes - result.activation_bytes


def size(model) -> int:
    return sum(x.nbytes for _, x in tree_flatten(model.parameters()))


def test_more_memory_gives_larger_micro_batches_up_to_what_is_useful():
    model = middling(2)
    adapters.attach(model, Lora(), 0)
    small, large = plan(model, 120 << 20), plan(model, 10 << 30)
    assert small.token_budget < large.token_budget <= memory_plan.MOST_TOKENS[backend.on_cpu()]
    assert small.fits and small.peak_bytes <= 120 << 20
    assert fixed(large) == fixed(small) > size(model)


def test_a_pair_that_does_not_fit_is_planned_alone_and_said():
    result = plan(middling(2), 1 << 20)
    assert not result.fits and result.token_budget == 201 + 2 * 64  # widths in steps of 8


def test_checkpointing_and_a_smaller_adapter_take_less():
    model = middling(4)
    assert plan(model, 1, checkpoint_gradients=True).peak_bytes < plan(model, 1).peak_bytes
    assert fixed(plan(model, 1, lora=Lora(rank=2))) < fixed(plan(model, 1, lora=Lora(rank=32)))
    few = Lora(keys=["self_attn.q_proj"])
    assert fixed(plan(model, 1, lora=few)) - size(model) == 5 * 4 * 8 * (576 + 576) * 4


def test_adapters_are_counted_the_same_before_and_after_they_are_attached():
    model = middling(2)
    before = plan(model, 10 << 30)
    adapters.attach(model, Lora(), 0)
    assert plan(model, 10 << 30) == before


def test_the_vocabulary_costs_its_weights_only():
    small, large = (plan(middling(1, tie_word_embeddings=tied), 1) for tied in (True, False))
    assert small.activation_bytes == large.activation_bytes and fixed(small) < fixed(large)
