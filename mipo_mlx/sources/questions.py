"""Questions with known answers from a data set (GSM8K, SVAMP, ARC, MMLU), for `evaluation.abilities`.

They are read when a run begins: a wrong name or a missing network must not appear after a night of training.
"""

import hashlib
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from ..errors import UserError
from ..files import dump, read_json, sha256, write_json, write_jsonl
from ..progress import Reporter
from ..recipe import Dataset
from ..text.numbers import read_number
from . import hub
from .note import Tally
from .sparing import number_of, sound, warn_of_spared


def prepare(folder: Path, given: Dataset | str | None, reporter: Reporter) -> None:
    """Write the questions into the run's folder, in the form that `abilities.read_questions` takes.

    Questions that are there stay, unless the local files that they come from have changed. Raises UserError for a data set
    that cannot be read, and for rows that are no questions.
    """
    if not isinstance(given, Dataset):  # a file of questions, or none
        return
    path = path_in(folder, given)
    state, files = path.with_suffix(".json"), _local(Path(given.name).expanduser())
    if path.exists() and (not files or (state.exists() and read_json(state) == files)):
        return
    tally = Tally()
    rows = list(sound(hub.rows(given, tally), lambda place, row: _question(row, number_of(place), given), tally))
    warn_of_spared("rows of evaluation.abilities", tally, reporter)
    write_jsonl(path, rows)
    if files:
        write_json(state, files)
    reporter.say(f"  {len(rows):,} questions of {given.name} read for evaluation.abilities")


def path_in(folder: Path, given: Dataset) -> Path:
    """The file of a data set's questions in a run's folder; another data set, or other columns, has another file."""
    digest = hashlib.sha256(dump(given.model_dump(mode="json")).encode()).hexdigest()[:8]
    return folder / f"questions-{digest}.jsonl"


def _local(place: Path) -> dict[str, str]:
    """The hashes of a local data set's files; {} for one on the Hub or a missing one."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    return {path.relative_to(place.parent).as_posix(): sha256(path) for path in files if not path.name.startswith(".")}


def _question(row: dict[str, Any], number: int, given: Dataset) -> dict[str, Any]:
    columns = {"question": "question", "answer": "answer", **given.columns}
    text, answer = hub.fill(columns["question"], row, given), hub.column(row, columns["answer"], given)
    if "choices" not in columns:
        value = read_number(str(answer))
        if value is None:
            raise _wrong(given, number, f"no number in {str(answer)[:60]!r}; multiple choice needs columns.choices")
        return {"question": text, "answer": str(answer)}
    choices = hub.column(row, columns["choices"], given)
    if not isinstance(choices, list) or None in choices:
        raise _wrong(given, number, f"columns.choices: {columns['choices']} is no list of texts")
    place = _place(answer, _labels(row, columns["choices"]))
    if place is None or not 0 <= place < len(choices):
        raise _wrong(given, number, f"the answer {answer!r} names none of {len(choices)} choices")
    return {"question": text, "choices": [str(choice) for choice in choices], "answer": place}


def _labels(row: dict[str, Any], column: str) -> list[str]:
    """The labels beside the texts of choices, as in ARC ("A" or "1", in some rows "0"); [] where there are none."""
    parent, _, _ = column.rpartition(".")
    value: Any = row
    for part in parent.split(".") if parent else ():
        value = value[part]
    labels = value.get("label") if parent and isinstance(value, dict) else None
    return [str(label).strip().upper() for label in labels] if isinstance(labels, list) else []


def _place(answer: Any, labels: list[str]) -> int | None:
    """The place of the right choice, from 0: that of its label; without labels an index as it is, and "B" and "2" are second."""
    text = str(answer).strip().upper()
    if text in labels:
        return labels.index(text)
    if isinstance(answer, int) and not isinstance(answer, bool):
        return answer
    if len(text) == 1 and text in ascii_uppercase:
        return ascii_uppercase.index(text)
    return int(text) - 1 if text.isascii() and text.isdigit() else None


def _wrong(given: Dataset, number: int, what: str) -> UserError:
    return UserError(f"evaluation.abilities: {given.name}: row {number}: {what}; correct columns in the recipe")
