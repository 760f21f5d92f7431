"""Fresh answers of the model under test, in mlx-lm's batch generator, the same seeds for both models."""

import hashlib
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator

from ..models import chat
from ..nucleus import nucleus_sampler
from ..recipe import Pairs


def answers(model: Any, tokenizer: Any, prompts: Sequence[list[int]], settings: Pairs, seed: int) -> list[dict[str, Any]]:
    """One sampled answer a prompt: {"text", "tokens", "finish"}, under the sampling settings of the pairs.

    `tokens` ends with the end-of-turn token where the model wrote one (finish "stop"); "length" means cut at max_tokens.
    The whole list is one batch: the same list and seed give the same answers.
    """
    mx.random.seed(seed)
    generator = BatchGenerator(
        model,
        max_tokens=settings.max_tokens,
        stop_tokens=[[token] for token in sorted(chat.end_of_turn(tokenizer))],
        sampler=nucleus_sampler(settings.temperature, settings.top_p),
        completion_batch_size=len(prompts),
        prefill_batch_size=len(prompts),
    )
    uids = generator.insert([list(prompt) for prompt in prompts])
    tokens: dict[int, list[int]] = {uid: [] for uid in uids}
    finish = dict.fromkeys(uids, "length")
    try:
        while responses := generator.next_generated():
            for response in responses:
                tokens[response.uid].append(response.token)
                finish[response.uid] = response.finish_reason or finish[response.uid]
    finally:
        generator.close()
    return [
        {
            "text": tokenizer.decode(tokens[uid][:-1] if finish[uid] == "stop" else tokens[uid]).strip(),
            "tokens": tokens[uid],
            "finish": finish[uid],
        }
        for uid in uids
    ]


def seed_of(seed: int, *names: object) -> int:
    """A seed of its own for each piece of work, the same on every machine."""
    digest = hashlib.sha256(":".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
