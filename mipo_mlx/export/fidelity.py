"""How much of what was trained survives in an exported file, measured on held-out answers.

Rounding weights adds noise, and what LoRA learned can be smaller than that noise. So the exported model's distance to the adapter
model is set against the distance that training moved the base: `lost` = KL(adapters || file) / KL(adapters || base).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..gguf_format.types import BETTER
from ..models import adapters, load
from ..records import HELDOUT, Pair, read_records
from . import llamacpp
from .results import LIMIT, said

POSITIONS = 96  # of answer tokens, spread over the answers
POSITIONS_LLAMACPP = 24  # one request each
TOP = 4096  # probabilities asked of llama.cpp at a position; what they leave out is compared as one lump

Places = list[tuple[list[int], list[int]]]  # (token ids, positions whose next token is an answer's)


@dataclass(frozen=True)
class Reference:
    """What the adapter model says at some places, and how far it is from its base."""

    places: Places
    logprobs: list[np.ndarray]  # one a text: (positions, vocabulary) float32
    moved: float  # KL(adapters || base), nats a token


def held_out(folder: Path, count: int, positions: int = POSITIONS) -> Places:
    """The first `count` held-out chosen answers of a run with at most `positions` positions in all; [] without any."""
    pairs = [p for p in read_records(folder / "pairs.jsonl", Pair) if p.split == HELDOUT and p.tokens][:count]
    texts = [(len(p.prompt_tokens), p.prompt_tokens + p.tokens[0]) for p in pairs]
    places = []
    for prompt, tokens in texts:
        all_of_them = np.arange(prompt - 1, len(tokens) - 1)
        few = max(1, min(len(all_of_them), positions // len(texts)))
        places.append((tokens, [int(i) for i in all_of_them[np.linspace(0, len(all_of_them) - 1, few).astype(int)]]))
    return places


def reference(model_name: str, adapter_folder: Path, places: Places) -> Reference:
    """Ask the adapter model and, with the adapters switched off, its base."""
    model = adapters.load(load.load(model_name).model, adapter_folder)
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


def compare(reference: Reference, path: Path) -> dict[str, Any]:
    """Set a GGUF file or a fused folder against the adapter model.

    Returns kl (nats a token), argmax (share of equal likeliest tokens), moved (KL of the base), lost (share of the trained
    change) and by: "llama.cpp" where that is installed and the path a GGUF file, else "mlx".
    """
    with_llamacpp = path.suffix == ".gguf" and llamacpp.available()
    rows = _by_llamacpp(reference, path) if with_llamacpp else _by_mlx(reference, path)
    kl, same = (np.concatenate(column) for column in zip(*rows, strict=True))
    mean = float(kl.mean())
    return {
        "kl": mean,
        "argmax": float(same.mean()),
        "moved": reference.moved,
        "lost": mean / reference.moved if reference.moved > 0 else 0.0,
        "by": "llama.cpp" if with_llamacpp else "mlx",
    }


def verdict(name: str, type_name: str, figures: dict[str, Any]) -> tuple[str, str | None]:
    """(what was found, a warning or None), each a line. type_name: a GGUF type, or fused-4 or fused-8 for a quantised folder."""
    found = (
        f"{name}: {1 - min(figures['lost'], 1):.0%} of the trained change survives "
        f"(KL {figures['kl']:.2g} of {figures['moved']:.2g} nats a token, {figures['argmax']:.0%} of tokens equal)"
    )
    if figures["lost"] <= LIMIT:
        return found, None
    folders = {"fused-4": "export.fuse.quantize: 8", "fused-8": "export.fuse.quantize: none"}
    better = folders.get(type_name) or f"export.gguf: [{BETTER.get(type_name, 'f32')}]"
    return found, f"{name} loses {said(figures['lost'])} of what was trained; {better} keeps more"


def _by_mlx(reference: Reference, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    model = load.load(str(path)).model
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
    """(positions,) KL(p || q) in nats; tokens that q leaves out (-inf) are compared as one lump, a lower bound."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    told = np.isfinite(q)
    kl = np.where(told, np.exp(p) * (p - np.where(told, q, 0)), 0).sum(-1)
    rest_p, rest_q = np.where(told, 0, np.exp(p)).sum(-1), 1 - np.where(told, np.exp(q), 0).sum(-1)
    lump = (rest_p > 1e-12) & (rest_q > 1e-12)
    kl[lump] += rest_p[lump] * np.log(rest_p[lump] / rest_q[lump])
    return np.maximum(kl, 0)


Measure = Callable[[Path], dict[str, Any]]


def measure(folder: Path, model_name: str, count: int) -> Measure | None:
    """A function that compares an exported path with the run's adapter model; None where the run has no held-out answers."""
    places = held_out(folder, count)
    if not places:
        return None
    known: list[Reference] = []

    def compared(path: Path) -> dict[str, Any]:
        if not known:
            known.append(reference(model_name, folder / "adapters", places))
            mx.clear_cache()
        return compare(known[0], path)

    return compared
