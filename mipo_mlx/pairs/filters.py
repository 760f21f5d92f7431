"""What makes an answer or a pair unfit to train on.

`answer_fault` and `pair_fault` apply the checks that the recipe switches on, in one fixed order, and name the first fault.

An answer at fault leaves its grid before the rest is deranged, so the others stand against each other evenly. An answer that
parrots (REJECTED_ONLY) stays as a rejected answer. Training then makes such answers less likely whatever the context; the reward
for using a context would make them more so. Validation and held-out pairs are a measure and not a choice. There only empty and
identical answers go, whatever the recipe says. So the figures of two recipes, and those before and after training, are of the same
pairs.
"""

import re

from ..recipe import Filters
from ..records import TRAIN, Answer, Context, Prompt
from ..text.parroting import takes_users_part
from ..text.words import likeness, plain, quotes, repeated_share

REJECTED_ONLY = ("quotes_context", "first_person")  # faults that keep an answer from being chosen, not from being rejected

REFUSAL = re.compile(
    r"\bas an? (ai|artificial intelligence|(large )?language model)\b"
    r"|\bi(?:'m| am) (?:just |only )?an? (ai|artificial intelligence|(large )?language model)\b"
    r"|^\W*(?:(?:i(?:'m| am) )?(?:very |so |truly )?sorry|i apologi[sz]e|unfortunately|my apologies)\b[^.!?]{0,40}?"
    r"\b(?:can(?:'t|not)|could not|couldn't|am unable|'m unable|am not able|'m not able|won't)\b"
    r"|^\W*i (?:can(?:'t|not)|am unable to|am not able to|won't be able to)\b"
    r"|^\W*i'm (?:unable|not able) to\b",
)


def refuses(text: str) -> bool:
    """Whether the answer declines, or talks of itself as a language model, instead of answering."""
    return REFUSAL.search(plain(text)) is not None


def answer_fault(
    answer: Answer, prompt: Prompt, context: Context | None, earlier: list[Answer], filters: Filters, split: str
) -> str | None:
    """Why this answer must not be in a pair, or None. `earlier`: the answers of its grid that were found fit so far."""
    if not answer.text.strip():
        return "empty"
    if any(other.text.strip() == answer.text.strip() for other in earlier):
        return "identical"
    if split != TRAIN:
        return None
    if filters.truncated and answer.finish == "length":
        return "truncated"
    if filters.repeated_ngrams is not None and repeated_share(answer.text) > filters.repeated_ngrams:
        return "repeated_ngrams"
    if filters.refusals and refuses(answer.text):
        return "refusals"
    if filters.near_duplicates is not None:
        if any(likeness(answer.text, other.text) >= filters.near_duplicates for other in earlier):
            return "near_duplicates"
    if context and filters.quotes_context is not None and quotes(answer.text, context.full_text, filters.quotes_context):
        return "quotes_context"
    if context and filters.first_person and takes_users_part(answer.text, context.full_text, prompt.text):
        return "first_person"
    return None


def pair_fault(lengths: list[int], pmi: list[float], filters: Filters, split: str) -> str | None:
    """Why this pair is not worth training on, or None.

    lengths: tokens of each candidate, chosen first; pmi: nats for each negative. The least informative negative decides.
    """
    if split != TRAIN:
        return None
    if filters.max_length_ratio is not None and max(lengths) > filters.max_length_ratio * min(lengths):
        return "max_length_ratio"
    if filters.min_pmi is not None and min(pmi) <= filters.min_pmi:
        return "min_pmi"
    return None
