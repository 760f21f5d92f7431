"""The report stage: one self-contained HTML page that shows whether it worked, at what, and what it cost (report.html).

mipo-mlx report RUN
"""

from importlib.resources import files as resources
from pathlib import Path
from shlex import quote
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .. import recipe_loading
from ..evaluation import outcome
from ..export import results
from ..files import read_json, read_jsonl, rounds, write_text
from ..progress import Reporter, duration
from ..recipe import Evaluation, Recipe
from . import figures
from .signs import counts, signs

SPLITS = ("train", "validation", "heldout")
OUTCOMES = {"It worked": "better", "It went wrong": "worse"}  # how the verdict begins, and the colour beside it
UNTRAINED = "Not evaluated yet: training is not finished; mipo-mlx train with this run's recipe goes on with it."
UNEVALUATED = "Not evaluated yet: run mipo-mlx eval on this run."
LARGE = ("fused", "adapters", "checkpoints", "sft")  # folders that are listed with their size


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Write report.html from whatever the stages before have left in `folder`."""
    text = render(folder, recipe)
    write_text(folder / "report.html", text)
    reporter.conclude(f"  {folder / 'report.html'}: {figures.size(len(text.encode()))}, open it in a browser")
    return {"bytes": len(text.encode())}


def render(folder: Path, recipe: Recipe) -> str:
    """The page as text. Everything that a user wrote is escaped; nothing is loaded from anywhere."""
    here = resources(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]  # capitalize would turn SHA into Sha
    page = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    css = Markup(here.joinpath("page.css").read_text(encoding="utf-8"))
    return page.render(css=css, **contents(folder, recipe)).lstrip()


def contents(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """What the page shows; a part whose file is missing is left out."""
    manifest = _json(folder / "manifest.json")
    trained = _trained(manifest)
    ended = len(trained) == recipe.rounds or any(summary.get("ends_rounds") for summary in trained)
    stages = manifest.get("stages", {})
    unfinished = bool(stages) and not ended
    # An eval.json whose stage the manifest has forgotten is of a training before.
    evaluated = (folder / "eval.json").exists() and not unfinished and (not stages or "evaluation" in stages)
    result = outcome.load(folder) if evaluated else {}
    heldout, fresh, judged = result.get("heldout"), result.get("fresh"), result.get("judged")
    answered = fresh["metrics"] if fresh else {}
    kept = (result.get("abilities") or {}).get("metrics", {})
    told = "context" if not heldout or heldout["contexts"] else "request"
    gained = figures.table(heldout["metrics"], figures.HELDOUT, told) if heldout else []
    measured = {**answered, **figures.checked(result.get("checkable"))}
    asked = figures.asked(result)
    gained += figures.table(measured, figures.information_rows(fresh), told, asked)
    likelier = fresh["log_ratio_per_answer"]["value"] if fresh else None
    rows, pairs = read_jsonl(folder / "metrics.jsonl"), [_json(path) for path in rounds(folder, "pairs.json")]
    verdict = result.get("verdict", UNTRAINED if unfinished else UNEVALUATED)
    return {
        "name": recipe.name or folder.name,
        "model": recipe.model,
        "created": manifest.get("created", "").split("T")[0],
        "verdict": verdict,
        "outcome": next((tone for opening, tone in OUTCOMES.items() if verdict.startswith(opening)), "open"),
        "tiles": figures.tiles(result),
        "about": _about(heldout, fresh, manifest),
        "gained": gained,
        "told": told,
        "left_out": fresh.get("choices_left_out", []) if fresh else [],
        "no_interval": figures.no_interval(result),
        "costs": figures.table({**answered, **kept}, figures.COSTS, told, asked),
        "fresh": fresh,
        "asked_over": figures.asked_over(fresh),
        "likelier": None if likelier is None else f"{likelier:.1f}",
        "judge": (judged or {}).get("judge", ""),
        "judged": " ".join([figures.verdict_of_judge(judged), *figures.second_opinions(judged)]).strip(),
        "baselines": figures.baselines(result.get("baselines"), fresh),
        "drift": figures.drift(result.get("unprompted")),
        "leak": figures.leak(result.get("leak")),
        "signs": signs(result, rows, pairs, trained, recipe),
        "charts": figures.training_charts(
            rows,
            heldout["candidates"] if heldout else recipe.pairs.candidates,
            recipe.training,
            next(((s.get("round", 1), s["best_step"]) for s in reversed(trained) if counts(s)), None),
        ),
        "unseen": any("heldout_loss" in row for row in rows),
        "pmi": figures.pmi_charts(fresh, pairs),
        "gallery": [
            {
                "prompt": example["request"],
                "context": example["context"],
                "base": figures.shade(example["base"]["words"]),
                "tuned": figures.shade(example["tuned"]["words"]),
            }
            for example in result.get("gallery", [])
        ],
        "data": _data(folder),
        "skipped": [(row["file"], row["why"]) for row in _json(folder / "sources.json").get("files", {}).get("skipped", [])],
        "commands": [] if unfinished else _commands(folder),
        "record": _record(folder, manifest, recipe),
        "recipe": recipe_loading.dump(_evaluated_with(recipe, result)),
        # A later round replaces files of an earlier one: the last entry counts.
        "hashes": list({**_hashes(manifest), **results.hashes(folder)}.items()),
    }


def _evaluated_with(recipe: Recipe, result: dict[str, Any]) -> Recipe:
    """The recipe with the settings that eval.json was made with: `mipo-mlx eval --set` changes them for that evaluation alone."""
    settings = result.get("settings")
    return recipe.model_copy(update={"evaluation": Evaluation(**settings)}) if settings else recipe


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _trained(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What each round of training that is finished says of itself."""
    stages = manifest.get("stages", {}).items()
    return [entry["summary"] for name, entry in stages if name.startswith("training") and entry.get("summary")]


