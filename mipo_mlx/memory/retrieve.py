"""From a question to the passages of the notes that fit it, best first; none where none fits.

    question -> words -> BM25 of passages and of whole files  \\
             -> vector -> cosines to all passages              -> one score a passage -> one passage a note, above the threshold

Score = cosine + `words` x coverage. Coverage is the share of the question's information that the passage and its file have: BM25
over the most that these words could give, the mean of both. So it lies between 0 and 1, whatever the number of notes.
With word vectors, half of the cosine is that of the passage's nearest sentence, or of the words in its file's path: the mean of a
long passage hides them.

However long the question and however common its words, a search takes some 50 ms of one core with 100,000 passages: MOST_WORDS,
ROWS, SCANNED and MISSPELLED are its limits.

WEIGHTS were chosen on the development half of tests/memory/til_questions.jsonl, and the thresholds on the questions there that
fit no note: see `benchmarks/memory.py`, which prints what they let through and what they lose.
"""

import math
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, chain, islice, pairwise

import numpy as np

from ..models.embedding import Embedder
from ..text.words import likeness, split_sentences
from .index import TOKENIZER, Entry, Index
from .reranker import Reranker
from .terms import ENGLISH, SHORTEST, UNBROKEN, content_words, edits, language, misspells_a_function_word

MOST = 3  # passages that are given back, one a note
FILES = 3  # files with the most of the words, all of whose passages are scored
CANDIDATES = 300  # passages with the most of the words, and as many with the nearest vectors, that are scored
READ_CLOSELY = 20  # best candidates whose sentences are compared, too
ROWS = 5_000  # passages that the words searched for may stand in, all together: commoner words are left out
SCANNED = 6_000  # rows that are scored for one word alone that stands in more, the newest ones: SQLite scores 500 a millisecond
READ, MOST_WORDS = 200, 32  # words of a long question that are looked up, its last ones; the rarest of them, which are searched for
MISSPELLED = 3  # words that no note has of which known spellings are looked for
NEAR = 4_000  # words that share three letters with such a word: commoner parts of it are left out
PREFIX = 5  # letters by which longer words are searched too: inflected forms mostly share these (McNamee and Mayfield 2004)
BM25_MOST = 2.2  # k1 + 1 in SQLite: what a word gives at most, times its idf
SAME = 0.7  # likeness from which two passages say the same


@dataclass(frozen=True)
class Weights:
    """How an embedder's cosines and the words go together."""

    words: float  # of the coverage, beside a cosine of weight 1
    threshold: float  # the score from which a passage fits
    sentence: float = 0.0  # the nearest sentence's part of a cosine
    gain: float = 0.2  # of the reranker's gain, in nats a token
    reranked: float = 0.03  # more of the threshold where there is a reranker: most of its gains are above zero


WORDS_ALONE = Weights(1.0, 0.17)
WEIGHTS = {"words of": Weights(1.0, 0.38, sentence=0.5), "all-MiniLM-L6-v2": Weights(0.75, 0.43)}
STATIC = Weights(0.75, 0.43)


@dataclass(frozen=True)
class Match:
    """A passage that fits a question."""

    entry: Entry
    score: float
    coverage: float  # of the question's words, 0 to 1
    cosine: float | None = None  # None: no embedder
    gain: float | None = None  # nats a token by which the passage makes the question likelier; None: no reranker

    @property
    def place(self) -> str:
        return f"{self.entry.source}:{self.entry.line}"


