"""Which texts of a recipe are paths, and where they lead."""

import os
from pathlib import Path

from .recipe import Dataset, Recipe


def resolve_paths(values: Recipe, base: Path) -> Recipe:
    """Paths in a recipe are relative to the recipe's own folder; make them absolute."""

    def absolute(text: str) -> str:
        return str((base / os.path.expanduser(text)).resolve())  # "~" before no user is left as it is, where pathlib's would raise

    def resolved(model: str) -> str:
        local = model.startswith(("./", "../", "~")) or model.endswith(".gguf") and not model.startswith(("ollama:", "lmstudio:"))
        return absolute(model) if local else model

    def local_copy(given: Dataset) -> Dataset:
        local = given.name.startswith((".", "~")) or given.name.endswith((".json", ".jsonl", ".parquet", ".csv"))
        return given.model_copy(update={"name": absolute(given.name)}) if local else given

    sources = values.sources
    if sources.notes:
        sources = sources.model_copy(update={"notes": absolute(sources.notes)})
    if sources.prompts != "builtin":
        sources = sources.model_copy(update={"prompts": absolute(sources.prompts)})
    for key in ("dataset", "prompt_dataset"):
        if given := getattr(sources, key):
            sources = sources.model_copy(update={key: local_copy(given)})
    evaluation = values.evaluation
    if abilities := evaluation.abilities:
        found = absolute(abilities) if isinstance(abilities, str) else local_copy(abilities)
        evaluation = evaluation.model_copy(update={"abilities": found})
    judge = evaluation.judge
    if judge:
        judges = {"judge": resolved(judge) if isinstance(judge, str) else [resolved(name) for name in judge]}
        evaluation = evaluation.model_copy(update=judges)
    pairs, training = values.pairs, values.training
    if pairs.file:
        pairs = pairs.model_copy(update={"file": absolute(pairs.file)})
    training = training.model_copy(update={"reference": resolved(training.reference)})
    changed = {"sources": sources, "pairs": pairs, "training": training, "evaluation": evaluation, "model": resolved(values.model)}
    return values.model_copy(update=changed)
