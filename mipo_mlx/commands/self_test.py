"""Whether this machine's GPU computes what float32 on its CPU computes: two seconds, with a tiny 4-bit model in bfloat16.

Kernels of a GPU were wrong before, silently, on some chips and at some sizes. So `mipo-mlx doctor` and the first command of a run
compare the loss of a training step, its LoRA gradient, log-probabilities and a sampled batch. Lengths are odd on purpose, and one
prompt is long: kernels differ for full tiles and for long caches.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.generate import BatchGenerator
from mlx_lm.models import llama
from mlx_lm.utils import dequantize_model

from ..engine import fast
from ..engine.logprobs import token_logprobs
from ..engine.sampling import nucleus_sampler
from ..errors import Failure
from ..models import adapters
from ..recipe import Lora, Training
from ..records import Pair
from ..training.step import gradient_step

# 64 is the head size of small models, for which GPUs have attention kernels of their own.
SIZES: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1536,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
PROMPTS, ANSWERS = (1, 37, 1037), ((3, 1), (17, 9), (5, 24))  # tokens
DRAWN = 11  # tokens of each sampled answer


@dataclass(frozen=True)
class Differences:
    """How far the GPU is from float32 on the CPU. bfloat16 alone gives less than a third of each limit."""

    loss: float  # of a training step, nats
    cosine: float  # of the LoRA gradients: 1 where they point the same way
    logprob: float  # of an answer's token, root mean square, nats
    drawn: float  # nats by which a greedily sampled token is less likely than the likeliest one, at most

    @property
    def agree(self) -> bool:
        # A nan is no small number, so each comparison says what must hold.
        return bool(self.loss < 0.1 and self.cosine > 0.98 and self.logprob < 0.2 and self.drawn < 0.5)

    def __str__(self) -> str:
        return (
            f"loss off by {self.loss:.2g} nats, gradient's cosine {self.cosine:.4f}, log-probabilities off by "
            f"{self.logprob:.2g} nats, samples by {self.drawn:.2g} nats"
        )


def require() -> None:
    """Raise Failure where the GPU disagrees with the CPU."""
    if not (differences := compare()).agree:
        raise Failure(problem(differences) + "; then run this command again")


def problem(differences: Differences) -> str:
    """What is wrong and what to do, in one line."""
    return (
        f"the GPU computes something else than the CPU ({differences}), with MLX {mx.__version__}; a training would learn noise; "
        "update MLX (pip install --upgrade mlx mlx-lm) and the system"
    )


def compare() -> Differences:
    """Compute the same on this device in bfloat16 and on the CPU in float32. The default device is the same afterwards."""
    model, exact = _model(mx.bfloat16), _model(mx.float32)
    pairs, prompts = _pairs(exact), [pair.prompt_tokens for pair in _random_pairs()]
    answers = [pair.tokens for pair in pairs]
    step, scores, drawn = _step(model, pairs), token_logprobs(model, prompts, answers), _draw(model, prompts)
    with _on_cpu():
        right, right_scores = _step(exact, pairs), token_logprobs(exact, prompts, answers)
        behind = max(_behind(exact, prompt, row) for prompt, row in zip(prompts, drawn, strict=True))
        a, b = _flat(step.gradients), _flat(right.gradients)
        cosine = (a * b).sum() / mx.linalg.norm(a) / mx.linalg.norm(b)
        off = np.concatenate(
            [x - y for some, others in zip(scores, right_scores, strict=True) for x, y in zip(some, others, strict=True)]
        )
        return Differences(abs(step.loss - right.loss), cosine.item(), float(np.sqrt(np.mean(off**2))), behind)


@contextmanager
def _on_cpu() -> Iterator[None]:
    kept = mx.default_device()
    mx.set_default_device(mx.cpu)
    try:
        yield
    finally:
        mx.set_default_device(kept)


def _model(dtype: mx.Dtype) -> nn.Module:
    """The same 4-bit levels and adapters whatever the dtype of activations. Built on the CPU."""
    with _on_cpu():
        mx.random.seed(0)
        model = llama.Model(llama.ModelArgs.from_dict(SIZES))
        model.update(tree_map(lambda x: 1.4 * x if x.ndim > 1 else x, model.parameters()))
        model.set_dtype(mx.bfloat16)
        nn.quantize(model, group_size=64, bits=4)
        if dtype == mx.float32:
            model.set_dtype(dtype)  # the scales, so that the weights are the very levels
            model = dequantize_model(model)  # a CPU is slow at quantised products
        adapters.attach(model, Lora(rank=4, scale=2.0), 0)
        for _, module in model.named_modules():
            if "lora_b" in module:
                module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape)
        mx.eval(model.parameters())
    return model


def _random_pairs() -> list[Pair]:
    rng, pairs = np.random.default_rng(0), []
    for number, (prompt, lengths) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        tokens = [rng.integers(3, SIZES["vocab_size"], n).tolist() for n in (prompt, *lengths)]
        pairs.append(
            Pair(str(number), "train", 0, [], [], [], [], tokens[0], tokens[1:], [0.0, 0.0], pmi=[0.0], kinds=["random_context"])
        )
    return pairs


def _pairs(exact: nn.Module) -> list[Pair]:
    """Pairs whose reference is a few nats from the model, as in training: no sigmoid saturates."""
    pairs = _random_pairs()
    with _on_cpu():
        scores = token_logprobs(exact, [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs])
    return [
        Pair(**{**vars(pair), "reference": [float(x.sum()) + shift for x, shift in zip(some, (2.0, -1.0), strict=True)]})
        for pair, some in zip(pairs, scores, strict=True)
    ]


def _step(model: nn.Module, pairs: list[Pair]) -> Any:
    return gradient_step(model, pairs, Training(), token_budget=1 << 20, pad_id=0)


def _draw(model: nn.Module, prompts: list[list[int]]) -> list[list[int]]:
    """One answer to each prompt, of the likeliest tokens, in one batch."""
    generator = BatchGenerator(model, sampler=nucleus_sampler(0, 1), completion_batch_size=4, prefill_batch_size=4)
    try:
        rows: dict[int, list[int]] = {uid: [] for uid in generator.insert(prompts, [DRAWN] * len(prompts))}
        with fast(model):
            while responses := generator.next_generated():
                for response in responses:
                    rows[response.uid].append(response.token)
    finally:
        generator.close()
    return list(rows.values())


def _behind(exact: nn.Module, prompt: list[int], drawn: list[int]) -> float:
    """How much less likely than the likeliest token the worst of `drawn` is, in nats."""
    logits = exact(mx.array([prompt + drawn[:-1]]))[0, len(prompt) - 1 :].astype(mx.float32)
    own = mx.take_along_axis(logits, mx.array(drawn)[:, None], axis=-1)[:, 0]
    return float((logits.max(axis=-1) - own).max().item())


def _flat(tree: Any) -> mx.array:
    return mx.concatenate([x.reshape(-1) for _, x in tree_flatten(tree)])
