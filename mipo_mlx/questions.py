"""Questions with known answers from a data set (GSM8K, SVAMP, ARC, MMLU), for `evaluation.abilities`.

Sources read data sets and evaluation asks questions, and neither knows the other; this reads with the one what the other asks. It
does so when a run begins: a wrong name or a missing network should not show after a night of training.
"""

from pathlib import Path
from string import ascii_uppercase
from typing import Any

from .errors import UserError
from .evaluation.abilities import kept
from .evaluation.numbers import read_number
from .files import write_jsonl
from .progress import Reporter
from .recipe import Dataset
from .sources import hub


def prepare(folder: Path, given: Dataset, reporter: Reporter) -> None:
    """Leave the questions in the run's folder, in the form of `abilities.read_questions`; those that are there are kept.

    Raises UserError for a data set that cannot be read, and for rows that are no questions.
    """
    path = kept(folder, given)
    if path.exists():
        return
    rows = [_question(row, number, given) for number, row in hub.rows(given)]
    write_jsonl(path, rows)
    reporter.say(f"  {len(rows):,} questions of {given.name} read for evaluation.abilities")


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
    place = _place(answer)
    if place is None or not 0 <= place < len(choices):
        raise _wrong(given, number, f"the answer {answer!r} names none of {len(choices)} choices")
    return {"question": text, "choices": [str(choice) for choice in choices], "answer": place}


def _place(answer: Any) -> int | None:
    """Where the right choice stands, from 0: an index is one already, "B" and "2" (as in ARC) are the second."""
    if isinstance(answer, int):
        return answer
    text = str(answer).strip().upper()
    if len(text) == 1 and text in ascii_uppercase:
        return ascii_uppercase.index(text)
    return int(text) - 1 if text.isdigit() else None


def _wrong(given: Dataset, number: int, what: str) -> UserError:
    return UserError(f"evaluation.abilities: {given.name}: row {number}: {what}; correct columns in the recipe")
