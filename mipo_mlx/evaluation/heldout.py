"""How well the trained model tells apart the held-out pairs, which it never trained on: loss, accuracy, margin, information."""

from collections.abc import Sequence
from dataclasses import fields

from .. import preference
from ..recipe import Recipe
from ..records import Pair
from .outcome import Heldout
from .statistics import MEAN, SHARE, Measures, Resampler, key_of, too_few


def evaluate(pairs: Sequence[Pair], policy: Sequence[Sequence[float]], notes: dict[str, str], recipe: Recipe) -> Heldout:
    """Measures of the held-out pairs before (the reference itself) and after training, with intervals.

    policy: for each pair, the candidates' summed log-probabilities under the trained model, nats. notes: whose each context is, by
    the context's id. Information is log N - loss, for the recipe's beta and whatever objective was trained. It is a lower bound on
    what the answer tells about the context (InfoNCE, van den Oord et al. 2018).
    """
    beta = recipe.training.beta
    # Pairs of one grid share answers. A grid has one request or, without contexts, one for each row, which then share the grid.
    named = [pair.context_id and notes.get(pair.context_id, pair.context_id) for pair in pairs]
    of_notes = [name or pair.grid for name, pair in zip(named, pairs, strict=True)]
    clusters = [of_notes, [pair.prompt_id or pair.grid for pair in pairs]]
    before = [preference.measure(pair.reference, pair.reference, beta) for pair in pairs]
    after = [preference.measure(scores, pair.reference, beta) for scores, pair in zip(policy, pairs, strict=True)]
    resampler = Resampler(clusters, recipe.evaluation.bootstrap, recipe.seed)
    measures = Measures([key_of(pair.prompt, pair.tokens) for pair in pairs], resampler)
    for name in (measure.name for measure in fields(preference.Preference)):
        values = [[getattr(pair, name) for pair in side] for side in (before, after)]
        measures.add(name, values[0], values[1], SHARE if name == "accuracy" else MEAN)
    return Heldout(
        pairs=len(pairs),
        grids=len({pair.grid for pair in pairs}),
        contexts=len({pair.context_id for pair in pairs} - {None}),
        candidates=max(len(pair.tokens) for pair in pairs),
        beta=beta,
        no_interval=too_few(clusters),
        metrics=measures.metrics,
        items=measures.items(),
    )
