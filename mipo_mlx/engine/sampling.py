"""Sample answers for a batch of prompts with mlx-lm's continuous batching; the same seed gives the same answers.

Top-p sampling does not sort the vocabulary on a CPU, and sorts it once on a GPU. mlx-lm sorts all log-probabilities at every step,
which on a CPU takes longer than a small model's forward pass. The nucleus is nearly always a few hundred tokens. So the likeliest
LIMIT tokens are picked, which takes linear time, and only those are sorted.

`Prefixes` runs each prompt once. Its keys and values go to the batch generator first and to scoring after it. Token ids alone say
what prompts share: the opening of all prompts (system header), of a grid's prompts (its distractors), and of a context's. Prefixes
always run by themselves, from the same beginning, and so do the prompts of pairs (`start`). So their bits do not depend on when
they run, and a resumed run computes the same ones. Elsewhere the rest of a batch of prompts runs together (`starts`): a pass reads
all weights, which takes as long as 70 tokens. That rounds differently, so a seed draws other answers: a draw depends on the size
of the largest nucleus.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import KVCache, make_prompt_cache
from mlx_lm.sample_utils import make_sampler

from .. import backend
from ..recipe import Pairs
from ..records import Answer
from ..text.words import whole_sentences
from . import fast
from .cpu import exp_minus, swapped
from .logprobs import Recorded, pad, stacked
from .prefix import Layout, Prefix, grouped_scores, sliding_windows, text_model

Layers = list[KVCache]
Labels = tuple[Any, ...]


@dataclass(frozen=True)
class Start:
    """A prompt that ran up to the `tokens` that remain: its last one, or all where the model's caches are of other kinds."""

    cache: Layers | None
    tokens: list[int]

    @property
    def recorded(self) -> Recorded | None:
        """The prompt's keys and values, as `token_logprobs` takes them."""
        return [(layer.keys, layer.values) for layer in self.cache] if self.cache else None


def sample(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]] | list[Start],
    settings: Pairs,
    key: int,
    finished: Callable[[Answer], None] = lambda answer: None,
) -> list[Answer]:
    """One answer to each prompt (token ids, or prompts that ran before), in their order.

    An answer's tokens end with the end-of-turn token where the model wrote one (finish "stop"). An answer that is cut at
    `settings.max_tokens` gets none; with `settings.whole_sentences` it ends at its last whole sentence. `finished` is called
    with each answer as it ends.
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
    # Long prompts first: neighbours of like length need least padding, and the last prompts are the quickest to begin.
    order = sorted(range(len(starts)), key=lambda i: (-length_of(starts[i]), i))
    answers: dict[int, Answer] = {}
    mx.random.seed(key)
    try:
        caches = [starts[i].cache or make_prompt_cache(model) for i in order]
        uids = generator.insert([starts[i].tokens for i in order], [settings.max_tokens] * len(order), caches=caches)
        place = dict(zip(uids, order, strict=True))
        written: dict[int, list[int]] = {uid: [] for uid in uids}
        with fast(model):
            while responses := generator.next_generated():
                for response in responses:
                    written[response.uid].append(response.token)
                    if response.finish_reason is not None:
                        tokens = written[response.uid]
                        if settings.whole_sentences and response.finish_reason == "length":
                            tokens = without_last_part(tokenizer, tokens)
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


def without_last_part(tokenizer: Any, tokens: list[int]) -> list[int]:
    """The first tokens, up to the end of the last whole sentence. All tokens where no sentence ends."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    whole = whole_sentences(text)
    if len(whole) == len(text):
        return tokens
    return next(
        tokens[:n] for n in range(1, len(tokens) + 1) if tokenizer.decode(tokens[:n], skip_special_tokens=True).startswith(whole)
    )


LIMIT = 4096  # tokens that may be in the nucleus


def nucleus_sampler(
    temperature: float, top_p: float, limit: int = LIMIT, draw: Callable[[mx.array], mx.array] | None = None
) -> Callable[[mx.array], mx.array]:
    """A sampler as mlx-lm's `make_sampler(temp, top_p)`: (batch, vocabulary) log-probabilities in, (batch,) token ids out.

    As there, the nucleus is that of the untempered distribution: the likeliest tokens down to the one that brings their
    probability to `top_p`. A nucleus has at most `limit` tokens. 16-bit log-probabilities are taken to float32 first.
    draw: (batch, tokens) unnormalised log-probabilities in, (batch,) places out; None: MLX's own, from the seed of the thread.
    """
    if top_p == 1 and temperature > 0 and draw:
        return lambda logprobs: draw(logprobs * (1 / temperature))
    if temperature == 0 or top_p == 1:
        plain: Callable[[mx.array], mx.array] = make_sampler(temp=temperature)
        return plain

    def sampler(logprobs: mx.array) -> mx.array:
        if logprobs.dtype != mx.float32:
            # Their rounding moves the whole distribution by some percent, and 16 bits cannot hold a sum of thousands.
            logprobs = logprobs.astype(mx.float32)
            logprobs = logprobs - mx.logsumexp(logprobs, axis=-1, keepdims=True)
        values, ids = (_nucleus_on_cpu if backend.on_cpu() else _nucleus)(logprobs, top_p, limit)
        drawn = (draw or mx.random.categorical)(values * (1 / temperature))
        return mx.take_along_axis(ids, drawn[..., None], axis=-1)[..., 0]

    return sampler


