"""In a share of the training pairs the context itself, said back, takes the place of the last rejected answer.

Whatever tells contexts apart is rewarded, and nothing does that as surely as repeating them. Answers that do are kept from being
chosen (filters.py), but a base hardly writes any, so training has none to push down. This gives it some.
"""

from dataclasses import replace
from typing import Any

from ..logprobs import token_logprobs, total
from ..recipe import Recipe
from ..records import TRAIN, Context, Pair
from .build import SAID_BACK
from .plan import seeded

AT_ONCE = 32  # pairs scored together


def add(pairs: list[Pair], contexts: dict[str, Context], recipe: Recipe, model: Any, tokenizer: Any) -> list[Pair]:
    """The pairs, `pairs.said_back` of those to train on with their passage as the last candidate: its first `pairs.max_tokens`
    tokens, with no end of turn, as an answer that was cut. `reference` is `model`'s.

    Pairs keep their number of candidates, so that the loss still begins at its logarithm; the chosen answer's PMI stays that
    against the wrong context whose answer gave way.
    """
    found = list(pairs)
    drawn = [i for i, pair in enumerate(pairs) if _passage(pair, contexts) and _is_drawn(pair, recipe)]
    for first in range(0, len(drawn), AT_ONCE):
        some = [pairs[i] for i in drawn[first : first + AT_ONCE]]
        texts = [_passage(pair, contexts) for pair in some]
        tokens = [tokenizer.encode(text, add_special_tokens=False)[: recipe.pairs.max_tokens] for text in texts]
        scored = token_logprobs(model, [pair.prompt_tokens for pair in some], [[ids] for ids in tokens])
        for i, ids, (logps,) in zip(drawn[first:], tokens, scored, strict=False):
            text = tokenizer.decode(ids, skip_special_tokens=True)  # what the ids spell, so that the file can be imported again
            pair, score = pairs[i], total(logps)
            negatives = [*pair.negatives[:-1], text]
            found[i] = replace(
                pair,
                rejected=[{"role": "assistant", "content": negatives[0]}],
                negatives=negatives,
                tokens=[*pair.tokens[:-1], ids],
                reference=[*pair.reference[:-1], score],
                kinds=[*pair.kinds[:-1], SAID_BACK],
            )
    return found


def _passage(pair: Pair, contexts: dict[str, Context]) -> str:
    return contexts[pair.context_id].text if pair.context_id else ""


def _is_drawn(pair: Pair, recipe: Recipe) -> bool:
    return pair.split == TRAIN and seeded(recipe, f"said back {pair.id}").random() < recipe.pairs.said_back
