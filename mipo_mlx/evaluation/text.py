"""Measures of the text alone: sameness (self-BLEU, distinct-n), and answers that hand the context back (parroting)."""

import math
import re
from collections import Counter
from collections.abc import Sequence

TOKEN = re.compile(r"\w+|[^\w\s]")
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
QUOTED = re.compile(r"\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d")
ORDER = 4  # of BLEU
RUN = 6  # words in a row that count as quoting the context

# Words that carry no fact about anybody: a shared "I would love to help" is no claim.
EMPTY = frozenset(
    "a an the and or but so also just really very too of to in on at for with from by as about into over than then this that "
    "these those it its is am are was were be been being do does did have has had having will would can could should may "
    "might must shall not no yes i me my mine myself we us our you your yours he she they them his her their who which what "
    "when where how why all any some every each more most much many lot like love want think know help feel sure glad happy "
    "sorry hope understand see say said tell need get got go going make there here if because".split()
)
CLAUSES = re.compile(r"[.!?;:,\n]+|\b(?:and|but|so|who|which|that|because|while|when|if|as|too)\b", re.IGNORECASE)
CONTRACTED = {"m": "am", "ve": "have", "d": "would", "ll": "will", "re": "are", "s": "is"}


def ngrams(tokens: Sequence[str], order: int) -> Counter:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def self_bleu(texts: Sequence[str]) -> list[float]:
    """For each text, its sentence BLEU-4 (0 to 100) against all the others as references: high where answers are alike.

    As in Zhu et al. 2018 (Texygen); counting, exponential smoothing, effective order and brevity penalty as sacrebleu's
    sentence_bleu, on words and punctuation marks. [] for fewer than two texts.
    """
    if len(texts) < 2:
        return []
    tokens = [TOKEN.findall(text) for text in texts]
    counts = [[ngrams(t, order) for order in range(1, ORDER + 1)] for t in tokens]
    scores = []
    # The two highest counts of each n-gram and whose the highest is: the best count among the *other* texts in one look.
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
    for hit, of in zip(matched, total, strict=True):
        if of == 0:
            break
        if hit == 0:
            halving *= 2
            logs.append(math.log(100 / (halving * of)))
        else:
            logs.append(math.log(100 * hit / of))
    brevity = 1.0 if length >= reference else math.exp(1 - reference / length)
    return brevity * math.exp(sum(logs) / len(logs))


def distinct(texts: Sequence[str], order: int) -> float:
    """Different n-grams over all n-grams of the texts (Li et al. 2016, distinct-n)."""
    total: Counter = Counter()
    for text in texts:
        total += ngrams([token.lower() for token in TOKEN.findall(text)], order)
    return len(total) / max(1, sum(total.values()))


def words(text: str) -> list[str]:
    """Lower-case words; apostrophes of either kind are one."""
    return [word.lower().replace("\u2019", "'") for word in WORD.findall(text)]


def longest_run(text: str, source: str) -> int:
    """Words of the longest passage that both texts share."""
    a, b = words(text), words(source)
    previous, longest = [0] * (len(b) + 1), 0
    for word in a:
        current = [0] * (len(b) + 1)
        for j, other in enumerate(b, 1):
            if word == other:
                current[j] = previous[j - 1] + 1
        longest = max(longest, *current)
        previous = current
    return longest


def quotes(answer: str, context: str, run: int = RUN) -> bool:
    """Whether the answer repeats `run` or more words of the context in a row."""
    return longest_run(answer, context) >= run


def claims(text: str) -> list[tuple[str, ...]]:
    """What a text says of its own speaker: for each 'I' or 'my', the next words that carry a fact, at most two, up to the
    end of the clause; what stands in quotation marks is somebody else's."""
    found = []
    for clause in CLAUSES.split(QUOTED.sub(" ", text)):
        spoken: list[str] = []
        for word in words(clause):
            head, _, tail = word.partition("'")
            spoken += [head, CONTRACTED[tail]] if tail in CONTRACTED else [word]
        for position, word in enumerate(spoken):
            if word in ("i", "my"):
                facts = [w for w in spoken[position + 1 : position + 9] if w not in EMPTY][:2]
                if facts:
                    found.append(tuple(facts))
    return found


def confuses_roles(answer: str, context: str) -> bool:
    """Whether the answer claims a fact for the assistant ("I'm a handyman") that the context tells of the user."""
    known = claims(context)
    for claim in claims(answer):
        for fact in known:
            short = min(len(claim), len(fact))
            if claim[:short] == fact[:short]:
                return True
    return False