def _hashes(manifest: dict[str, Any]) -> dict[str, str]:
    return {name: digest for entry in manifest.get("stages", {}).values() for name, digest in entry.get("sha256", {}).items()}


def _about(heldout: dict[str, Any] | None, fresh: dict[str, Any] | None, manifest: dict[str, Any]) -> str:
    parts = []
    if heldout:
        over = f" over {heldout['contexts']} contexts" if heldout["contexts"] else ""
        parts.append(f"{heldout['pairs']} held-out pairs from {heldout['grids']} grids{over}")
    if fresh:
        parts.append(f"{fresh['answers']} fresh answers of each model")
    spent = sum(seconds for _, seconds in _seconds(manifest))
    if spent:
        parts.append(f"{duration(spent)} of work in all")
    return ", ".join(parts)


def _seconds(manifest: dict[str, Any]) -> list[tuple[str, float]]:
    """How long each stage has worked so far; the report, which is being written, left out."""
    stages = manifest.get("stages", {}).items()
    return [
        (f"{name}, not finished" if entry.get("state") == "started" else name, entry["seconds"])
        for name, entry in stages
        if entry.get("seconds") and name != "report"
    ]


def _data(folder: Path) -> list[tuple[str, list[tuple[str, Any]], str, str]]:
    sources, pairs = _json(folder / "sources.json"), _json(folder / "pairs.json")
    found = sources.get("files", {})
    dropped = figures.counts(pairs.get("dropped"))
    kept = [(split, key, sources.get(split, {}).get(key)) for split in SPLITS for key in ("contexts", "prompts")]
    kept += [(split, "pairs", pairs.get("pairs", {}).get(split)) for split in SPLITS]
    for number, path in enumerate(rounds(folder, "pairs.json")[1:], 2):
        later = read_json(path)
        kept.append(("train", f"pairs of round {number}", later["pairs"]["train"]))
        dropped += figures.counts(later.get("dropped"), f"round {number}, ")
    tables = [
        (
            "Kept",
            [
                *(("files read", n) for n in [found.get("read")] if n),
                *((f"{split}: {key}", count) for split, key, count in kept if count),
                *(("canaries planted in training contexts", n) for n in [sources.get("canaries")] if n),
            ],
            "what",
            "how many",
        ),
        ("Passages dropped", figures.counts(sources.get("passages", {}).get("dropped")), "why", "how many"),
        ("Cut out of notes", figures.counts(sources.get("removed")), "what", "how many"),
        ("Secrets redacted", figures.counts(sources.get("redacted")), "kind", "how many"),
        ("Files left alone", figures.counts(found.get("left_alone")), "why", "how many"),
        ("Pairs dropped", dropped, "where, why", "how many"),
    ]
    return [table for table in tables if table[1]]


