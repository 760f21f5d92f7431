"""What makes an answer or a pair unfit to train on. Each check is a plain function of text and numbers; `answer_fault` and
`pair_fault` apply those that the recipe switches on, in one fixed order, and name the first that objects.

An answer at fault is left out of its grid before the rest is deranged, so that the others keep standing against each other
evenly. Validation and held-out pairs are a measure and not a choice: there only empty and identical answers go, whatever the
recipe says, so that figures of two recipes, and before and after training, speak of the same pairs.
"""

import re

from ..recipe import Filters
from ..records import TRAIN, Answer, Context, Prompt

NGRAM = 3  # words; the unit of "repeats itself" and of "says the same as"

REFUSAL = re.compile(
    r"\bas an? (ai|artificial intelligence|(large )?language model)\b"
    r"|\bi(?:'m| am) (?:just |only )?an? (ai|artificial intelligence|(large )?language model)\b"
    r"|^\W*(?:(?:i(?:'m| am) )?(?:very |so |truly )?sorry|i apologi[sz]e|unfortunately|my apologies)\b[^.!?]{0,40}?"
    r"\b(?:can(?:'t|not)|could not|couldn't|am unable|'m unable|am not able|'m not able|won't)\b"
    r"|^\W*i (?:can(?:'t|not)|am unable to|am not able to|won't be able to)\b"
    r"|^\W*i'm (?:unable|not able) to\b",
)

# First-person statements of fact, up to the end of their clause. "I'd suggest" and "I can help" are an assistant's own.
CLAIM = re.compile(
    r"\b(?:i am|i'm|i've|my|i (?:was|have|had|also|love|like|enjoy|hate|live|work|own|play|grew|study|prefer))\b"
    r"([^.,;:!?\n]{1,80}?)(?=$|[.,;:!?\n]|\b(?:who|and|but|so|because|which|that|when|while)\b)"
)
IN_USERS_VOICE = re.compile(
    r"\b(?:write|draft|compose|reword|rephrase|letter|e-?mail|message|bio|introduc\w*|toast|speech|caption)\b"
)
EVERYDAY = frozenset(
    "a about able advice all also always an and any are as assist assistant at be because been being but by can could do does "
    "experience few find for from get glad go good great had happy has have having help here how idea ideas if in into is it its "
    "just know like lot love make many me more most much my new not of on one or other our out personal really recommend "
    "recommendation recommendations response so some sorry sound sure suggest suggestion suggestions than that the their them "
    "then there these they thing things think this time to too try us very was way well were what when which who will with "
    "would years".split()
)


def words(text: str) -> list[str]:
    """Lower-case words; an apostrophe belongs to its word."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", plain(text))


def plain(text: str) -> str:
    return text.lower().replace("\u2019", "'")


def ngrams(tokens: list[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def repeated_share(text: str) -> float:
    """The share of word trigrams that are a repetition of an earlier one: 0 for text that never repeats itself."""
    grams = ngrams(words(text), NGRAM)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def refuses(text: str) -> bool:
    """Whether the answer declines, or talks of itself as a language model, instead of answering."""
    return REFUSAL.search(plain(text)) is not None


def quotes(text: str, context: str, size: int) -> bool:
    """Whether `size` words in a row of the answer stand in the context."""
    known = set(ngrams(words(context), size))
    return any(gram in known for gram in ngrams(words(text), size))


def takes_users_part(text: str, context: str, prompt: str) -> bool:
    """Whether the answer states a fact of the user's as the assistant's own ("I'm a handyman who also ...").

    A first-person clause counts when at least half of its telling words are the context's. Clauses that address the user,
    and requests to write something in the user's voice, do not count.
    """
    if IN_USERS_VOICE.search(plain(prompt)):
        return False
    told = {stem(word) for word in words(context) if word not in EVERYDAY}
    for clause in CLAIM.findall(plain(text)):
        said = words(clause)
        if {"you", "your", "you're", "you've", "yours"} & set(said):
            continue
        telling = [stem(word) for word in said if len(word) > 2 and word not in EVERYDAY]
        if telling and 2 * sum(word in told for word in telling) >= len(telling):
            return True
    return False


def stem(word: str) -> str:
    """Good enough to let 'bakes', 'baking' and 'bake' be one word."""
    for ending in ("'s", "ing", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def likeness(a: str, b: str) -> float:
    """Jaccard similarity of two texts' word trigrams (of their words, where one has fewer than three): 1 for equal wording."""
    one, other = words(a), words(b)
    size = NGRAM if min(len(one), len(other)) >= NGRAM else 1
    first, second = set(ngrams(one, size)), set(ngrams(other, size))
    return len(first & second) / len(first | second) if first | second else 1.0


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
    if context and filters.quotes_context is not None and quotes(answer.text, context.told, filters.quotes_context):
        return "quotes_context"
    if context and filters.first_person and takes_users_part(answer.text, context.told, prompt.text):
        return "first_person"
    if filters.near_duplicates is not None:
        if any(likeness(answer.text, other.text) >= filters.near_duplicates for other in earlier):
            return "near_duplicates"
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
