"""The reranker (`memory.second_look`): passages under which the model finds the question likelier fit it better.

A question that is about a passage is easier to predict after it (Sachan et al. 2022, Improving Passage Retrieval with Zero-Shot
Question Generation). The passages stand in the frame that training uses, and the base without its adapters scores.
"""

from collections.abc import Sequence
from typing import Any

from mlx.utils import tree_flatten

from .. import backend
from ..engine import fast
from ..engine.logprobs import token_logprobs
from ..engine.sampling import common_prefix
from ..models import adapters
from ..models.load import LoadedModel
from ..models.prompts import encode, messages
from ..recipe import Pairs

PROBE = "\u2400"  # a question that shares no token with another one
MOST, LEAST = 10, 3  # passages to compare; with fewer, reranking is not worth its time
SECONDS = 3.0  # that reranking may take on the CPU
REACHED = 0.5  # of the speed of matrix products, by a whole model on the CPU
TOKENS = 250  # of a passage, its frame and the question, about


class Reranker:
    """Compares at most `most` passages by one base."""

    def __init__(self, loaded: LoadedModel, settings: Pairs, most: int = MOST) -> None:
        self.loaded, self.settings, self.most = loaded, settings, most

    def __call__(self, question: str, passages: Sequence[str]) -> list[float]:
        """Nats a token of the question by which it is likelier under each passage than under none."""
        split = [self._split(question, passage) for passage in (*passages, None)]
        model = self.loaded.model
        with adapters.disabled(model), fast(model):
            scored = token_logprobs(model, [before for before, _ in split], [[tokens] for _, tokens in split])
        means = [float(rows[0].mean()) for rows in scored]
        return [mean - means[-1] for mean in means[:-1]]

    def _split(self, question: str, passage: str | None) -> tuple[list[int], list[int]]:
        """(tokens up to the question, tokens of the question) of a prompt."""
        tokenizer = self.loaded.tokenizer
        whole, probe = (encode(tokenizer, messages(self.settings, text, passage)) for text in (question, PROBE))
        before, after = common_prefix([whole, probe]), common_prefix([whole[::-1], probe[::-1]])
        return before, whole[len(before) : len(whole) - len(after)]


def affordable(loaded: LoadedModel, settings: Pairs) -> Reranker | None:
    """A reranker of as many passages as this device compares in time; None where these are too few."""
    if not backend.on_cpu():
        return Reranker(loaded, settings)
    most = int(SECONDS * REACHED * backend.sgemm_rate() / (2 * _weights(loaded.model) * TOKENS))
    return Reranker(loaded, settings, min(most, MOST)) if most >= LEAST else None


def _weights(model: Any) -> int:
    """How many weights take part in a token."""
    return sum(array.size for name, array in tree_flatten(model.parameters()) if "embed" not in name)
