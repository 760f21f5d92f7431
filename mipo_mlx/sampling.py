"""Sample answers for a batch of prompts with mlx-lm's continuous batching; the same seed gives the same answers. Pairs, profile
and evaluation all sample here."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import KVCache, make_prompt_cache

from .fastmath import swapped
from .logprobs import Recorded
from .nucleus import nucleus_sampler
from .prefix import text_model
from .recipe import Pairs
from .records import Answer
from .stored import expanded

Layers = list[KVCache]


@dataclass(frozen=True)
class Start:
    """A prompt that is run up to the tokens that remain: its last one, or all where the model's caches are of other kinds."""

    cache: Layers | None
    tokens: list[int]

    @property
    def recorded(self) -> Recorded | None:
        """The prompt's keys and values, as `token_logprobs` takes them."""
        return [(layer.keys, layer.values) for layer in self.cache] if self.cache else None


def chunk_key(seed: int, chunk: int | str) -> int:
    """A random key that depends on the run's seed and the chunk's number or name alone, not on what was sampled before."""
    return int.from_bytes(hashlib.sha256(f"{seed} sampling {chunk}".encode()).digest()[:8], "big")


def sample(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]] | list[Start],
    settings: Pairs,
    key: int,
    finished: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """One answer to each prompt (token ids, or prompts that were run before), in their order.

    An answer's tokens end with the end-of-turn token where the model wrote one (finish "stop"); an answer cut at
    `settings.max_tokens` gets none. `finished` is called with each answer as it ends.
    """
    ends = sorted(tokenizer.eos_token_ids)
    generator = BatchGenerator(
        model,
        stop_tokens=[[token] for token in ends],
        sampler=nucleus_sampler(settings.temperature, settings.top_p),
        completion_batch_size=settings.batch,
        prefill_batch_size=settings.batch,
    )
    starts = [prompt if isinstance(prompt, Start) else Start(None, prompt) for prompt in prompts]
    # Long prompts first: neighbours of like length are padded least, and the last to start are the quickest to begin.
    order = sorted(range(len(starts)), key=lambda i: (-length_of(starts[i]), i))
    answers: dict[int, Answer] = {}
    mx.random.seed(key)
    try:
        caches = [starts[i].cache or make_prompt_cache(model) for i in order]
        uids = generator.insert([starts[i].tokens for i in order], [settings.max_tokens] * len(order), caches=caches)
        place, written = dict(zip(uids, order, strict=True)), {uid: [] for uid in uids}
        with swapped(text_model(model)), expanded(text_model(model)):
            while responses := generator.next_generated():
                for response in responses:
                    written[response.uid].append(response.token)
                    if response.finish_reason is not None:
                        tokens = written[response.uid]
                        answers[place[response.uid]] = answer = to_answer(tokenizer, tokens, response.finish_reason)
                        finished(answer)
    finally:
        generator.close()
    return [answers[i] for i in range(len(starts))]


def length_of(start: Start) -> int:
    return len(start.tokens) + (start.cache[0].offset if start.cache else 0)


def to_answer(tokenizer: Any, tokens: list[int], finish: str) -> Answer:
    """The text leaves out the end-of-turn token; `tokens` keeps it."""
    spoken = tokens[:-1] if finish == "stop" else tokens
    return Answer(tokenizer.decode(spoken, skip_special_tokens=True), tokens, finish)
