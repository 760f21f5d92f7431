"""What a run read, dropped, wrote and took, and the commands that use its result: the lists at the end of the page."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from ..export import results
from ..files import read_json, rounds, size
from ..progress import duration
from ..recipe import Recipe
from .figures import counts, in_words

SPLITS = ("train", "validation", "heldout")
LARGE = ("fused", "adapters", "checkpoints", "sft")  # folders that are listed with their size


@dataclass(frozen=True)
class Listing:
    title: str
    rows: list[tuple[Any, Any]]
    left: str  # what heads the columns
    right: str


@dataclass(frozen=True)
class Way:
    what: str
    command: str
    kept: str  # what its file keeps of the training; "" where nobody measured it
    bad: bool  # whether that is too little


def read(path: Path) -> dict[str, Any]:
    """A JSON file of the run; {} where there is none."""
    return read_json(path) if path.exists() else {}


def trained(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    stages = manifest.get("stages", {}).items()
    return [entry["summary"] for name, entry in stages if name.startswith("training") and entry.get("summary")]


def data(folder: Path) -> list[Listing]:
    """What the run learned from, and what was dropped on the way; empty lists are left out."""
    sources, pairs = read(folder / "sources.json"), read(folder / "pairs.json")
    files = sources.get("files", {})
    dropped = counts(pairs.get("dropped"))
    kept = [(f"{split}: {key}", sources.get(split, {}).get(key)) for split in SPLITS for key in ("contexts", "prompts")]
    kept += [(f"{split}: pairs", pairs.get("pairs", {}).get(split)) for split in SPLITS]
    behind = [(split, pairs.get("grids", {}).get(split, {}).get("behind", [])) for split in SPLITS]
    kept += [(f"{split}: grids whose passages stand behind those of other notes", sum(counted[1:])) for split, counted in behind]
    for number, path in enumerate(rounds(folder, "pairs.json")[1:], 2):
        later = read_json(path)
        kept.append((f"train: pairs of round {number}", later["pairs"]["train"]))
        dropped += counts(later.get("dropped"), f"round {number}, ")
    kept = [("files read", files.get("read")), *kept, ("canaries planted in training contexts", sources.get("canaries"))]
    listings = [
        Listing("Kept", [(name, count) for name, count in kept if count], "what", "how many"),
        Listing("Passages dropped", counts(sources.get("passages", {}).get("dropped")), "why", "how many"),
        Listing("Cut out of notes", counts(sources.get("removed")), "what", "how many"),
        Listing("Secrets redacted", counts(sources.get("redacted")), "kind", "how many"),
        Listing("Files left alone", counts(files.get("left_alone")), "why", "how many"),
        Listing("Pairs dropped", dropped, "where, why", "how many"),
    ]
    return [listing for listing in listings if listing.rows]


def ways(folder: Path) -> list[Way]:
    """The ways to use the result that this run has files for; of several GGUF files, the one that keeps most comes first."""
    lost = results.lost(folder)

    def way(what: str, command: str, source: str = "") -> Way:
        share = lost.get(source)
        kept = "" if share is None else results.kept(share)
        return Way(what, command, kept, share is not None and share > results.LIMIT)

    every = [way("Talk to it here", f"mipo-mlx chat {quote(str(folder))}")]
    for gguf in sorted(results.exported_models(folder), key=lambda path: lost.get(path.name, 0)):
        every.append(way("llama.cpp", f"llama-cli -m {quote(str(gguf))}", gguf.name))
    if (folder / "Modelfile").exists():
        name, path = results.ollama_name(folder.name), quote(str(folder / "Modelfile"))
        every.append(way("Ollama", f"ollama create {name} -f {path} && ollama run {name}", results.modelfile_source(folder)))
    if (folder / "fused").exists():
        fused = quote(str(folder / "fused"))
        every.append(way("MLX", f"mlx_lm.generate --model {fused} --prompt '{results.REQUEST}'", "fused"))
    return every


def record(folder: Path, manifest: dict[str, Any], recipe: Recipe) -> list[Listing]:
    """Rounds, time and memory, machine, files; empty lists are left out."""
    summaries = trained(manifest)
    stages: list[tuple[Any, Any]] = [(stage, duration(spent)) for stage, spent in seconds(manifest)]
    peak = max((summary.get("peak_memory", 0) for summary in summaries), default=0)
    if peak:
        stages.append(("peak memory of training", in_words(peak)))
    machine = [(key, manifest[key]) for key in ("device", "seed") if key in manifest] + list(manifest.get("versions", {}).items())
    listed = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.name != "report.html"]
    sizes = [(path.name, in_words(size(path))) for path in listed if path.is_file() or path.name.split("-")[0] in LARGE]
    listings = [
        Listing(
            "Rounds",
            _rounds(summaries, recipe.rounds) if len(summaries) > 1 or recipe.rounds > 1 else [],
            "round",
            "validation loss",
        ),
        Listing("Time and memory", stages, "stage", "took"),
        Listing("Machine and versions", machine, "what", "which"),
        Listing("Files", sizes, "file", "size"),
    ]
    return [listing for listing in listings if listing.rows]


def seconds(manifest: dict[str, Any]) -> list[tuple[str, float]]:
    """How long each stage has worked so far, without the report, which is being written."""
    stages = manifest.get("stages", {}).items()
    return [
        (f"{name}, not finished" if entry.get("state") == "started" else name, entry["seconds"])
        for name, entry in stages
        if entry.get("seconds") and name != "report"
    ]


def _rounds(summaries: list[dict[str, Any]], wanted: int) -> list[tuple[int, str]]:
    """Every round of the recipe: its result, or why it was left out."""
    ended = next((summary["ends_rounds"] for summary in summaries if summary.get("ends_rounds")), None)
    missing = f"left out: {ended}" if ended else "not trained yet"
    later = [(number, missing) for number in range(len(summaries) + 1, wanted + 1)]
    return [*((row["round"], _round(row)) for row in summaries), *later]


def _round(summary: dict[str, Any]) -> str:
    first, best = summary.get("first_loss"), summary.get("best_loss")
    losses = f"{first:.4f} before, {best:.4f} after" if first is not None and best is not None else "not measured"
    return losses + (f"; the last one: {summary['ends_rounds']}" if summary.get("ends_rounds") else "")
