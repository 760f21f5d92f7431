"""Predicts the peak memory of a training step and picks the micro-batch that fits.

The model's widths say what is kept for the backward pass. A layer keeps the inputs of its norms, adapters and elementwise products,
and the keys and values of the prompt once more for each answer. Logits are never kept. On a GPU, MLX keeps attention
scores, in float32; the CPU keeps none. The counts were fitted to measured peaks (tests/training/test_memory_plan.py).
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from .. import backend
from ..engine.head import BLOCK, CHUNK_TOKENS
from ..engine.precision import compute_dtype
from ..engine.prefix import body_of, sliding_windows, text_model
from ..recipe import Lora, Training
from .step import padded_answer, padded_prompt

LINEAR = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
# A micro-batch beyond this is no faster; on the CPU and on a GPU. On an M1, one product of a 7B model with so many tokens takes
# about half a second, and macOS ends work that holds the GPU for some seconds.
MOST_TOKENS = {True: 4096, False: 8192}


@dataclass(frozen=True)
class Plan:
    """A memory plan: the micro-batch that was chosen and its predicted bytes."""

    token_budget: int  # tokens a micro-batch, padding included
    peak_bytes: int  # predicted for it
    activation_bytes: int  # the part that grows with the micro-batch
    fits: bool  # False: not even one pair of the longest stays under the limit


@dataclass(frozen=True)
class Shape:
    """A micro-batch: `pairs` prompts of `prompt` tokens with `candidates` answers of `answer` tokens each."""

    pairs: int
    prompt: int
    candidates: int
    answer: int

    @staticmethod
    def of_pair(prompt: int, candidates: int, answer: int) -> "Shape":
        """One pair of so many tokens, padded as `step.py` pads it."""
        return Shape(1, padded_prompt(prompt), candidates, padded_answer(answer))

    @property
    def tokens(self) -> int:
        return self.pairs * (self.prompt + self.candidates * self.answer)


def choose(model: nn.Module, settings: Training, longest: Shape, limit_bytes: int, most_pairs: int = 1 << 30) -> Plan:
    """The largest micro-batch of pairs like `longest` that stays under `limit_bytes`; a single one if none does.

    most_pairs: how many pairs a step has.
    """
    shape = longest
    chosen = predict(model, settings, shape, limit_bytes)
    while chosen.fits and shape.pairs < most_pairs:
        shape = replace(shape, pairs=min(2 * shape.pairs, most_pairs))
        larger = predict(model, settings, shape, limit_bytes)
        if shape.tokens > MOST_TOKENS[backend.on_cpu()] or not larger.fits:
            break
        chosen = larger
    return chosen


def predict(model: nn.Module, settings: Training, shape: Shape, limit_bytes: int) -> Plan:
    trained = _adapter_bytes(model, settings.lora)
    weights = sum(x.nbytes for name, x in tree_flatten(model.parameters()) if "lora_" not in name) + trained
    optimizer = 4 * trained  # gradients, their sum over micro-batches, and AdamW's averages
    activations = _activations(model, settings, shape)
    peak = weights + optimizer + activations
    return Plan(shape.tokens, peak, activations, peak <= limit_bytes)


def advice(plan: Plan, model: nn.Module, settings: Training, longest: Shape, limit_bytes: int) -> str | None:
    """What to do where not even one pair fits; None where it does."""
    if plan.fits:
        return None
    needs = f"one pair takes about {plan.peak_bytes / 1e9:.1f} GB, and {limit_bytes / 1e9:.1f} GB can be counted on"
    saving = settings.model_copy(update={"checkpoint_gradients": True})
    if not settings.checkpoint_gradients and choose(model, saving, longest, limit_bytes).fits:
        return f"{needs}; set training.checkpoint_gradients: true"
    return f"{needs}; lower sources.context_tokens or pairs.max_tokens, or take a smaller or quantised model"


def crowded(plan: Plan, device: backend.Device) -> str | None:
    """What to do where other programs leave too little for a plan that would fit; None where they leave enough."""
    left = (device.whole or device.memory) - device.others
    if not plan.fits or plan.peak_bytes <= left:
        return None
    return (
        f"training takes about {plan.peak_bytes / 1e9:.1f} GB, and other programs, which hold {device.others / 1e9:.1f} GB, leave "
        f"{left / 1e9:.1f} GB; close some of them, or it will be slow"
    )


@dataclass(frozen=True)
class Linear:
    """A linear part of a layer, with or without an adapter on it (a dry run plans without)."""

    name: str
    inputs: int
    outputs: int
    experts: int  # 1: none


def _linears(layer: nn.Module) -> list[Linear]:
    linears = []
    for name, module in layer.named_modules():
        base = getattr(module, "linear", module)
        if isinstance(base, LINEAR) and not name.endswith(".linear"):
            *experts, outputs, inputs = base.weight.shape
            inputs = inputs * 32 // base.bits if "scales" in base else inputs
            linears.append(Linear(name, inputs, outputs, experts[0] if experts else 1))
    return linears


def _adapter_bytes(model: nn.Module, lora: Lora) -> int:
    """Size of the LoRA matrices, float32."""
    layers = body_of(model).layers
    chosen = layers if lora.layers == "all" else layers[-lora.layers :]
    adapted = [x for layer in chosen for x in _linears(layer) if lora.keys == "all" or x.name in lora.keys]
    return sum(4 * x.experts * lora.rank * (x.inputs + x.outputs) for x in adapted)


def _activations(model: nn.Module, settings: Training, shape: Shape) -> int:
    """Bytes that the backward pass of one micro-batch holds at its peak."""
    args: Any = text_model(model).args
    layers = body_of(model).layers
    linears = _linears(layers[-1])  # where models differ from layer to layer, the last ones are the common kind
    used: int = getattr(args, "num_experts_per_tok", None) or 1
    width: int = getattr(args, "hidden_size", None) or linears[-1].outputs
    heads: int = getattr(args, "num_attention_heads", None) or getattr(args, "n_head", None) or 0
    key_heads: int = getattr(args, "num_key_value_heads", None) or heads
    head_dim: int = getattr(args, "head_dim", None) or width // max(heads, 1)
    inner = max(x.inputs for x in linears)
    shared = sliding_windows(model) is not None
    answers = shape.pairs * shape.candidates
    tokens = shape.tokens if shared else answers * (shape.prompt + shape.answer)
    item = int(compute_dtype(model).size)

    if heads and all(x.experts == 1 for x in linears) and shared:
        # Residual stream, two norms and two sums; queries, attention's output in two layouts; keys, values; gate, up, product.
        token = 5 * width + 3 * heads * head_dim + 2 * key_heads * head_dim + 3 * inner
    else:
        # The input and output of each part, and a recurrent layer's state, which is kept for every token.
        token = sum((used if x.experts > 1 else 1) * (x.inputs + x.outputs) for x in linears)
        token += 2 * inner * (getattr(args, "state_size", None) or 0)
    kept = tokens * token * item
    if item < 4:  # adapters compute in float32, each with its own copy of what goes into it
        kept += tokens * 4 * sum(x.inputs for x in linears if settings.lora.keys == "all" or x.name in settings.lora.keys)
    copies = answers * (shape.prompt + shape.answer) * 2 * key_heads * head_dim * 4 if shared else 0  # attention's, in float32
    positions = shape.pairs * shape.prompt**2 + answers * shape.answer * (shape.prompt + shape.answer)
    scores = heads * 4 * (positions if shared else answers * (shape.prompt + shape.answer) ** 2)
    if item < 4:  # float32 copies of queries, and of the prompt's keys and values
        scores += 4 * head_dim * (tokens * heads + 2 * shape.pairs * shape.prompt * key_heads)
    layer = kept + copies + (0 if backend.on_cpu() else scores)
    chunk = min(CHUNK_TOKENS, answers * shape.answer)
    head = 5 * BLOCK * chunk * 4 + 3 * answers * shape.answer * width * 4
    states = tokens * 4 * _state_size(args)
    linear = sum("linear_attn" in x for x in layers) if states else 0
    if settings.checkpoint_gradients:
        # Inputs of all layers with the prompt's keys and values, and one layer run again with its own backward pass.
        stored = tokens * (width + 2 * key_heads * head_dim) * item
        recomputed = 1.4 * (kept + copies) + 1.9 * scores + 9 * answers * shape.answer * inner * item
        return int(1.25 * len(layers) * stored + max(recomputed, head)) + (5 * states if linear else 0)
    # Linear attention keeps two states for each token, and two more in the layer at work.
    return len(layers) * layer + max(tokens * 3 * inner * item, head) + (2 * linear + 2 if linear else 0) * states


def _state_size(args: Any) -> int:
    """Numbers in the state of a layer with linear attention (Qwen3.5, Qwen3-Next); 0: there is none."""
    sizes = (getattr(args, f"linear_{part}", None) or 0 for part in ("num_value_heads", "key_head_dim", "value_head_dim"))
    return math.prod(sizes)
