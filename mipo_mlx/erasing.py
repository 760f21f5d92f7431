"""What a run writes into its folder, and how `--fresh` removes it: that, and nothing of anybody else's."""

import re
import shutil
from pathlib import Path

from . import contexts
from .errors import Failure
from .files import read_json

PARTIAL = re.compile(r"\..+\.partial")  # what a write that was killed left (files.replacing, export)
EVERYTHING = (  # what a run writes, and `--fresh` removes
    *("contexts.jsonl", "prompts.jsonl", "sources.json", "samples.jsonl", "pairs.jsonl", "pairs.json", "checkpoints"),
    *("profile-samples.jsonl", "profile.json"),
    *("adapters", "metrics.jsonl", "eval.json", "eval-samples.jsonl", "fused", "Modelfile", "export.json", "report.html"),
    *("judge-verdicts.jsonl", "sft", "tensorboard", "wandb", "wandb.json"),
)
BESIDE = re.compile(rf"\.lock|{re.escape(contexts.FILE)}|profile\.old(-\d+)?\.md")  # may be there before a run, or after an erase
NUMBERED = re.compile(  # and this: files of later rounds, and questions of a data set
    r"(samples|pairs|checkpoints|adapters)-\d+(\.jsonl?)?|questions-[0-9a-f]{8}\.jsonl?"
)


def may_be_there(name: str) -> bool:
    """Whether a file may lie in a folder that no run has begun in, or that was erased."""
    return BESIDE.fullmatch(name) is not None or PARTIAL.fullmatch(name) is not None


def erase(folder: Path) -> None:
    """Remove what a run wrote, and nothing else: a profile that was edited by hand stays, and so do GGUF files of others.

    An erase that is killed leaves a run in which nothing counts as done, and which can be erased again.
    """
    profile = [] if contexts.edited(folder) else [contexts.FILE]
    others = sorted(path.name for path in folder.iterdir() if NUMBERED.fullmatch(path.name) or PARTIAL.fullmatch(path.name))
    # The record of the exported files outlives them, and the recipe, which tells a run from a folder of other files, everything.
    for name in ("manifest.json", *exported(folder), *profile, *EVERYTHING, *others, "recipe.yaml"):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def exported(folder: Path) -> list[str]:
    """The GGUF files in a run's folder that its exports wrote, those of earlier exports included."""
    record = folder / "export.json"
    try:
        kinds = read_json(record).values() if record.exists() else []
    except Failure:
        return []
    return [name for kind in kinds for name in kind["files"] if re.fullmatch(r"[^/\\]+\.gguf", name)]