class Memory:
    """The notes of a run, ready for questions. reranker: None where the recipe has none, or where there is no time for it."""

    def __init__(self, index: Index, embedder: Embedder | None = None, reranker: Reranker | None = None) -> None:
        self.index, self.embedder, self.reranker = index, embedder, reranker
        self.weights = weights_of(embedder)
        self._scratch = sqlite3.connect(":memory:")
        self._scratch.execute(f"CREATE VIRTUAL TABLE words USING fts5 (text, {TOKENIZER})")
        self._scratch.execute("CREATE VIRTUAL TABLE terms USING fts5vocab (words, instance)")

    def warm(self) -> None:
        """Read what each question needs, so that the first one does not wait for it."""
        with self.index.reading():
            self.index.count_files()
            if self.embedder:
                self.index.vectors()

    def search(self, question: str, most: int = MOST) -> list[Match]:
        """At most `most` passages that fit, best first, each of another note."""
        return [match for match in self.ranked(question, most) if match.score >= self.threshold]

    @property
    def threshold(self) -> float:
        """The score from which a passage fits."""
        return self.weights.threshold + (0 if self.reranker is None else self.weights.reranked)

    def ranked(self, question: str, most: int = MOST) -> list[Match]:
        """As `search`, whether they fit or not."""
        with self.index.reading():
            kept = self._distinct(question, most)
        return self._reranked(self.reranker, question, kept)[:most] if self.reranker and kept else kept

    def _distinct(self, question: str, most: int) -> list[Match]:
        """The best passages that differ, one a note; more than `most` where a reranker compares them."""
        kept: list[Match] = []
        most = most if self.reranker is None else max(most, self.reranker.most)
        for match in self._scored(question):
            if len(kept) == most:
                break
            others = (other.entry for other in kept)
            if not any(match.entry.note == other.note or likeness(match.entry.text, other.text) > SAME for other in others):
                kept.append(match)
        return kept

    def _reranked(self, reranker: Reranker, question: str, matches: list[Match]) -> list[Match]:
        """The same matches in the order that the reranker gives them."""
        gains = reranker(question, [match.entry.text for match in matches])
        again = [
            replace(match, score=match.score + self.weights.gain * gain, gain=gain)
            for match, gain in zip(matches, gains, strict=True)
        ]
        return sorted(again, key=lambda match: -match.score)

    def _scored(self, question: str) -> Iterator[Match]:
        """The candidates by falling score; the sentences of the best READ_CLOSELY have their part in it."""
        matches = self._roughly_scored(question)
        if self.embedder and self.weights.sentence:
            closely = self._by_sentence(self.embedder, question, list(islice(matches, READ_CLOSELY)))
            yield from sorted(closely, key=lambda match: -match.score)
        yield from matches

    def _by_sentence(self, embedder: Embedder, question: str, matches: list[Match]) -> list[Match]:
        """The same matches; the nearest sentence, or the path, has its part of each cosine."""
        sentences = [[_in_words(match.entry.source), *split_sentences(match.entry.text)] for match in matches]
        vectors = embedder([question, *chain(*sentences)])
        near, closer = vectors @ vectors[0], []
        for match, (begin, end) in zip(matches, pairwise(accumulate(map(len, sentences), initial=1)), strict=True):
            cosine = match.cosine or 0.0
            more = self.weights.sentence * (float(near[begin:end].max()) - cosine)
            closer.append(replace(match, score=match.score + more, cosine=cosine + more))
        return closer

    def _roughly_scored(self, question: str) -> Iterator[Match]:
        passages, files = self._coverages(question)
        cosines = self._cosines(question)
        best = sorted(files, key=lambda file: -files[file])[:FILES]
        stands = self.index.files_of({**passages, **cosines})
        stands |= {number: file for file in best for number in self.index.passages_of(file, CANDIDATES)}
        candidates = np.array(list(dict.fromkeys([*passages, *cosines, *stands])), np.int64)
        coverage = [(passages.get(n, 0.0) + files.get(stands[n], 0.0)) / 2 for n in candidates.tolist()]
        score = [cosines.get(n, 0.0) + self.weights.words * c for n, c in zip(candidates, coverage, strict=True)]
        for place in np.argsort(-np.array(score), kind="stable"):
            number = int(candidates[place])
            entry = self.index.entries([number])[number]
            yield Match(entry, score[place], coverage[place], cosines.get(number))

    def _cosines(self, question: str) -> dict[int, float]:
        if self.embedder is None:
            return {}
        ids, vectors = self.index.vectors()
        if not len(ids):
            return {}
        near = vectors @ self.embedder([question])[0]
        best = np.argpartition(-near, CANDIDATES)[:CANDIDATES] if len(near) > CANDIDATES else np.arange(len(near))
        return {int(ids[place]): float(near[place]) for place in best}

    def _coverages(self, question: str) -> tuple[dict[int, float], dict[int, float]]:
        """The coverage of the question's words by passages and by files that have some, by their ids."""
        words = sorted(self._frequencies(content_words(question)[-READ:]).items(), key=lambda pair: pair[1])
        total, kept = 0, list[tuple[str, int]]()
        for word, count in words[:MOST_WORDS]:
            total += count
            if kept and total > ROWS:
                break
            kept.append((word, count))
        stemmed = language(question) == ENGLISH
        phrases, rows = self._phrases(kept, stemmed)
        if not phrases:
            return {}, {}
        coverages = []
        for table, size in (("passage_words", self.index.count()), ("file_words", self.index.count_files())):
            most = BM25_MOST * sum(_idf(size, min(count, size)) for _, count in kept)
            scored = f"SELECT rowid, -bm25({table}) AS score FROM {table} WHERE {table} MATCH ?"
            if rows > ROWS:  # one very common word; such a subquery takes more time for several
                scored = f"SELECT rowid, score FROM ({scored} ORDER BY rowid DESC LIMIT {SCANNED})"
            query = f"{scored} ORDER BY score DESC, rowid LIMIT ?"
            found = self.index.connection.execute(query, [" OR ".join(phrases), CANDIDATES]).fetchall()
            coverages.append({number: min(1.0, score / most) for number, score in found})
        return coverages[0], coverages[1]

    def _frequencies(self, words: list[str]) -> dict[str, int]:
        """In how many passages each word stands, without function words that are mistyped."""
        terms = zip(words, self._terms(words), strict=True)
        known = {word: self._passages("passages", "term = ?", term) for word, term in terms}
        return {word: count for word, count in known.items() if count or not misspells_a_function_word(word)}

    def _terms(self, words: list[str]) -> list[str]:
        """Words as the index has them: without accents, their English stems."""
        self._scratch.execute("DELETE FROM words")
        self._scratch.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", enumerate(words))
        terms = dict(self._scratch.execute("SELECT doc, term FROM terms"))
        return [terms.get(place, word) for place, word in enumerate(words)]

    def _phrases(self, words: list[tuple[str, int]], stemmed: bool) -> tuple[list[str], int]:
        """What FTS5 is to search for: words, or those that begin alike, and, where none is known, those that are spelled alike.
        And in how many passages these stand, all together.

        words: with the passages that each stands in. All that is added stands in as many passages as ROWS leaves.
        stemmed: SQLite's stemmer knows the language, English, so that inflected forms are one word already.
        """
        phrases, total = list[str](), sum(count for _, count in words)
        for word, count in words:
            begin, phrase = word[:PREFIX], f'"{word}"'
            if not (UNBROKEN.match(word) or len(word) <= PREFIX or (stemmed and count)):
                more = self._passages("total(passages)", "term >= ? AND term < ?", begin, f"{begin}\U0010ffff") - count
                if total + more <= ROWS:
                    phrase, total = f'"{begin}" *', total + more
            phrases.append(phrase)
        unknown = [word for word, count in words if not count and len(word) >= SHORTEST]
        for term in [term for word in unknown[:MISSPELLED] for term in self._spelled(word)]:
            more = self._passages("passages", "term = ?", term)
            if not total or total + more <= ROWS:
                phrases.append(f'"{term}"')
                total += more
        return phrases, total

    def _passages(self, column: str, where: str, *values: str) -> int:
        row = self.index.connection.execute(f"SELECT {column} FROM terms WHERE {where}", values).fetchone()
        return int(row[0]) if row else 0

    def _spelled(self, word: str) -> list[str]:
        """Known words of which this one may be a misspelling: one edit away, two from eight letters on."""
        (term,) = self._terms([word])
        most = 1 if len(term) < 8 else 2
        query, counts = "SELECT doc FROM spelling_parts WHERE term = ?", dict[str, int]()
        for part in {term[at : at + 3] for at in range(len(term) - 2)}:
            row = self.index.connection.execute(query, [part]).fetchone()
            counts |= {part: row[0]} if row else {}
        parts = sorted(counts, key=lambda part: (counts[part], part))
        rows = list(accumulate(counts[part] for part in parts))
        kept = [f'"{part}"' for part, total in zip(parts, rows, strict=True) if total <= NEAR or part == parts[0]]
        query = "SELECT term FROM spelling WHERE spelling MATCH ? ORDER BY rank LIMIT 100"
        others = self.index.connection.execute(query, [" OR ".join(kept)]).fetchall() if kept else []
        near = [(edits(term, other, most), other) for (other,) in others]
        return [other for distance, other in sorted(near) if distance <= most][:3]


def _in_words(path: str) -> str:
    """`food/thursday-soup.md` -> `food thursday soup`"""
    return " ".join(re.findall(r"[^\W_]+", os.path.splitext(path)[0]))


def weights_of(embedder: Embedder | None) -> Weights:
    """The weights and the threshold that belong to an embedder."""
    if embedder is None:
        return WORDS_ALONE
    return next((weights for name, weights in WEIGHTS.items() if embedder.name.startswith(name)), STATIC)


def _idf(size: int, count: int) -> float:
    """As SQLite's bm25()."""
    return max(1e-6, math.log((size - count + 0.5) / (count + 0.5)))
