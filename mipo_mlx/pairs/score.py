"""The scores of grids, and the reference log-probabilities of pairs.

The score matrix of a grid says how likely every answer is under every context, by the model that wrote them. Pairs need scores of
their own where another model than the reference sampled them. That is the policy of the round before, a model elsewhere, or the
base where the recipe names another reference (`training.reference`).
"""

from dataclasses import replace
from typing import Any

from ..engine.logprobs import Recorded, token_logprobs, total
from ..errors import UserError
from ..models.load import load, load_tokenizer
from ..progress import Reporter
from ..records import HELDOUT, Pair


def score_grids(
    model: Any, grids: list[tuple[list[list[int]], list[list[int]]]], recorded: list[Recorded] | None = None
) -> list[list[list[float]]]:
    """Scores of several grids at once, so that their rows share batches.

    grids: (prompts, answers) of each grid as token ids, K of both. Returns K x K summed log-probabilities of each grid in
    nats: [i][j] is answer j after prompt i. `recorded`: keys and values of all grids' prompts, one after the other, where sampling
    has left them.
    """
    prompts = [prompt for rows, _ in grids for prompt in rows]
    answers = [candidates for rows, candidates in grids for _ in rows]
    logps = token_logprobs(model, prompts, answers, recorded=recorded)
    sums = iter([[total(tokens) for tokens in row] for row in logps])
    return [[next(sums) for _ in rows] for rows, _ in grids]


AT_ONCE = 32  # pairs between two moves of the bar


def with_reference(pairs: list[Pair], model: Any, reporter: Reporter) -> list[Pair]:
    """The pairs with `reference` computed by `model`: summed log-probabilities of the candidates in nats, rounded to 1e-5."""
    scored_pairs: list[Pair] = []
    with reporter.track("scoring under the reference", total=len(pairs), unit="pairs") as bar:
        for first in range(0, len(pairs), AT_ONCE):
            part = pairs[first : first + AT_ONCE]
            scored = token_logprobs(model, [pair.prompt_tokens for pair in part], [pair.tokens for pair in part])
            for pair, candidates in zip(part, scored, strict=True):
                scored_pairs.append(replace(pair, reference=[total(tokens) for tokens in candidates]))
            bar.advance(len(part))
    return scored_pairs


def under_named_reference(pairs: list[Pair], name: str, reporter: Reporter) -> list[Pair]:
    """The pairs with the reference of model `name`; held-out ones keep the base's, with which evaluation compares."""
    model = load(name).model
    changed = iter(with_reference([pair for pair in pairs if pair.split != HELDOUT], model, reporter))
    return [pair if pair.split == HELDOUT else next(changed) for pair in pairs]


def check_same_tokenizer(name: str, tokenizer: Any) -> None:
    """Raise UserError unless model `name` gives every token the id that `tokenizer` gives it."""
    own, other = tokenizer.get_vocab(), load_tokenizer(name).get_vocab()
    if own != other:
        differing = sum(other.get(token) != number for token, number in own.items())
        raise UserError(
            f"training.reference: {name} has another tokenizer than the base ({differing:,} of {len(own):,} tokens differ), so it "
            "cannot score the same token ids; name a model of the base's family, or write base"
        )
