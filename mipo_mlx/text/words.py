"""Words of a text, runs of words that two texts share, and families of notes that share a sentence.

The filters of the pairs, the evaluation and the leak test count with these words. The split keeps a family of notes on one
side, and the leak test shuffles it whole.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Set
from functools import cache

# Thai, Lao, Burmese, Khmer, kana and Chinese are written without spaces: each of their characters counts as a word.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
WORD = re.compile(rf"(?=\w)[{UNSPACED}]|[^\W_{UNSPACED}]+(?:'[^\W_{UNSPACED}]+)*")
PART = re.compile(rf"(?=\w)[{UNSPACED}]|[^\W{UNSPACED}]+")  # a word, or the part of one before or after an apostrophe
ALONE = re.compile(f"[{UNSPACED}]")
SENTENCE_END = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?…][\"'”’)\]]))\s+|(?<=[。！？])")
# The same without the marks that only Chinese and Japanese have, and many times as fast: it begins with what it looks for.
SPACED_END = re.compile(r"\s(?:(?<=[.!?…]\s)|(?<=[.!?…][\"'”’)\]]\s))\s*")
ASCII_END = re.compile(r"[.!?][\"')\]]?\s+")  # with the marks before it; quicker still, since texts have fewer marks than spaces
OF_PARTS = {code: " " for code in range(128) if not re.fullmatch(r"\w", chr(code))}
OF_LINES = {code: space for code, space in OF_PARTS.items() if chr(code) != "\n"}
OF_WORDS = {code: " " for code in range(128) if not chr(code).isalnum()}
NGRAM = 3  # words: the unit by which two texts are compared
# The end of a sentence in a text that was cut off: a period behind a digit may be half of "3.5" or the mark of a list.
WHOLE = re.compile(r"(?:(?<!\d)[.!?…][\"'”’)\]]*(?=\s|$)|[。！？][」』”’]*)")
MIN_WORDS = 3  # a shorter sentence ("Sounds good.") does not show whose text it is
BOILERPLATE = 0.1  # share of all notes from which a sentence counts as boilerplate


def plain(text: str) -> str:
    """Lower case, one kind of apostrophe."""
    return text.lower().replace("\u2019", "'")


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; an apostrophe belongs to its word."""
    text = plain(text)
    return text.translate(OF_WORDS).split() if text.isascii() and "'" not in text else WORD.findall(text)


def parts(text: str) -> list[str]:
    """Lower-case words, cut at apostrophes too: what PART finds."""
    text = text.lower()
    return text.translate(OF_PARTS).split() if text.isascii() else PART.findall(text)


def split_sentences(text: str) -> list[str]:
    """The text cut at SENTENCE_END."""
    return (SENTENCE_END if any(map(text.__contains__, "。！？")) else SPACED_END).split(text)


def how_many(text: str, belongs: Callable[[str], bool]) -> int:
    """How many characters of a text `belongs` holds for; it must always say the same of one character."""
    if text.isascii():
        return len(text) - len(text.encode().translate(None, _ascii(belongs)))
    return sum(count for char, count in Counter(text).items() if belongs(char))


@cache
def _ascii(belongs: Callable[[str], bool]) -> bytes:
    return bytes(code for code in range(128) if belongs(chr(code)))


def ngrams(tokens: list[str], size: int) -> list[tuple[str, ...]]:
    """Every run of `size` tokens, repetitions included."""
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def repeated_share(text: str) -> float:
    """The share of word trigrams that repeat an earlier one: 0 for text that never repeats itself."""
    grams = ngrams(words(text), NGRAM)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


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
    """Whether `size` words in a row of the text stand in the source; twice as many where most characters count as words."""
    known = words(source)
    if 2 * sum(len(word) == 1 and bool(ALONE.match(word)) for word in known) > len(known):
        size *= 2  # a Chinese or Japanese word has about two characters
    runs = set(ngrams(known, size))
    return any(gram in runs for gram in ngrams(words(text), size))


def joined(*sources: str) -> str:
    """Sources for `longest_passage`: their words between spaces. A bar stands between two sources, and no run crosses it."""
    return "".join(f" {' '.join(words(source))} |" for source in sources)


def longest_passage(text: str, source: str) -> tuple[int, int]:
    """(begin, end) among the words of `text`: the longest passage that stands in one of the `joined` sources.

    The first of several equally long ones counts. The passage grows at its end while the source has it, and else loses its
    first word. This takes two searches a word, each at the speed of `in`: hundreds of answers and all notes take seconds.
    """
    own = words(text)
    longest, begin = (0, 0), 0
    for end in range(1, len(own) + 1):
        while begin < end and f" {' '.join(own[begin:end])} " not in source:
            begin += 1
        if end - begin > longest[1] - longest[0]:
            longest = (begin, end)
    return longest


def whole_sentences(text: str) -> str:
    """`text` up to the end of its last sentence; all of it where it has no end of a sentence behind at least MIN_WORDS words."""
    ends = [match.end() for match in WHOLE.finditer(text)]
    return text[: ends[-1]] if ends and len(words(text[: ends[-1]])) >= MIN_WORDS else text


def sentences(text: str) -> set[str]:
    """The sentences of a text with at least MIN_WORDS words, lower case, without punctuation."""
    if text.isascii():  # the same, in a third of the time
        cut = ASCII_END.sub("\n", text).lower().translate(OF_LINES).split("\n")
        every = [" ".join(sentence.split()) for sentence in cut]
    else:
        every = [" ".join(parts(sentence)) for line in text.split("\n") for sentence in split_sentences(line)]
    return {sentence for sentence in every if sentence.count(" ") >= MIN_WORDS - 1}


def telling(keys: dict[str, set[str]]) -> dict[str, set[str]]:
    """`keys` (the sentences of each note) without boilerplate, such as a footer or a line of a template."""
    count = Counter(sentence for own in keys.values() for sentence in own)
    common = {sentence for sentence, times in count.items() if times > max(8, BOILERPLATE * len(keys))}
    return {note: own - common for note, own in keys.items()}


def connected(keys: dict[str, set[str]]) -> list[list[str]]:
    """Groups of notes that share sentences, directly or through other notes, in the notes' order."""
    parent: dict[str, str] = {note: note for note in keys}

    def root(note: str) -> str:
        while parent[note] != note:
            parent[note] = parent[parent[note]]
            note = parent[note]
        return note

    owner: dict[str, str] = {}
    for note, own in keys.items():
        for sentence in own:
            parent[root(note)] = root(owner.setdefault(sentence, note))
    groups: dict[str, list[str]] = defaultdict(list)
    for note in keys:
        groups[root(note)].append(note)
    return list(groups.values())
