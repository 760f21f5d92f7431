"""Opens the memory of a run as its recipe wants it: the index, up to date with the notes, its embedder, and its reranker."""

from pathlib import Path

from ..errors import UserError
from ..models import embedding
from ..models.load import LoadedModel
from ..models.prompts import count_tokens
from ..models.word_vectors import WordVectors
from ..progress import Reporter
from ..recipe import Recipe
from ..sources.changes import Changes
from .contexts import profile_of
from .index import open_index
from .reranker import affordable
from .retrieve import Memory


def open_memory(folder: Path, recipe: Recipe, loaded: LoadedModel, reporter: Reporter) -> Memory | None:
    """The memory of the run in `folder`; None, with a warning, where it has no notes of its owner."""
    if not (recipe.sources.notes or recipe.sources.dataset) or recipe.sources.whose() is not None:
        return None  # no notes, or those of several people
    try:
        index = open_index(folder, recipe, lambda text: count_tokens(loaded.tokenizer, text), reporter)
    except UserError as error:
        reporter.warn(f"{error}; answers go without notes")
        return None
    embedder = embedder_of(recipe, loaded)
    if embedder:
        index.embed(embedder, reporter)
    return Memory(index, embedder, affordable(loaded, recipe.pairs) if recipe.memory.second_look else None)


def renew(memory: Memory, folder: Path, recipe: Recipe, loaded: LoadedModel, reporter: Reporter) -> Changes:
    """Bring an open memory up to date with the notes of the run in `folder`; returns what was new, changed and gone."""
    index = memory.index
    changes = index.refresh(recipe, lambda text: count_tokens(loaded.tokenizer, text), reporter, profile_of(folder, recipe))
    if memory.embedder:
        index.embed(memory.embedder, reporter)
    return changes


def embedder_of(recipe: Recipe, loaded: LoadedModel) -> embedding.Embedder | None:
    """The embedder that `memory.embedder` names; None for words alone."""
    name = recipe.memory.embedder
    installed = embedding.minilm() if name == "auto" else None
    if installed:
        return installed
    if name in ("auto", "base"):
        return WordVectors(loaded)
    return None if name == "words" else embedding.Static(name)
