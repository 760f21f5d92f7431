"""Partial results that survive a kill: one JSONL file of finished chunks, keyed by what they were computed from."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..files import append_jsonl, dump, read_jsonl, write_jsonl
from ..progress import Bar


class Journal:
    """Finished chunks of work, kept in `path` and read back instead of computed again.

    The first line is a key. A file with another key (other adapters, other settings of the sampling) is started over. Chunks are
    the unit of repetition. Results come back as JSON gives them, so a run that was killed ends with the same bytes.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.suffix = path, ""
        rows = read_jsonl(path)
        if not rows or rows[0] != {"key": key}:
            rows = [{"key": key}]
        write_jsonl(path, rows, seal=True)  # a torn last line goes
        self.done = {(row["phase"], row["chunk"]): row["results"] for row in rows[1:]}

    def keyed_by(self, *settings: Any) -> "Journal":
        """This journal for phases that depend on these settings besides the key. With other settings the rest of the file stays."""
        view = copy.copy(self)
        view.suffix = f" {hashlib.sha256(dump(settings).encode()).hexdigest()[:8]}"
        return view

    def finished(self, phase: str) -> int:
        return sum(name == phase + self.suffix for name, _ in self.done)

    def map(
        self,
        phase: str,
        jobs: Sequence[Any],
        size: int,
        compute: Callable[[int, Sequence[Any]], list[Any]],
        bar: Bar | None = None,
        weigh: Callable[[Any], int] = lambda job: 1,
    ) -> list[Any]:
        """compute(chunk number, its jobs) -> one JSON-able result a job, for chunks of `size` jobs. Finished ones are kept.

        The bar moves by `weigh(job)` for each job.
        """
        results: list[Any] = []
        phase += self.suffix
        for chunk, start in enumerate(range(0, len(jobs), size)):
            part = jobs[start : start + size]
            known = self.done.get((phase, chunk))
            if known is None:
                known = compute(chunk, part)
                append_jsonl(self.path, [{"phase": phase, "chunk": chunk, "results": known}])
                self.done[phase, chunk] = known
                if bar:
                    bar.advance(sum(map(weigh, part)))
            elif bar:
                bar.skip(sum(map(weigh, part)))
            results += known
        return results
