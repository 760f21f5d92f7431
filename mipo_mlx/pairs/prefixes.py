"""Prompts are run once: their keys and values go to the batch generator first and to scoring after it, and prefixes that come
back in later prompts are kept.

What is shared is found in the token ids, whatever the chat template: every prompt's opening (system header), and for each
context what all prompts with that context begin with. Prefixes and prompts are always run by themselves, from the same
beginning, so their bits do not depend on when that happens: a resumed run computes the same ones.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache

from ..fastmath import swapped
from ..prefix import text_model
from ..sampling import Layers, Start

SHORTEST = 16  # tokens: below that a prefix is not worth a pass of its own
KEPT_BYTES = 1 << 30  # keys and values of contexts kept for later grids; the least recently used go first


class Prefixes:
    """Prefixes of all prompts of a run, computed on first use. `prompts`: token ids of each, `groups`: a label for each (its
    context's id); prompts of one label share their common prefix."""

    def __init__(self, model: Any, prompts: Sequence[list[int]], groups: Sequence[Any], kept_bytes: int = KEPT_BYTES):
        self.model, self.kept_bytes = model, kept_bytes
        self.usable = all(type(layer) is KVCache for layer in make_prompt_cache(model))
        members: dict[Any, list[list[int]]] = {}
        for prompt, group in zip(prompts, groups, strict=True):
            members.setdefault(group, []).append(prompt)
        opening = common_prefix(prompts) if len(prompts) > 1 else []
        self.opening = opening if len(opening) >= SHORTEST else []
        self.shared = {
            group: prefix
            for group, found in members.items()
            if len(found) > 1 and len(prefix := common_prefix(found)) - len(self.opening) >= SHORTEST
        }
        self._opened: Layers | None = None
        self._kept: OrderedDict[Any, Layers] = OrderedDict()

    def start(self, prompt: list[int], group: Any) -> Start:
        """Run `prompt` but its last token, from the longest prefix that is shared. The cache must not be written to."""
        if not self.usable or len(prompt) < 2:
            return Start(None, prompt)
        begun = self._group(group) if group in self.shared else self._opening()
        return Start(self._run(prompt[:-1], begun), prompt[-1:])

    def _opening(self) -> Layers | None:
        if self.opening and self._opened is None:
            self._opened = self._run(self.opening, None)
        return self._opened

    def _group(self, group: Any) -> Layers:
        if group not in self._kept:
            self._kept[group] = self._run(self.shared[group], self._opening())
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


def common_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """What all token lists begin with, but never all of one: at least one token remains to be run."""
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
