"""Prompts and answers in, samples and log-probabilities out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import backend

if TYPE_CHECKING:
    import mlx.nn as nn

backend.start()  # the modules of this folder import MLX, which needs a fast BLAS loaded before


@contextmanager
def fast(model: "nn.Module") -> Iterator[None]:
    """Decode and score `model` in here. It is the one way to do so on the CPU, and it changes nothing on a GPU.

    On the CPU the model takes the exponentials and the attention of `cpu.py`, and whole float32 tables (`tables.py`).
    Nothing in here has a gradient.
    """
    from .cpu import decoding, swapped
    from .prefix import text_model
    from .tables import expanded

    text = text_model(model)
    with swapped(text), expanded(text), decoding():
        yield