def _commands(folder: Path) -> list[dict[str, Any]]:
    """Each way to use the result that this run has files for: with what, the command, and what its file keeps of the training."""
    lost = results.lost(folder)

    def way(what: str, command: str, source: str = "") -> dict[str, Any]:
        share = lost.get(source)
        return {
            "what": what,
            "command": command,
            "kept": "" if share is None else results.kept(share),
            "bad": share is not None and share > results.LIMIT,
        }

    commands = [way("Talk to it here", f"mipo-mlx chat {quote(str(folder))}")]
    for gguf in results.exported_models(folder):
        commands.append(way("llama.cpp", f"llama-cli -m {quote(str(gguf))}", gguf.name))
    if (folder / "Modelfile").exists():
        name, path = results.ollama_name(folder.name), quote(str(folder / "Modelfile"))
        commands.append(way("Ollama", f"ollama create {name} -f {path} && ollama run {name}", results.modelfile_source(folder)))
    if (folder / "fused").exists():
        fused = quote(str(folder / "fused"))
        commands.append(way("MLX", f"mlx_lm.generate --model {fused} --prompt '{results.REQUEST}'", "fused"))
    return commands


def _record(folder: Path, manifest: dict[str, Any], recipe: Recipe) -> list[tuple[str, list[tuple[str, Any]], str, str]]:
    stages = [(stage, duration(seconds)) for stage, seconds in _seconds(manifest)]
    trained = _trained(manifest)
    peak = max((summary.get("peak_memory", 0) for summary in trained), default=0)
    if peak:
        stages.append(("peak memory of training", figures.size(peak)))
    machine = [(key, manifest[key]) for key in ("device", "seed") if key in manifest] + list(manifest.get("versions", {}).items())
    listed = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name != "report.html"]
    sizes = [(path.name, figures.size(_octets(path))) for path in listed if path.is_file() or path.name.split("-")[0] in LARGE]
    tables = [
        ("Rounds", _rounds(trained, recipe.rounds) if recipe.rounds > 1 else [], "round", "held-out loss"),
        ("Time and memory", stages, "stage", "took"),
        ("Machine and versions", machine, "what", "which"),
        ("Files", sizes, "file", "size"),
    ]
    return [table for table in tables if table[1]]


def _rounds(trained: list[dict[str, Any]], wanted: int) -> list[tuple[int, str]]:
    """Every round that the recipe asks for: what it did, or why it was left out."""
    ended = next((summary["ends_rounds"] for summary in trained if summary.get("ends_rounds")), None)
    missing = f"left out: {ended}" if ended else "not trained yet"
    later = [(number, missing) for number in range(len(trained) + 1, wanted + 1)]
    return [*((row["round"], _round(row)) for row in trained), *later]


def _round(summary: dict[str, Any]) -> str:
    """What one round of training did, from its entry in the manifest."""
    first, best = summary.get("first_loss"), summary.get("best_loss")
    losses = f"{first:.4f} before, {best:.4f} after" if first is not None and best is not None else "not measured"
    return losses + (f"; the last one: {summary['ends_rounds']}" if summary.get("ends_rounds") else "")


def _octets(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
