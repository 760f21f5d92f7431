"""Words of a text, runs of them that two texts share, and how alike two texts are: what the filters of the pairs, the
evaluation and the leak test count with.

~~~ Families of notes: those that share a telling sentence. Splits keep a family on one side, and the leak test shuffles it whole.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Set

# Thai, Lao, Burmese, Khmer, kana and Chinese characters are written without spaces: each counts as a word of its own.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
WORD = re.compile(rf"(?=\w)[{UNSPACED}]|[^\W_{UNSPACED}]+(?:'[^\W_{UNSPACED}]+)*")
PART = re.compile(rf"(?=\w)[{UNSPACED}]|[^\W{UNSPACED}]+")  # of a word: what an apostrophe parts; for telling notes apart
ALONE = re.compile(f"[{UNSPACED}]")
SENTENCE_END = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)\]]))\s+|(?<=[。！？])")
NGRAM = 3  # words; the unit of "says the same as"


def plain(text: str) -> str:
    """Lower case, one kind of apostrophe."""
    return text.lower().replace("\u2019", "'")


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; an apostrophe belongs to its word."""
    return WORD.findall(plain(text))


def ngrams(tokens: list[str], size: int) -> list[tuple[str, ...]]:
    """Every run of `size` tokens, repetitions included."""
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def likeness(a: str, b: str) -> float:
    """Jaccard similarity of two texts' word trigrams (of their words, where one has fewer than three): 1 for equal wording."""
    one, other = words(a), words(b)
    size = NGRAM if min(len(one), len(other)) >= NGRAM else 1
    first, second = set(ngrams(one, size)), set(ngrams(other, size))
    return jaccard(first, second)


def jaccard(a: Set, b: Set) -> float:
    """Shared members of two sets over all their members; 1 for two empty ones."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if a or b else 1.0


def quotes(text: str, source: str, size: int) -> bool:
    """Whether `size` words in a row of the text stand in the source; of characters that count as words, twice as many."""
    told = words(source)
    if 2 * sum(len(word) == 1 and bool(ALONE.match(word)) for word in told) > len(told):
        size *= 2  # a Chinese or Japanese word has about two
    known = set(ngrams(told, size))
    return any(gram in known for gram in ngrams(words(text), size))


def joined(*sources: str) -> str:
    """Sources made ready for `longest_passage`: their words between spaces, a bar between two sources, which no run crosses."""
    return "".join(f" {' '.join(words(source))} |" for source in sources)


def longest_passage(text: str, source: str) -> tuple[int, int]:
    """(begin, end) among the words of `text`: the longest passage that stands in one of the `joined` sources, the first of these.

    The passage under test grows at its end while it is found and loses its first word when it is not: two searches a word,
    each at the speed of `in`, so that hundreds of answers are compared with all notes in seconds.
    """
    said = words(text)
    longest, begin = (0, 0), 0
    for end in range(1, len(said) + 1):
        while begin < end and f" {' '.join(said[begin:end])} " not in source:
            begin += 1
        if end - begin > longest[1] - longest[0]:
            longest = (begin, end)
    return longest


MIN_WORDS = 3  # a shorter sentence ("Sounds good.") says nothing about whose text it is
BOILERPLATE = 0.25  # share of all notes that makes a sentence boilerplate


def sentences(text: str) -> set[str]:
    """The sentences of a text that are long enough to tell, lower case, without punctuation."""
    found = (" ".join(PART.findall(part.lower())) for line in text.split("\n") for part in SENTENCE_END.split(line))
    return {sentence for sentence in found if sentence.count(" ") >= MIN_WORDS - 1}


def telling(keys: dict[str, set[str]]) -> dict[str, set[str]]:
    """`keys` without boilerplate: a sentence of every fourth note (a footer, a template's line) tells no note from another."""
    count = Counter(sentence for found in keys.values() for sentence in found)
    common = {sentence for sentence, times in count.items() if times > max(8, BOILERPLATE * len(keys))}
    return {note: found - common for note, found in keys.items()}


def connected(keys: dict[str, set[str]]) -> list[list[str]]:
    """Notes connected through shared sentences, in the notes' order."""
    parent: dict[str, str] = {note: note for note in keys}

    def root(note: str) -> str:
        while parent[note] != note:
            parent[note] = parent[parent[note]]
            note = parent[note]
        return note

    owner: dict[str, str] = {}
    for note, found in keys.items():
        for sentence in found:
            parent[root(note)] = root(owner.setdefault(sentence, note))
    groups: dict[str, list[str]] = defaultdict(list)
    for note in keys:
        groups[root(note)].append(note)
    return list(groups.values())
