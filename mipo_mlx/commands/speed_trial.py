"""How long a token takes on this GPU, by a short trial: a base of few and of more layers with random weights.

It samples, scores and trains. A dry run multiplies by what it measures. The difference of the two tells a layer from the output
head. They have one and three layers. Where layers are of several kinds, both have whole turns of them: mlx-lm needs one of each.
A CPU needs no trial: its shares of the speed of matrix products are known from whole runs (dry_run.py).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import BatchGenerator

from ..engine import fast
from ..engine.logprobs import token_logprobs
from ..engine.sampling import nucleus_sampler
from ..gguf_format.names import language
from ..models import adapters
from ..models.skeleton import from_config
from ..recipe import Recipe
from ..records import Pair
from ..training.step import gradient_step

MORE = 2  # layers, at least, that the deeper model has more
PROMPT, ANSWER, CANDIDATES = 256, 48, 2  # tokens, tokens, answers a prompt
STEPS = 16  # of decoding
PAIRS = 4
TRIES = 2  # the best of them counts; one comes before, since kernels are loaded then


@dataclass(frozen=True)
class Seconds:
    """What one token takes with the whole base."""

    sampled: float
    scored: float
    trained: float


def seconds(config: dict[str, Any], recipe: Recipe) -> Seconds:
    """Measure on this device. config: the base's, under Hugging Face's keys."""
    few = _turn(language(config))
    more = few + max(MORE, few)
    shallow, deep = (_trial(_shallow(config, layers), recipe) for layers in (few, more))
    left = language(config)["num_hidden_layers"] - few
    return Seconds(*(a + left * max(0.0, b - a) / (more - few) for a, b in zip(shallow, deep, strict=True)))


def _turn(config: dict[str, Any]) -> int:
    """How many layers there are up to the first one with full attention: with Qwen3.5 four, with most models one."""
    kinds, places = config.get("layer_types") or [], config.get("full_attn_idxs")
    if "full_attention" in kinds or places:
        return 1 + (places[0] if places else kinds.index("full_attention"))
    return int(config.get("full_attention_interval") or 1)


def _shallow(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The configuration of the first layers; lists with an entry for each layer are cut."""
    if isinstance(config.get("text_config"), dict):
        return {**config, "text_config": _shallow(config["text_config"], layers)}
    deep = config["num_hidden_layers"]
    cut = {name: value[:layers] for name, value in config.items() if isinstance(value, list) and len(value) == deep}
    return {**config, **cut, "num_hidden_layers": layers}


def _trial(config: dict[str, Any], recipe: Recipe) -> tuple[float, float, float]:
    """Seconds of a token that is sampled, scored and trained."""
    model, _ = from_config(config)
    mx.eval(model.parameters())
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return rng.integers(0, language(config)["vocab_size"], shape).tolist()

    prompts, answers = draw(PAIRS, PROMPT), draw(PAIRS, CANDIDATES, ANSWER)
    tokens = PAIRS * (PROMPT + CANDIDATES * ANSWER)
    sampled = _decoding(model, draw(recipe.pairs.batch, PROMPT), recipe)
    scored = _best(lambda: token_logprobs(model, prompts, answers)) / tokens
    adapters.attach(model, recipe.training.lora, 0)
    pairs = [
        Pair(str(i), "train", i, [], [], [], [], prompts[i], answers[i], [-100.0] * CANDIDATES, pmi=[0.0], kinds=["random_context"])
        for i in range(PAIRS)
    ]
    settings = recipe.training.model_copy(update={"objective": "dpo"})
    trained = _best(lambda: gradient_step(model, pairs, settings, token_budget=tokens, pad_id=0)) / tokens
    return sampled, scored, trained


def _best(work: Callable[[], Any]) -> float:
    """Seconds of the quickest try."""
    taken = []
    for _ in range(1 + TRIES):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return min(taken[1:])


def _decoding(model: Any, prompts: list[list[int]], recipe: Recipe) -> float:
    """Seconds of a token in a full batch, without the prompts."""
    generator = BatchGenerator(
        model,
        sampler=nucleus_sampler(recipe.pairs.temperature, recipe.pairs.top_p),
        completion_batch_size=len(prompts),
        prefill_batch_size=len(prompts),
    )
    try:
        generator.insert(prompts, [(1 + TRIES) * STEPS + 2] * len(prompts))
        with fast(model):
            while len(generator.next_generated()) < len(prompts):  # until all have begun
                pass
            return _best(lambda: [generator.next_generated() for _ in range(STEPS)]) / (STEPS * len(prompts))
    finally:
        generator.close()
