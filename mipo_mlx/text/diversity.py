"""How alike a set of texts is: self-BLEU and distinct-n."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from .words import ngrams

TOKEN = re.compile(r"\w+|[^\w\s]")
ORDER = 4  # of BLEU


def self_bleu(texts: Sequence[str]) -> list[float]:
    """For each text, its sentence BLEU-4 (0 to 100) against all the others as references: high where answers are alike.

    As in Zhu et al. 2018 (Texygen); counting, exponential smoothing, effective order and brevity penalty as sacrebleu's
    sentence_bleu, on words and punctuation marks. [] for fewer than two texts.
    """
    if len(texts) < 2:
        return []
    tokens = [TOKEN.findall(text) for text in texts]
    counts = [[Counter(ngrams(t, order)) for order in range(1, ORDER + 1)] for t in tokens]
    scores = []
    # (highest count, its text, second highest count) of each n-gram: they give the best count among the other texts at once.
    best: list[dict[tuple, tuple[int, int, int]]] = [{} for _ in range(ORDER)]
    for index, grams in enumerate(counts):
        for order in range(ORDER):
            for gram, count in grams[order].items():
                first, owner, second = best[order].get(gram, (0, -1, 0))
                best[order][gram] = (count, index, first) if count > first else (first, owner, max(second, count))
    lengths = [len(t) for t in tokens]
    for index, grams in enumerate(counts):
        length = lengths[index]
        if not length:
            scores.append(0.0)
            continue
        matched, total = [], []
        for order in range(ORDER):
            hit = 0
            for gram, count in grams[order].items():
                first, owner, second = best[order][gram]
                hit += min(count, second if owner == index else first)
            matched.append(hit)
            total.append(max(0, length - order))
        others = [n for i, n in enumerate(lengths) if i != index]
        reference = min(others, key=lambda n: (abs(n - length), n))
        scores.append(_bleu(matched, total, length, reference))
    return scores


def _bleu(matched: list[int], total: list[int], length: int, reference: int) -> float:
    if not any(matched):
        return 0.0
    logs, halving = [], 1.0
    for hit, possible in zip(matched, total, strict=True):
        if possible == 0:
            break
        if hit == 0:
            halving *= 2
            logs.append(math.log(100 / (halving * possible)))
        else:
            logs.append(math.log(100 * hit / possible))
    brevity = 1.0 if length >= reference else math.exp(1 - reference / length)
    return brevity * math.exp(sum(logs) / len(logs))


def distinct(texts: Sequence[str], order: int) -> float:
    """Different n-grams over all n-grams of the texts (Li et al. 2016, distinct-n)."""
    total: Counter = Counter()
    for text in texts:
        total += Counter(ngrams([token.lower() for token in TOKEN.findall(text)], order))
    return len(total) / max(1, sum(total.values()))
