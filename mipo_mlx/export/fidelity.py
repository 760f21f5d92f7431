"""How much of what was trained survives in an exported file, measured on held-out answers.

Rounding weights adds noise, and what LoRA learned can be smaller than that noise. So the distance of the exported model to the
adapter model is divided by the distance that training moved the base: `lost` = KL(adapters || file) / KL(adapters || base).
MLX computes all three in float32, so that a GPU's 16 bits add no noise of their own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..engine.precision import in_float32
from ..files import read_records
from ..gguf_format.types import BETTER
from ..models import adapters, load
from ..records import HELDOUT, Pair
from . import llamacpp
from .results import LIMIT, Fidelity, percent

POSITIONS = 96  # of answer tokens, spread over the answers
POSITIONS_LLAMACPP = 24  # each costs a call
TOP = 4096  # probabilities that llama.cpp returns at a position; the others are compared as one lump

Places = list[tuple[list[int], list[int]]]  # (token ids, positions whose next token is an answer's)
Measure = Callable[[Path], Fidelity]


@dataclass(frozen=True)
class Reference:
    """The adapter model's log-probabilities at some places, and its distance to its base."""

    places: Places
    logprobs: list[np.ndarray]  # for each text: (positions, vocabulary) float32
    moved: float  # KL(adapters || base), nats a token


def measure(folder: Path, model_name: str, count: int) -> Measure | None:
    """A function that compares an exported path with the run's adapter model over `count` answers; None where none is held out."""
    places = held_out(folder, count)
    if not places:
        return None
    known: list[Reference] = []

    def compared(path: Path) -> Fidelity:
        if not known:
            known.append(reference(model_name, folder / "adapters", places))
            mx.clear_cache()
        return replace(compare(known[0], path), answers=count)

    return compared


def verdict(name: str, type_name: str, figures: Fidelity) -> tuple[str, str | None]:
    """(what the file keeps, a warning or None), each a line.

    type_name: a GGUF type, or fused-4 or fused-8 for a quantised folder.
    """
    line = (
        f"{name}: {1 - min(figures.lost, 1):.0%} of the trained change survives "
        f"(KL {figures.kl:.2g} of {figures.moved:.2g} nats a token, {figures.argmax:.0%} of tokens equal)"
    )
    if figures.lost <= LIMIT:
        return line, None
    folders = {"fused-4": "export.fuse.quantize: 8", "fused-8": "export.fuse.quantize: none"}
    better = folders.get(type_name) or f"export.gguf: [{BETTER.get(type_name, 'f32')}]"
    return line, f"{name} loses {percent(figures.lost)} of what was trained; {better} keeps more"


def held_out(folder: Path, count: int) -> Places:
    """The first `count` held-out chosen answers of a run, with at most POSITIONS positions in all; [] without any."""
    pairs = [p for p in read_records(folder / "pairs.jsonl", Pair) if p.split == HELDOUT and p.tokens][:count]
    texts = [(len(p.prompt_tokens), p.prompt_tokens + p.tokens[0]) for p in pairs]
    places = []
    for prompt, tokens in texts:
        every = np.arange(prompt - 1, len(tokens) - 1)
        few = max(1, min(len(every), POSITIONS // len(texts)))
        places.append((tokens, [int(i) for i in every[np.linspace(0, len(every) - 1, few).astype(int)]]))
    return places


def reference(model_name: str, adapter_folder: Path, places: Places) -> Reference:
    """The log-probabilities of the adapter model, compared with those of its base (the adapters switched off)."""
    model = in_float32(adapters.load(load.load(model_name).model, adapter_folder))
    model.eval()
    tuned = [logprobs(model, tokens, positions) for tokens, positions in places]
    with adapters.disabled(model):
        base = [logprobs(model, tokens, positions) for tokens, positions in places]
    kl = np.concatenate([_kl(a, b) for a, b in zip(tuned, base, strict=True)])
    return Reference(places, tuned, float(kl.mean()))


def logprobs(model: Any, tokens: list[int], positions: list[int]) -> np.ndarray:
    """(positions, vocabulary) float32 log-probabilities of the token after each position."""
    logits = model(mx.array([tokens]))[0, mx.array(positions)].astype(mx.float32)
    return np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))


def compare(reference: Reference, path: Path) -> Fidelity:
    """The distance of a GGUF file or a fused folder to the adapter model. llama.cpp runs a GGUF file where it is installed."""
    with_llamacpp = path.suffix == ".gguf" and llamacpp.available()
    rows = _by_llamacpp(reference, path) if with_llamacpp else _by_mlx(reference, path)
    kl, same = (np.concatenate(column) for column in zip(*rows, strict=True))
    mean = float(kl.mean())
    lost = mean / reference.moved if reference.moved > 0 else 0.0
    return Fidelity(lost, mean, reference.moved, float(same.mean()), "llama.cpp" if with_llamacpp else "mlx")


def _by_mlx(reference: Reference, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    model = in_float32(load.load(str(path)).model)
    for (tokens, positions), ours in zip(reference.places, reference.logprobs, strict=True):
        theirs = logprobs(model, tokens, positions)
        yield _kl(ours, theirs), ours.argmax(-1) == theirs.argmax(-1)


def _by_llamacpp(reference: Reference, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    longest = max(len(tokens) for tokens, _ in reference.places)
    few = max(1, POSITIONS_LLAMACPP // len(reference.places))
    with llamacpp.Llama(path, context=longest + 8) as llama:
        for (tokens, positions), ours in zip(reference.places, reference.logprobs, strict=True):
            rows = np.unique(np.linspace(0, len(positions) - 1, min(few, len(positions))).astype(int))
            theirs = llama.logprobs(tokens, [positions[row] for row in rows], ours.shape[-1], top=TOP)
            yield _kl(ours[rows], theirs), ours[rows].argmax(-1) == theirs.argmax(-1)


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(positions,) KL(p || q) in nats. Tokens that q leaves out (-inf) are compared as one lump, a lower bound."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    known = np.isfinite(q)
    kl = np.where(known, np.exp(p) * (p - np.where(known, q, 0)), 0).sum(-1)
    rest_p, rest_q = np.where(known, 0, np.exp(p)).sum(-1), 1 - np.where(known, np.exp(q), 0).sum(-1)
    lump = (rest_p > 1e-12) & (rest_q > 1e-12)
    kl[lump] += rest_p[lump] * np.log(rest_p[lump] / rest_q[lump])
    return np.maximum(kl, 0)
