"""Top-p sampling without sorting the vocabulary.

mlx-lm sorts all log-probabilities at every step, which on a CPU takes longer than a small model's forward pass. The nucleus is
a few hundred tokens nearly always: picking the likeliest LIMIT out of the vocabulary is linear, and only those are sorted.
"""

from collections.abc import Callable

import mlx.core as mx
from mlx_lm.sample_utils import make_sampler

LIMIT = 4096  # tokens that the nucleus is looked for among


def nucleus_sampler(temperature: float, top_p: float, limit: int = LIMIT) -> Callable[[mx.array], mx.array]:
    """A sampler as mlx-lm's `make_sampler(temp, top_p)`: (batch, vocabulary) log-probabilities in, (batch,) token ids out.

    As there, the nucleus is that of the untempered distribution: the likeliest tokens down to the one that brings their
    probability to `top_p`. A nucleus of more than `limit` tokens ends there. 16-bit log-probabilities are computed with in float32.
    """
    if temperature == 0 or top_p == 1:
        return make_sampler(temp=temperature)

    def sampler(logprobs: mx.array) -> mx.array:
        vocabulary = logprobs.shape[-1]
        if logprobs.dtype != mx.float32:
            # Their rounding moves the whole distribution by some percent, and a sum of thousands in 16 bits is wrong besides.
            logprobs = logprobs.astype(mx.float32)
            logprobs = logprobs - mx.logsumexp(logprobs, axis=-1, keepdims=True)
        if vocabulary > limit:
            likeliest = mx.argpartition(logprobs, kth=vocabulary - limit, axis=-1)[..., -limit:]
            values = mx.take_along_axis(logprobs, likeliest, axis=-1)
        else:
            likeliest, values = None, logprobs
        rising = mx.sort(values, axis=-1)
        above = mx.cumsum(mx.exp(rising), axis=-1, reverse=True, inclusive=False)
        smallest = mx.take_along_axis(rising, (above >= top_p).sum(axis=-1, keepdims=True), axis=-1)
        kept = mx.where(values < smallest, -mx.inf, values)
        drawn = mx.random.categorical(kept * (1 / temperature))
        return drawn if likeliest is None else mx.take_along_axis(likeliest, drawn[..., None], axis=-1)[..., 0]

    return sampler
