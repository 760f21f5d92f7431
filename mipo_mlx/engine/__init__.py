"""Prompts and answers in, samples and log-probabilities out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mlx.nn as nn


@contextmanager
def fast(model: "nn.Module") -> Iterator[None]:
    """Decode and score `model` in here: on the CPU it takes fast exponentials and attention, and whole float32 tables.

    On a GPU it changes nothing.
    """
    from .cpu import swapped
    from .prefix import text_model
    from .tables import expanded

    text = text_model(model)
    with swapped(text), expanded(text):
        yield
