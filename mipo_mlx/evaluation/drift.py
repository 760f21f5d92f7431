"""The tuned model without any context: how far it has moved from the base on everyday requests (the leak test: leak.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..engine import fast
from ..engine.head import OutputHead
from ..engine.prefix import body_of
from ..models import adapters
from ..models import prompts as chat
from ..progress import Bar
from ..recipe import Recipe
from ..records import HELDOUT, Prompt, read_records
from . import requests
from .journal import Journal
from .statistics import single

AT_ONCE = 16  # tokens whose logits exist at a time


def work(folder: Path, recipe: Recipe) -> int:
    """How much the bar moves in `evaluate`."""
    return 2 * len(_read(folder, recipe))


def evaluate(
    model: Any, tokenizer: Any, folder: Path, recipe: Recipe, journal: Journal, bar: Bar | None = None
) -> dict[str, Any] | None:
    """{"kl_per_token", "answers"}; `model` has adapters on it. None where there is nothing to ask.

    KL(tuned || base), nats, is summed over the whole vocabulary where each token of the tuned model's own answers is predicted:
    no estimate from the tokens that were drawn, which would depend on the temperature and top_p that they were drawn with.
    """
    prompts = _read(folder, recipe)
    if not prompts:
        return None
    asked = [chat.encode(tokenizer, chat.messages(recipe.pairs, prompt.text, None)) for prompt in prompts]

    def sample(chunk: int, part: Sequence[list[int]]) -> list[Any]:
        return requests.answers(model, tokenizer, part, recipe.pairs, requests.seed_of(recipe.seed, "unprompted", chunk))

    answers = journal.map("unprompted", asked, recipe.pairs.batch, sample, bar)
    jobs = [(ids, answer["tokens"]) for ids, answer in zip(asked, answers, strict=True)]

    def measure(_: int, part: Sequence[tuple[list[int], list[int]]]) -> list[Any]:
        with fast(model):
            return [float(divergence(model, *job).mean()) for job in part]

    kl = journal.map("unprompted-kl", jobs, recipe.pairs.batch, measure, bar)
    lengths = [len(answer["tokens"]) for answer in answers]
    of_prompts, settings = [[prompt.id for prompt in prompts]], recipe.evaluation
    return {
        "kl_per_token": single(kl, of_prompts, settings.bootstrap, recipe.seed, weights=lengths),
        "answers": [{"prompt": p.text, "text": a["text"]} for p, a in zip(prompts, answers, strict=True)],
    }


def divergence(model: Any, prompt: list[int], answer: list[int]) -> np.ndarray:
    """(tokens,) KL(tuned || base), nats, where each token of `answer` is predicted; `model` has adapters on it."""
    rows, places = mx.array([prompt + answer[:-1]]), slice(len(prompt) - 1, None)
    tuned = body_of(model)(rows)[0, places].astype(mx.float32)
    with adapters.disabled(model):
        base = body_of(model)(rows)[0, places].astype(mx.float32)
    found = []
    for begin in range(0, len(answer), AT_ONCE):
        logits = [OutputHead(model)(hidden[begin : begin + AT_ONCE]) for hidden in (tuned, base)]
        p, q = (np.array(x - mx.logsumexp(x, axis=-1, keepdims=True), dtype=np.float64) for x in logits)
        found.append((np.exp(p) * (p - q)).sum(axis=-1))
    return np.concatenate(found)


def _read(folder: Path, recipe: Recipe) -> list[Prompt]:
    """Held-out prompts, drawn by the seed."""
    rng = np.random.default_rng([recipe.seed, 0x1EA4])
    prompts = [p for p in read_records(folder / "prompts.jsonl", Prompt) if p.split == HELDOUT]
    return [prompts[i] for i in sorted(rng.permutation(len(prompts))[: recipe.evaluation.everyday].tolist())]
