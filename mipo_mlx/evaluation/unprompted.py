"""The tuned model without any context: how far it has moved from the base on everyday requests (the leak test: leak.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import logprobs
from ..models import adapters, chat
from ..progress import Bar
from ..recipe import Recipe
from ..records import HELDOUT, Prompt, read_records
from . import sampling
from .intervals import single
from .journal import Journal


def work(folder: Path, recipe: Recipe) -> int:
    """How much the bar moves in `evaluate`."""
    return 3 * len(_read(folder, recipe))


def evaluate(
    model: Any, tokenizer: Any, folder: Path, recipe: Recipe, journal: Journal, bar: Bar | None = None
) -> dict[str, Any] | None:
    """{"kl_per_token", "answers"}; `model` has adapters on it. None where there is nothing to ask.

    KL(tuned || base), nats per token, is estimated from the tuned model's own answers by r - 1 - log r, r = p_base / p_tuned,
    which is never negative (Schulman 2020, "k3").
    """
    prompts = _read(folder, recipe)
    if not prompts:
        return None
    asked = [chat.encode(tokenizer, chat.messages(recipe.pairs, prompt.text, None)) for prompt in prompts]

    def sample(chunk: int, part: Sequence[list[int]]) -> list[Any]:
        return sampling.answers(model, tokenizer, part, recipe.pairs, sampling.seed_of(recipe.seed, "unprompted", chunk))

    answers = journal.map("unprompted", asked, recipe.pairs.batch, sample, bar)
    jobs = [(ids, answer["tokens"]) for ids, answer in zip(asked, answers, strict=True)]

    def score(_: int, part: Sequence[tuple[list[int], list[int]]]) -> list[Any]:
        scored = logprobs.token_logprobs(model, [ids for ids, _ in part], [[tokens] for _, tokens in part])
        return [[float(v) for v in one] for [one] in scored]

    tuned = journal.map("unprompted-tuned", jobs, recipe.pairs.batch, score, bar)
    with adapters.disabled(model):
        base = journal.map("unprompted-base", jobs, recipe.pairs.batch, score, bar)
    ratios = [np.subtract(b, t) for b, t in zip(base, tuned, strict=True)]  # log p_base - log p_tuned, per token
    divergence = [float(np.mean(np.expm1(r) - r)) for r in ratios]
    return {
        "kl_per_token": single(divergence, [[prompt.id for prompt in prompts]], recipe.evaluation.bootstrap, recipe.seed),
        "answers": [{"prompt": p.text, "text": a["text"]} for p, a in zip(prompts, answers, strict=True)],
    }


def _read(folder: Path, recipe: Recipe) -> list[Prompt]:
    """Held-out prompts, drawn by the seed."""
    rng = np.random.default_rng([recipe.seed, 0x1EA4])
    prompts = [p for p in read_records(folder / "prompts.jsonl", Prompt) if p.split == HELDOUT]
    return [prompts[i] for i in sorted(rng.permutation(len(prompts))[: recipe.evaluation.everyday].tolist())]
