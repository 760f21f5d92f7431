"""A second look at passages: those under which the model finds the question likelier fit it better.

A question that is about a passage is easier to predict after it (Sachan et al. 2022, Improving Passage Retrieval with Zero-Shot
Question Generation). The passages stand in the frame that training uses, and the base without its adapters scores.
"""

from ..engine import fast
from ..engine.logprobs import token_logprobs
from ..models import adapters
from ..models.load import LoadedModel
from ..models.prompts import encode, messages
from ..recipe import Pairs
from .retrieve import Look

PROBE = "\u2400"  # a question that shares no token with another one


def look_of(loaded: LoadedModel, settings: Pairs) -> Look:
    """A second look by the base."""

    def look(question: str, passages: list[str]) -> list[float]:
        """Nats a token of the question by which it is likelier under each passage than under none."""
        split = [_split(loaded, settings, question, passage) for passage in (*passages, None)]
        with adapters.disabled(loaded.model), fast(loaded.model):
            scored = token_logprobs(loaded.model, [before for before, _ in split], [[asked] for _, asked in split])
        means = [float(rows[0].mean()) for rows in scored]
        return [mean - means[-1] for mean in means[:-1]]

    return look


def _split(loaded: LoadedModel, settings: Pairs, question: str, passage: str | None) -> tuple[list[int], list[int]]:
    """(tokens up to the question, tokens of the question) of a prompt.

    The probe stands where the question stands. What both prompts share before it and after it is not the question's.
    """
    whole, probe = (encode(loaded.tokenizer, messages(settings, text, passage)) for text in (question, PROBE))
    begin = next(place for place, (a, b) in enumerate(zip(whole, probe, strict=False)) if a != b)
    end = next(place for place, (a, b) in enumerate(zip(reversed(whole), reversed(probe), strict=False)) if a != b)
    return whole[:begin], whole[begin : len(whole) - end]
