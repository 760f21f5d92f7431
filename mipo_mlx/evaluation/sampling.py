"""Fresh answers of the model under test, in the form in which the journal keeps them; the same seeds for both models."""

import hashlib
from collections.abc import Sequence
from typing import Any

from ..recipe import Pairs
from ..records import Answer
from ..sampling import sample


def answers(model: Any, tokenizer: Any, prompts: Sequence[list[int]], settings: Pairs, seed: int) -> list[dict[str, Any]]:
    """One sampled answer a prompt: {"text", "tokens", "finish"}, under the sampling settings of the pairs.

    `tokens` ends with the end-of-turn token where the model wrote one (finish "stop"); "length" means cut at max_tokens.
    The whole list is one batch: the same list and seed give the same answers.
    """
    one_batch = settings.model_copy(update={"batch": max(1, len(prompts))})
    written = sample(model, tokenizer, [list(prompt) for prompt in prompts], one_batch, seed)
    return [row(answer) for answer in written]


def row(answer: Answer) -> dict[str, Any]:
    """An answer as the journal keeps it."""
    return {"text": answer.text.strip(), "tokens": answer.tokens, "finish": answer.finish}


def seed_of(seed: int, *names: object) -> int:
    """A seed of its own for each piece of work, the same on every machine."""
    digest = hashlib.sha256(":".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
