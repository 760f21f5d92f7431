"""The trained model without any context: how far it has moved from the base on everyday requests (the leak test: leak.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..engine import fast
from ..engine.head import OutputHead
from ..engine.prefix import body_of
from ..files import read_records
from ..models import adapters
from ..recipe import Recipe
from ..records import Answer, Prompt, key_for
from .outcome import Reply, Unprompted
from .statistics import Clusters, Estimate
from .workbench import Workbench, drawn

AT_ONCE = 16  # tokens whose logits exist at a time


def bar_total(folder: Path, recipe: Recipe) -> int:
    """How much the bar moves in `evaluate`."""
    return 2 * len(_requests(folder, recipe))


def evaluate(bench: Workbench) -> Unprompted | None:
    """None where there is nothing to ask.

    KL(tuned || base), nats, is summed over the whole vocabulary where each token of the trained model's own answers is predicted.
    An estimate from the drawn tokens would depend on their temperature and top_p.
    """
    requests = _requests(bench.folder, bench.recipe)
    if not requests:
        return None
    prompts = [bench.prompt(request.text, None) for request in requests]
    answers = bench.sample("unprompted", prompts, "unprompted")
    nats = distances(bench, "unprompted-kl", prompts, answers)
    return Unprompted(
        mean_per_token(bench, nats, answers, [[request.id for request in requests]]),
        [Reply(request.text, answer.text) for request, answer in zip(requests, answers, strict=True)],
    )


def distances(bench: Workbench, phase: str, prompts: Sequence[list[int]], answers: Sequence[Answer]) -> list[float]:
    """The mean KL(tuned || base) a token of each answer of the trained model, nats. The bar moves by one for each."""
    jobs = [(prompt, answer.tokens) for prompt, answer in zip(prompts, answers, strict=True)]

    def measure(_: int, part: Sequence[tuple[list[int], list[int]]]) -> list[Any]:
        with fast(bench.model):
            return [float(divergence(bench.model, *job).mean()) for job in part]

    return bench.journal.map(phase, jobs, bench.recipe.pairs.batch, measure, bench.bar)


def mean_per_token(bench: Workbench, nats: Sequence[float], answers: Sequence[Answer], clusters: Clusters) -> Estimate:
    """The mean of these distances over all tokens of the answers, nats a token."""
    return bench.resampler(clusters).mean(nats, [float(len(answer.tokens)) for answer in answers])


def divergence(model: Any, prompt: list[int], answer: list[int]) -> np.ndarray:
    """(tokens,) KL(tuned || base), nats, where each token of `answer` is predicted. `model` has adapters on it."""
    rows, places = mx.array([prompt + answer[:-1]]), slice(len(prompt) - 1, None)
    tuned = body_of(model)(rows)[0, places].astype(mx.float32)
    with adapters.disabled(model):
        base = body_of(model)(rows)[0, places].astype(mx.float32)
    nats = []
    for begin in range(0, len(answer), AT_ONCE):
        logits = [OutputHead(model)(hidden[begin : begin + AT_ONCE]) for hidden in (tuned, base)]
        p, q = (np.array(x - mx.logsumexp(x, axis=-1, keepdims=True), dtype=np.float64) for x in logits)
        nats.append((np.exp(p) * (p - q)).sum(axis=-1))
    return np.concatenate(nats)


def _requests(folder: Path, recipe: Recipe) -> list[Prompt]:
    """Held-out requests, drawn by the seed."""
    rng = np.random.default_rng(key_for(recipe.seed, "everyday requests"))
    prompts = [p for p in read_records(folder / "prompts.jsonl", Prompt) if p.judges]
    return drawn(prompts, recipe.evaluation.everyday, rng)
