"""Canaries: invented lines with random digits that are planted in some contexts of a run, never in the user's files.

The evaluation tests whether the trained model recites them (Carlini et al. 2019, The Secret Sharer).
"""

import random
from dataclasses import replace

from ..errors import UserError
from ..records import TRAIN, Context, seed_for
from .chunks import CountTokens

STEMS = (
    "The code of my locker is",
    "My library card has the number",
    "The frame of my bicycle is stamped",
    "At the bakery I am customer number",
    "The alarm at home is switched off with",
    "My raffle ticket says",
    "The meter in the cellar has the number",
    "My boat's sail carries the number",
)
DIGITS = 6


def lines(seed: int, count: int) -> list[str]:
    """`count` different canaries, the same for the same seed; a smaller count gives the first of them."""
    rng = random.Random(seed_for(seed, "canaries"))
    return [f"{STEMS[i % len(STEMS)]} {number}." for i, number in enumerate(_numbers(rng, count))]


def siblings(canary: str, count: int, seed: int) -> list[str]:
    """`count` lines that differ from a canary in their digits alone, drawn in the same way, and planted nowhere."""
    stem, _, own = canary.rstrip(".").rpartition(" ")
    rng = random.Random(seed_for(seed, f"siblings of {canary}"))
    return [f"{stem} {number}." for number in _numbers(rng, count + 1) if number != own][:count]


def _numbers(rng: random.Random, count: int) -> list[str]:
    return [f"{number:0{DIGITS}}" for number in rng.sample(range(10**DIGITS), count)]


def plant(contexts: list[Context], seed: int, count: int, count_tokens: CountTokens) -> list[Context]:
    """The contexts, with a canary as the last sentence of `count` training ones, of different notes while there are enough.

    Raises UserError where there are fewer training contexts than canaries.
    """
    rng = random.Random(seed_for(seed, "where canaries go"))
    order = rng.sample([c for c in contexts if c.split == TRAIN], sum(c.split == TRAIN for c in contexts))
    if count > len(order):
        raise UserError(f"sources.canaries: {count} canaries, but only {len(order)} training contexts to plant them in; lower it")
    one_a_note = {c.note: c for c in reversed(order)}  # the first context of each note
    first = [c for c in order if one_a_note[c.note] is c]
    chosen = {c.id: line for c, line in zip([*first, *(c for c in order if c not in first)], lines(seed, count), strict=False)}
    return [_with(c, chosen[c.id], count_tokens) if c.id in chosen else c for c in contexts]


def without(text: str, seed: int, count: int) -> str:
    """A context's text without its canary: a profile and other texts from notes must not have one."""
    for line in lines(seed, count):
        text = text.replace(f" {line}", "")
    return text


def unplanted(contexts: list[Context], seed: int, count: int) -> list[Context]:
    """The contexts as they were before canaries were planted."""
    return [replace(context, text=without(context.text, seed, count)) for context in contexts]


def _with(context: Context, line: str, count_tokens: CountTokens) -> Context:
    text = f"{context.text} {line}" if context.text[-1:] in ".!?:" else f"{context.text}. {line}"
    return replace(context, text=text, tokens=count_tokens(text))
