"""Predicts the peak memory of a training step and picks the micro-batch that fits.

What is kept for the backward pass is counted from the model's widths: a layer keeps the inputs of its norms, adapters and
elementwise products, and the keys and values of the prompt once more for each answer. Attention scores and logits are never kept on
the CPU; on a GPU MLX keeps the scores. The counts were fitted to measured peaks (tests/training/test_memory.py).
"""

from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..fastmath import on_cpu
from ..head import BLOCK, CHUNK_TOKENS
from ..prefix import body_of, text_model, windows
from ..recipe import Lora, Training
from .batches import ROUND

MOST_TOKENS = {True: 4096, False: 32768}  # a micro-batch beyond this is no faster; on the CPU and on a GPU


@dataclass(frozen=True)
class Plan:
    token_budget: int  # tokens a micro-batch, padding included
    peak_bytes: int  # predicted for it
    weights_bytes: int  # the model with its adapters
    optimizer_bytes: int  # the adapters' gradients and AdamW's two averages
    activation_bytes: int  # what grows with the micro-batch
    fits: bool  # False: not even one pair of the longest stays under the limit


@dataclass(frozen=True)
class Shape:
    """A micro-batch: `pairs` prompts of `prompt` tokens with `candidates` answers of `answer` tokens each."""

    pairs: int
    prompt: int
    candidates: int
    answer: int

    @property
    def tokens(self) -> int:
        return self.pairs * (self.prompt + self.candidates * self.answer)


def plan(
    model: nn.Module, settings: Training, longest_prompt: int, longest_answer: int, candidates: int, limit_bytes: int
) -> Plan:
    """The largest micro-batch of the longest pairs that stays under `limit_bytes`; a single one if none does.

    Lengths in tokens; candidates: answers a pair, the chosen one included.
    """
    shape = Shape(1, -(-(longest_prompt - 1) // ROUND) * ROUND + 1, candidates, -(-longest_answer // ROUND) * ROUND)
    found = predict(model, settings, shape, limit_bytes)
    while found.fits and 2 * shape.tokens <= MOST_TOKENS[on_cpu()]:
        shape = replace(shape, pairs=2 * shape.pairs)
        larger = predict(model, settings, shape, limit_bytes)
        if not larger.fits:
            break
        found = larger
    return found


def predict(model: nn.Module, settings: Training, shape: Shape, limit_bytes: int) -> Plan:
    """What one step with micro-batches of that shape takes at its peak."""
    trained = _adapter_bytes(model, settings.lora)
    weights = sum(x.nbytes for name, x in tree_flatten(model.parameters()) if "lora_" not in name) + trained
    optimizer = 4 * trained  # gradients, their sum over micro-batches, and AdamW's averages
    activations = _activations(model, settings, shape)
    peak = weights + optimizer + activations
    return Plan(shape.tokens, peak, weights, optimizer, activations, peak <= limit_bytes)


def _adapter_bytes(model: nn.Module, lora: Lora) -> int:
    """Size of the LoRA matrices, whether they are attached already or not (a dry run plans without)."""
    layers = body_of(model).layers
    total = 0
    for layer in layers if lora.layers == "all" else layers[-lora.layers :]:
        for name, module in layer.named_modules():
            base = getattr(module, "linear", module)
            if isinstance(base, nn.Linear | nn.QuantizedLinear) and not name.endswith(".linear"):
                if lora.keys == "all" or name in lora.keys:
                    outputs, inputs = base.weight.shape
                    if isinstance(base, nn.QuantizedLinear):
                        inputs = inputs * 32 // base.bits
                    total += 4 * lora.rank * (inputs + outputs)
    return total


def _activations(model: nn.Module, settings: Training, shape: Shape) -> int:
    args: Any = text_model(model).args
    layers = len(body_of(model).layers)
    width, heads = args.hidden_size, args.num_attention_heads
    key_heads = getattr(args, "num_key_value_heads", None) or heads
    head_dim = getattr(args, "head_dim", None) or width // heads
    inner = args.intermediate_size
    shared = windows(model) is not None
    answers = shape.pairs * shape.candidates
    tokens = shape.tokens if shared else answers * (shape.prompt + shape.answer)
    item = _compute_bytes(model)

    # Residual stream, two norms and two sums; queries, attention's output in two layouts; keys, values; gate, up, product.
    token = 5 * width + 3 * heads * head_dim + 2 * key_heads * head_dim + 3 * inner
    kept = tokens * token * item
    again = answers * (shape.prompt + shape.answer) * 2 * key_heads * head_dim * item if shared else 0
    scores = 0
    if not on_cpu():
        pairs_of_positions = shape.pairs * shape.prompt**2 + answers * shape.answer * (shape.prompt + shape.answer)
        scores = heads * pairs_of_positions * item
    layer = kept + again + scores
    transient = tokens * 3 * inner * item  # the backward pass through one layer
    chunk = min(CHUNK_TOKENS, answers * shape.answer)
    head = 5 * BLOCK * chunk * 4 + 3 * answers * shape.answer * width * 4
    if settings.checkpoint_gradients:
        stored = (tokens * (width + 2 * key_heads * head_dim)) * item
        return layers * stored + 2 * layer + max(transient, head)
    return layers * layer + max(transient, head)


def _compute_bytes(model: nn.Module) -> int:
    """Bytes of one activation: those of the norms' weights, which are never quantised."""
    for name, x in tree_flatten(body_of(model).layers[0].parameters()):
        if "norm" in name and mx.issubdtype(x.dtype, mx.floating):
            return x.dtype.size
    return 4
