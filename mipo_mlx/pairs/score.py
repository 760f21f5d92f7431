"""The score matrix of a grid: how likely every answer is under every context, by the model that wrote them."""

from typing import Any

from ..logprobs import Recorded, token_logprobs, total


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
