"""What judges said, kept by what they were asked: a verdict that was paid for outlives other settings of the evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import append_jsonl, read_jsonl, write_jsonl

FILE = "judge-verdicts.jsonl"
Judge = tuple[str, str | None, str]  # its name, the model that an endpoint serves, the mode


class Verdicts:
    """One line for each chunk of requests: the judge, and its rows by a hash of its questions; null where it replied nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[Judge, dict[str, Any]] = {}
        lines = read_jsonl(path)
        if lines:
            write_jsonl(path, lines)  # a torn last line goes
        for line in lines:
            name, model, mode = line["judge"]
            self.known.setdefault((name, model, mode), {}).update(line["rows"])

    def rows(self, judge: Judge) -> dict[str, Any]:
        """The judge's rows by the hashes of its questions."""
        return self.known.setdefault(judge, {})

    def missing(self, judge: Judge, keys: Sequence[str]) -> list[int]:
        """The places of `keys` that the judge has not replied to, each key once."""
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        return sorted(place for key, place in first.items() if self.rows(judge).get(key) is None)

    def add(self, judge: Judge, rows: dict[str, Any]) -> None:
        append_jsonl(self.path, [{"judge": judge, "rows": rows}])
        self.rows(judge).update(rows)
