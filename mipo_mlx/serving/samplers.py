"""How the tokens of an answer are drawn: the samplers and penalties that a request's settings ask for.

The cuts are mlx-lm's: the nucleus, `min_p` and `top_k` each leave out unlikely tokens of the untempered distribution. A token
must pass all three. The penalties are mlx-lm's, over the tokens of the answer alone. So neither the notes nor the
question make their own words unlikely.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import mlx.core as mx
from mlx_lm.sample_utils import make_logits_processors

from ..engine.sampling import nucleus_sampler
from .protocol import Settings

Sampler = Callable[[mx.array], mx.array]
Processor = Callable[[mx.array, mx.array], mx.array]
COLDEST = 1e-3  # below, the likeliest token is taken: float32 cannot hold log-probabilities over a smaller temperature


def sampler_of(settings: Settings) -> Sampler:
    """A seed gives the same answer again, as far as the arithmetic of another batch gives the same bits."""
    temperature = settings.temperature or 0.0
    how = (temperature if temperature >= COLDEST else 0.0, settings.top_p or 1.0, settings.top_k, settings.min_p)
    return shared_sampler(*how) if settings.seed is None or not how[0] else _sampler(*how, Seeded(settings.seed))


@lru_cache(64)
def shared_sampler(temperature: float, top_p: float, top_k: int, min_p: float) -> Sampler:
    """One object for all requests with these settings: the batch then draws for them in one call."""
    return _sampler(temperature, top_p, top_k, min_p, mx.random.categorical)


def _sampler(temperature: float, top_p: float, top_k: int, min_p: float, draw: Sampler) -> Sampler:
    def cut(logits: mx.array) -> mx.array:
        """logits: log-probabilities over the temperature, which changes neither their order nor what lies within `min_p`."""
        if min_p:
            logits = mx.where(logits < logits.max(-1, keepdims=True) + math.log(min_p) / temperature, -mx.inf, logits)
        if 0 < top_k < logits.shape[-1]:
            worse = mx.argpartition(-logits, kth=top_k - 1, axis=-1)[..., top_k:]
            logits = mx.put_along_axis(logits, worse, mx.array(-mx.inf, logits.dtype), axis=-1)
        return draw(logits)

    return nucleus_sampler(temperature, top_p, draw=cut)


class Seeded:
    """Draws whose random numbers are a request's own."""

    def __init__(self, seed: int) -> None:
        self.key = mx.random.key(seed % (1 << 64))

    def __call__(self, logits: mx.array) -> mx.array:
        self.key, now = mx.random.split(self.key)
        return mx.random.categorical(logits, key=now)


def processors_of(settings: Settings, prompt: int) -> list[Processor]:
    """What changes logits before a draw. prompt: how many tokens stand before the answer, which count for no penalty."""
    penalties = make_logits_processors(
        repetition_penalty=None if settings.repetition_penalty == 1 else settings.repetition_penalty,
        repetition_context_size=0,  # [-0:] is all
        presence_penalty=settings.presence_penalty,
        presence_context_size=0,
        frequency_penalty=settings.frequency_penalty,
        frequency_context_size=0,
    )
    return [partial(_of_answer, penalty, prompt) for penalty in penalties]


def _of_answer(penalty: Processor, prompt: int, tokens: mx.array, logits: mx.array) -> mx.array:
    return penalty(tokens[prompt:], logits)