def _nucleus(logprobs: mx.array, top_p: float, limit: int) -> tuple[mx.array, mx.array]:
    """Log-probabilities of the `limit` likeliest tokens, rising, -inf outside the nucleus; and their ids: (batch, limit) both."""
    ids = mx.argsort(logprobs, axis=-1)[..., -limit:]
    rising = mx.take_along_axis(logprobs, ids, axis=-1)
    return mx.where(rising < _smallest(rising, top_p), -mx.inf, rising), ids


def _nucleus_on_cpu(logprobs: mx.array, top_p: float, limit: int) -> tuple[mx.array, mx.array]:
    """As `_nucleus`, by the order of ids, (batch, tokens of the largest nucleus) both. NumPy sorts four to nine times as fast."""
    values = np.array(logprobs)
    likeliest = np.partition(values, -limit, axis=-1)[..., -limit:] if values.shape[-1] > limit else values
    inside = values >= np.array(_smallest(mx.array(np.sort(likeliest, axis=-1)), top_p))
    rows, tokens = np.nonzero(inside)
    sizes = inside.sum(axis=-1)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.full((len(values), sizes.max()), -np.inf, np.float32)
    ids = np.zeros(kept.shape, np.int32)
    kept[rows, places], ids[rows, places] = values[rows, tokens], tokens
    return mx.array(kept), mx.array(ids)


def _smallest(rising: mx.array, top_p: float) -> mx.array:
    """The log-probability of the last token that the nucleus needs, (batch, 1); rising: (batch, tokens), sorted."""
    above = mx.cumsum(exp_minus(rising, mx.zeros((1, 1))), axis=-1, reverse=True, inclusive=False)
    return mx.take_along_axis(rising, (above >= top_p).sum(axis=-1, keepdims=True), axis=-1)


SHORTEST = 16  # tokens: a shorter prefix is not worth a pass of its own
AT_ONCE = 2048  # tokens of prompts that run together, padding included
KEPT_BYTES = 1 << 30  # most keys and values of contexts kept for later grids; the least recently used go first


