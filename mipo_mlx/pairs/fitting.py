"""How well prompts fit contexts, by memory: with `pairs.fitting`, a share of the grids asks about what its contexts say.

An everyday request under a passage about something else gives answers that use the passage little. Memory ranks the passages of
the run for each request as it does in use. Nothing is measured yet, so `pairs.fitting` is 0 by default.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..memory.access import embedder_of
from ..memory.contexts import INDEX
from ..memory.index import Index
from ..memory.retrieve import Memory
from ..models.load import LoadedModel
from ..progress import Reporter
from ..recipe import Recipe
from ..records import Context, Prompt
from ..sources.note import Passage
from .grids import Fit

RANKED = 8  # times contexts_per_grid: notes that are ranked for a prompt; those behind fit alike


def fit_of(recipe: Recipe, contexts: Sequence[Context], prompts: Sequence[Prompt], loaded: LoadedModel) -> Fit | None:
    """The fit of each prompt and context; None where the recipe deals all at random. Only the best passage of a note counts."""
    if not recipe.pairs.fitting:
        return None
    scores: dict[tuple[str, str, int, str], float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        index = Index(Path(scratch) / INDEX)
        index.add(Passage(c.text, c.note, c.source, c.line, c.tokens) for c in contexts)
        embedder = embedder_of(recipe, loaded)
        if embedder:
            index.embed(embedder, Reporter(quiet=True))
        memory = Memory(index, embedder)
        for prompt in (prompt for prompt in prompts if prompt.kind in recipe.pairs.kinds):
            for match in memory.ranked(prompt.text, RANKED * recipe.pairs.contexts_per_grid):
                entry = match.entry
                scores[prompt.id, entry.source, entry.line, entry.text] = match.score
        index.close()

    def fit(prompt: Prompt, context: Context) -> float:
        return scores.get((prompt.id, context.source, context.line, context.text), 0.0)

    return fit
