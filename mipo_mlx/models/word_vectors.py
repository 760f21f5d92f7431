"""Static sentence vectors from the base's own embedding table: an embedder where none is installed.

A text is the weighted mean of its words' rows (Arora, Liang and Ma 2017, A Simple but Tough-to-Beat Baseline for Sentence
Embeddings). Rows are centred, of unit length, and lose the directions that most tokens share. Rare tokens weigh more. How
frequent a token is follows from its id, by Zipf's law: a tokenizer learns frequent tokens first, so nothing depends on the notes.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

import mlx.core as mx
import numpy as np

from ..engine.prefix import text_model
from ..engine.tables import embedding_of
from .load import LoadedModel

SAMPLE = 8192  # tokens from which the centre and the shared directions are computed
SHARED = 16  # directions that are removed
RARE = 1e-4  # the probability from which a token weighs less than half
WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
WIDEST = 576  # dimensions; a wider table is projected onto as many random ones


class WordVectors:
    """The vectors of texts under one base model."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.name = f"words of {loaded.name}"
        self.tokenizer = loaded.tokenizer
        self.table = embedding_of(text_model(loaded.model))
        self._place: dict[str, int] = {}  # of a word in `_vectors`
        self._vectors = np.zeros((0, self._centre[0].shape[-1]), np.float32)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, at most WIDEST) unit vectors; a text without a word is a row of zeros."""
        words = [WORD.findall(text) for text in texts]
        self._learn(dict.fromkeys(word for some in words for word in some if word not in self._place))
        vectors = np.stack([self._vectors[[self._place[word] for word in some]].sum(0) for some in words])
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def _learn(self, words: Iterable[str]) -> None:
        """Keep the vector of each word, the sum over its tokens: notes have far fewer words than tokens."""
        new = list(words)
        if new:
            tokens = [self.tokenizer.encode(f" {word}", add_special_tokens=False) for word in new]
            known, where = np.unique(np.concatenate(tokens), return_inverse=True)
            starts = np.cumsum([0, *(len(ids) for ids in tokens[:-1])])
            added = np.add.reduceat(self._weighted(known)[where], starts)
            self._place.update(zip(new, range(len(self._place), len(self._place) + len(new)), strict=True))
            self._vectors = np.concatenate([self._vectors, added])

    def _weighted(self, tokens: np.ndarray) -> np.ndarray:
        """(tokens, dimensions): the cleaned row of each token times its weight."""
        middle, mean, shared = self._centre
        rows = _unit(self._raw(tokens) - middle) - mean
        rows = rows - (rows @ shared.T) @ shared
        probability = 1 / ((tokens + 1) * np.log(self._vocabulary))
        return (rows * (RARE / (RARE + probability))[:, None]).astype(np.float32)

    @cached_property
    def _centre(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The mean row, the mean of the centred rows of unit length, and the SHARED directions that these have most in common."""
        rows = self._raw(np.linspace(0, self._vocabulary - 1, min(SAMPLE, self._vocabulary)).astype(np.int64))
        middle = rows.mean(0)
        rows = _unit(rows - middle)
        mean = rows.mean(0)
        _, directions = np.linalg.eigh((rows - mean).T @ (rows - mean))
        return middle, mean, directions[:, ::-1][:, :SHARED].T

    @cached_property
    def _vocabulary(self) -> int:
        return int(self.table.weight.shape[0]) if "weight" in self.table else int(self.table.stored.shape[0])

    @cached_property
    def _projection(self) -> np.ndarray | None:
        width = self.table(mx.array([0])).shape[-1]
        if width <= WIDEST:
            return None
        drawn = np.random.default_rng(0).standard_normal((width, WIDEST))
        return np.linalg.qr(drawn)[0].astype(np.float32)

    def _raw(self, tokens: np.ndarray) -> np.ndarray:
        rows = np.array(self.table(mx.array(tokens)).astype(mx.float32))
        return rows if self._projection is None else rows @ self._projection


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)
