"""metrics.jsonl, the record of a training: one row a step and one a validation, each with the number of its format.

Everything that reads the file does it here: a training that goes on, the loggers, the terminal's curves, and the report.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import append_jsonl, read_jsonl, truncate_jsonl

FILE = "metrics.jsonl"
OF_VALIDATION = "validation_"  # begins the columns of the validation pairs
FORMAT = 2  # 1: the columns of the validation pairs were called heldout_...
Row = dict[str, Any]


def read(folder: Path) -> list[Row]:
    """The rows of a run, without their format; [] where there is no file. Raises UserError where another version wrote them."""
    rows = read_jsonl(folder / FILE)
    for row in rows:
        if row.pop("format", 1) != FORMAT:
            raise UserError(
                f"{folder / FILE}: written by another version of mipo-mlx, which names the figures differently; start this run "
                "over with --fresh, or choose another --name"
            )
    return rows


def append(folder: Path, row: Mapping[str, Any]) -> Row:
    """Append one row; a figure that is not finite becomes null. Returns the row as `read` gives it."""
    finite = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
    append_jsonl(folder / FILE, [{"format": FORMAT, **finite}], seal=False)  # nothing is computed from them
    return finite


def keep(folder: Path, rows: int) -> None:
    """Keep the first `rows` rows and drop the rest, which a training computes again."""
    truncate_jsonl(folder / FILE, rows)


def of_validation(row: Row) -> bool:
    return f"{OF_VALIDATION}loss" in row
