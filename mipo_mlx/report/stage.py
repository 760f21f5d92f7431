"""The report stage: one self-contained HTML page that shows whether it worked, at what, and what it cost (report.html).

    mipo-mlx report RUN
"""

from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .. import recipe as recipes
from ..evaluation import compare
from ..files import read_json, read_jsonl, rounds, write_text
from ..progress import Reporter, duration
from ..recipe import Recipe
from . import figures
from .signs import signs

SPLITS = ("train", "validation", "heldout")
OUTCOMES = {"It worked": "better", "It went wrong": "worse"}  # how the verdict begins, and the colour beside it
LARGE = ("fused", "adapters", "checkpoints")  # folders that are listed with their size


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Write report.html from whatever the stages before have left in `folder`."""
    text = render(folder, recipe)
    write_text(folder / "report.html", text)
    reporter.say(f"  {folder / 'report.html'}: {figures.size(len(text.encode()))}, open it in a browser")
    return {"bytes": len(text.encode())}


def render(folder: Path, recipe: Recipe) -> str:
    """The page as text. Everything that a user wrote is escaped; nothing is loaded from anywhere."""
    here = resources(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8"))
    css = Markup(here.joinpath("page.css").read_text(encoding="utf-8"))
    return page.render(css=css, **contents(folder, recipe)).lstrip()


def contents(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """What the page shows; a part whose file is missing is left out."""
    result, manifest = compare.read(folder) if (folder / "eval.json").exists() else {}, _json(folder / "manifest.json")
    heldout, fresh, judged = result.get("heldout"), result.get("fresh"), result.get("judged")
    answered = fresh["metrics"] if fresh else {}
    kept = (result.get("abilities") or {}).get("metrics", {})
    gained = figures.table(heldout["metrics"], figures.HELDOUT) if heldout else []
    told = figures.information_rows(fresh)
    gained += figures.table({**answered, **figures.checked(result.get("checkable"))}, told)
    likelier = fresh["log_ratio_per_answer"]["value"] if fresh else None
    rows, pairs = read_jsonl(folder / "metrics.jsonl"), _json(folder / "pairs.json")
    trained = [entry.get("summary") or {} for name, entry in manifest.get("stages", {}).items() if name.startswith("training")]
    stopped = next((summary["stopped"] for summary in trained if summary.get("stopped")), None)
    verdict = result.get("verdict", "Not evaluated yet: run mipo-mlx eval on this run.")
    return {
        "name": recipe.name or folder.name,
        "model": recipe.model,
        "created": manifest.get("created", "").split("T")[0],
        "verdict": verdict,
        "outcome": next((tone for opening, tone in OUTCOMES.items() if verdict.startswith(opening)), "open"),
        "tiles": figures.tiles(result),
        "about": _about(heldout, fresh, manifest),
        "gained": gained,
        "no_interval": [part["no_interval"] for part in (heldout, fresh) if part and part["no_interval"]],
        "costs": figures.table({**answered, **kept}, figures.COSTS),
        "fresh": fresh,
        "likelier": None if likelier is None else f"{likelier:.1f}",
        "judge": (judged or {}).get("judge", ""),
        "judged": " ".join([figures.verdict_of_judge(judged), *figures.second_opinions(judged)]).strip(),
        "baselines": figures.baselines(result.get("baselines"), fresh),
        "drift": figures.drift(result.get("unprompted")),
        "leak": figures.leak(result.get("leak")),
        "signs": signs(result, rows, pairs, stopped, recipe),
        "charts": figures.training_charts(rows, heldout["candidates"] if heldout else recipe.pairs.candidates, recipe.training),
        "pmi": figures.pmi_charts(fresh, pairs.get("histogram", {})),
        "gallery": [
            {
                "prompt": example["prompt"],
                "context": example["context"],
                "base": figures.shade(example["base"]["words"]),
                "tuned": figures.shade(example["tuned"]["words"]),
            }
            for example in result.get("gallery", [])
        ],
        "data": _data(folder),
        "skipped": [(row["file"], row["why"]) for row in _json(folder / "sources.json").get("files", {}).get("skipped", [])],
        "commands": _commands(folder),
        "record": _record(folder, manifest),
        "recipe": recipes.dump(recipe),
        # A later round replaces files of an earlier one: the last entry counts.
        "hashes": list({k: v for stage in manifest.get("stages", {}).values() for k, v in stage.get("sha256", {}).items()}.items()),
    }


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _about(heldout: dict[str, Any] | None, fresh: dict[str, Any] | None, manifest: dict[str, Any]) -> str:
    parts = []
    if heldout:
        over = f" over {heldout['contexts']} contexts" if heldout["contexts"] else ""
        parts.append(f"{heldout['pairs']} held-out pairs from {heldout['grids']} grids{over}")
    if fresh:
        parts.append(f"{fresh['answers']} fresh answers of each model")
    spent = sum(stage.get("seconds", 0) for stage in manifest.get("stages", {}).values())
    if spent:
        parts.append(f"{duration(spent)} of work in all")
    return ", ".join(parts)


def _data(folder: Path) -> list[tuple[str, list[tuple[str, Any]], str, str]]:
    sources, pairs = _json(folder / "sources.json"), _json(folder / "pairs.json")
    found = sources.get("files", {})
    kept = [(split, key, sources.get(split, {}).get(key)) for split in SPLITS for key in ("contexts", "prompts")]
    kept += [(split, "pairs", pairs.get("pairs", {}).get(split)) for split in SPLITS]
    for number, path in enumerate(rounds(folder, "pairs.json")[1:], 2):
        kept.append(("train", f"pairs of round {number}", read_json(path)["pairs"]["train"]))
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
        ("Pairs dropped", figures.counts(pairs.get("dropped")), "where, why", "how many"),
    ]
    return [table for table in tables if table[1]]


def _commands(folder: Path) -> list[tuple[str, str]]:
    """(with what, command) for each way to use the result that this run has files for."""
    commands = [("Talk to it here", f"mipo-mlx chat {folder}")]
    for gguf in sorted(folder.glob("*.gguf")):
        commands.append(("llama.cpp", f"llama-cli -m {gguf}"))
    if (folder / "Modelfile").exists():
        commands.append(("Ollama", f"ollama create {folder.name} -f {folder / 'Modelfile'} && ollama run {folder.name}"))
    if (folder / "fused").exists():
        commands.append(("MLX", f'mlx_lm.generate --model {folder / "fused"} --prompt "What should I cook tonight?"'))
    return commands


def _record(folder: Path, manifest: dict[str, Any]) -> list[tuple[str, list[tuple[str, Any]], str, str]]:
    entries = manifest.get("stages", {})
    stages = [(stage, duration(entry["seconds"])) for stage, entry in entries.items() if entry.get("seconds") is not None]
    trained = [entry["summary"] for stage, entry in entries.items() if stage.startswith("training") and entry.get("summary")]
    training = trained[0] if trained else {}
    if training.get("peak_memory"):
        stages.append(("peak memory of training", figures.size(training["peak_memory"])))
    machine = [(key, manifest[key]) for key in ("device", "seed") if key in manifest] + list(manifest.get("versions", {}).items())
    listed = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name != "report.html"]
    sizes = [(path.name, figures.size(_octets(path))) for path in listed if path.is_file() or path.name.split("-")[0] in LARGE]
    tables = [
        ("Rounds", [(row["round"], _round(row)) for row in trained] if len(trained) > 1 else [], "round", "held-out loss"),
        ("Time and memory", stages, "stage", "took"),
        ("Machine and versions", machine, "what", "which"),
        ("Files", sizes, "file", "size"),
    ]
    return [table for table in tables if table[1]]


def _round(summary: dict[str, Any]) -> str:
    """What one round of training did, from its entry in the manifest."""
    first, best = summary.get("first_loss"), summary.get("best_loss")
    losses = f"{first:.4f} before, {best:.4f} after" if first is not None and best is not None else "not measured"
    return losses + (f"; the last one: {summary['ends_rounds']}" if summary["ends_rounds"] else "")


def _octets(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
