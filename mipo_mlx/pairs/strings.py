"""A run's pairs as plain strings: `mipo-mlx pairs RUN --export FOLDER`.

mlx-lm-lora reads a folder of train.jsonl, valid.jsonl and test.jsonl, with `system`, `prompt`, `chosen` and `rejected` as strings,
and puts them through the chat template itself; TRL reads pairs.jsonl, whose columns of the same names are chat messages. One file
cannot be both: the names are the same, and mlx-lm-lora's files hold one split each.
"""

from pathlib import Path

from ..errors import UserError
from ..files import write_jsonl
from ..records import HELDOUT, TRAIN, VALIDATION, Pair, read_records

FILES = {TRAIN: "train.jsonl", VALIDATION: "valid.jsonl", HELDOUT: "test.jsonl"}


def write_strings(folder: Path, target: Path) -> str:
    """Write the first round's pairs of the run in `folder` into `target`, a line for each negative; returns the sentence to print.

    Raises UserError for a prompt of several turns, which has no place in such a file, and where `target` is a file.
    """
    path = Path(folder) / "pairs.jsonl"
    rows: dict[str, list[dict[str, str]]] = {split: [] for split in FILES}
    for line, pair in enumerate(read_records(path, Pair), 1):
        rows[pair.split] += strings(pair, f"{path}:{line}")
    if target.exists() and not target.is_dir():
        raise UserError(f"--export {target}: this is a file; name a folder")
    for split, name in FILES.items():
        write_jsonl(target / name, rows[split])
    return f"{target}/: " + ", ".join(f"{name} ({len(rows[split])} lines)" for split, name in FILES.items())


def strings(pair: Pair, where: str) -> list[dict[str, str]]:
    """One row for each negative. Raises UserError unless the prompt is a request, with or without a system message."""
    roles = [message["role"] for message in pair.prompt]
    if roles not in (["user"], ["system", "user"]):
        told = ", ".join(roles)
        raise UserError(f"{where}: the prompt's turns are {told}; strings can hold a request and a system message only")
    asked = {"prompt" if message["role"] == "user" else "system": message["content"] for message in pair.prompt}
    return [{**asked, "chosen": pair.chosen[0]["content"], "rejected": text} for text in pair.negatives]