class Prefixes:
    """Prefixes of all prompts of a run, computed on first use.

    prompts: token ids of each. labels: for each the groups that it is in, the widest first (its grid's distractors, its context).
    Prompts whose labels begin alike share their common prefix. A narrower group begins with the prefix of the wider one.
    """

    def __init__(self, model: Any, prompts: Sequence[list[int]], labels: Sequence[Labels], kept_bytes: int | None = None):
        self.model, self.kept_bytes = model, backend.cache_bytes(KEPT_BYTES) if kept_bytes is None else kept_bytes
        self.usable = all(type(layer) is KVCache for layer in make_prompt_cache(model))
        members: dict[Labels, list[list[int]]] = {}
        for prompt, own in zip(prompts, labels, strict=True):
            for depth in range(1, len(own) + 1):
                members.setdefault(own[:depth], []).append(prompt)
        opening = common_prefix(prompts) if len(prompts) > 1 else []
        self.opening = opening if len(opening) >= SHORTEST else []
        self.shared: dict[Labels, list[int]] = {}
        for group in sorted(members, key=len):  # the wider ones first
            prefix = common_prefix(members[group]) if len(members[group]) > 1 else []
            if len(prefix) - len(self.shared.get(self._with_prefix(group[:-1]), self.opening)) >= SHORTEST:
                self.shared[group] = prefix
        self._opened: Layers | None = None
        self._kept: OrderedDict[Labels, Layers] = OrderedDict()

    def start(self, prompt: list[int], labels: Labels) -> Start:
        """Run `prompt` but its last token, from the longest shared prefix. Callers must not write to the cache."""
        if not self.usable or len(prompt) < 2:
            return Start(None, prompt)
        return Start(self._run(prompt[:-1], self._begun(labels)), prompt[-1:])

    def starts(self, prompts: Sequence[list[int]], labels: Sequence[Labels]) -> list[Start]:
        """As `start` of each, where prompts with a shared prefix run together, in their order and AT_ONCE tokens at a time."""
        if not self.usable or sliding_windows(self.model) is None:
            return [self.start(prompt, own) for prompt, own in zip(prompts, labels, strict=True)]
        parts: list[list[int]] = []
        widest = 0
        for i, (prompt, group) in enumerate(zip(prompts, labels, strict=True)):
            if len(prompt) > 1 and (self.opening or self._with_prefix(group)):
                widest = max(widest, len(prompt))
                if not parts or (len(parts[-1]) + 1) * widest > AT_ONCE:
                    parts.append([])
                    widest = len(prompt)
                parts[-1].append(i)
        caches: dict[int, Layers] = {}
        for part in parts:
            rows = [(prompts[i][:-1], self._begun(labels[i]) or []) for i in part]
            caches |= dict(zip(part, self._run_together(rows), strict=True))
        return [
            Start(caches[i], prompt[-1:]) if i in caches else self.start(prompt, group)
            for i, (prompt, group) in enumerate(zip(prompts, labels, strict=True))
        ]

    def _with_prefix(self, group: Labels) -> Labels:
        """The narrowest group around this one, or itself, that has a prefix; () where none has."""
        while group and group not in self.shared:
            group = group[:-1]
        return group

    def _begun(self, labels: Labels) -> Layers | None:
        group = self._with_prefix(labels)
        return self._group(group) if group else self._opening()

    def _opening(self) -> Layers | None:
        if self.opening and self._opened is None:
            self._opened = self._run(self.opening, None)
        return self._opened

    def _group(self, group: Labels) -> Layers:
        if group not in self._kept:
            self._kept[group] = self._run(self.shared[group], self._begun(group[:-1]))
        self._kept.move_to_end(group)
        while len(self._kept) > 1 and sum(map(nbytes, self._kept.values())) > self.kept_bytes:
            self._kept.popitem(last=False)
        return self._kept[group]

    def _run(self, tokens: list[int], begun: Layers | None) -> Layers:
        """Keys and values of `tokens`, of which `begun` has the first ones already."""
        cache = [copy_of(layer) for layer in begun or make_prompt_cache(self.model)]
        left = tokens[cache[0].offset :]
        if left:
            with swapped(text_model(self.model)):
                self.model(mx.array([left]), cache=cache)
        for layer in cache:  # drop the room for growth: these are only read from now on
            layer.keys, layer.values = (mx.contiguous(x[..., : layer.offset, :]) for x in (layer.keys, layer.values))
        mx.eval([layer.state for layer in cache])
        return cache

    def _run_together(self, rows: Sequence[tuple[list[int], Layers]]) -> list[Layers]:
        """Keys and values of several prompts, of which each has the first ones already."""
        text = text_model(self.model)
        known = [[(layer.keys, layer.values) for layer in begun] for _, begun in rows]
        lengths = [begun[0].offset for _, begun in rows]
        tails, _ = pad([tokens[length:] or [0] for (tokens, _), length in zip(rows, lengths, strict=True)])
        layout = Layout(mx.array(lengths), max(lengths), 1, grouped_scores(self.model))
        caches = [Continued(*layer, layout, None) for layer in stacked(known, max(lengths))]
        with swapped(text):
            self.model(tails, cache=caches)
        caches_of_rows: list[Layers] = []
        for r, (tokens, begun) in enumerate(rows):
            own = slice(0, len(tokens) - lengths[r])
            tail = [[x[r : r + 1, :, own] for x in cache.own] for cache in caches]
            caches_of_rows.append([extended(before, *more) for before, more in zip(begun, tail, strict=True)])
            mx.eval([layer.state for layer in caches_of_rows[-1]])
        return caches_of_rows


class Continued(Prefix):
    """Cache of one layer where prompts go on behind prefixes of their own; it keeps their keys and values."""

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.own = keys, values
        return super().update_and_fetch(keys, values)


def extended(before: KVCache, keys: mx.array, values: mx.array) -> KVCache:
    """A cache with these keys and values behind those of `before`."""
    layer = copy_of(before)
    layer.keys, layer.values = mx.concatenate([before.keys, keys], axis=2), mx.concatenate([before.values, values], axis=2)
    layer.offset = before.offset + keys.shape[2]
    return layer


def common_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """What all token lists begin with, but never all of one: at least one token remains to run."""
    low, high = min(prompts), max(prompts)  # in lexical order: what these two share, all share
    most = min(map(len, prompts)) - 1
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[: max(0, min(length, most))]


def copy_of(layer: KVCache) -> KVCache:
    """A cache that may grow without touching the original's arrays."""
    copied = KVCache()
    if layer.keys is not None:
        copied.keys, copied.values, copied.offset = layer.keys, layer.values, layer.offset
    return copied


def nbytes(layers: Layers) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)
