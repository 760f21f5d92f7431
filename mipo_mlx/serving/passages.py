"""The passages that answers were told, by a key: clients get their places and keys, and the page opens the text by its key."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..memory.retrieve import Match

MOST = 1_000  # passages that can be opened; the oldest go first


@dataclass(frozen=True)
class Shown:
    """A passage as the page shows it."""

    file: str
    line: int
    text: str


class Passages:
    """The last passages that went with answers."""

    def __init__(self) -> None:
        self._shown: OrderedDict[str, Shown] = OrderedDict()

    def remember(self, matches: Iterable[Match]) -> list[dict[str, Any]]:
        """Sources for a reply, the best first: file, line, score, and the key of the text."""
        rows = []
        for match in matches:
            entry = match.entry
            key = hashlib.sha256(f"{entry.source}:{entry.line}\n{entry.text}".encode()).hexdigest()[:16]
            self._shown[key] = Shown(entry.source, entry.line, entry.text)
            self._shown.move_to_end(key)
            rows.append({"file": entry.source, "line": entry.line, "score": round(float(match.score), 4), "key": key})
        while len(self._shown) > MOST:
            self._shown.popitem(last=False)
        return rows

    def find(self, key: str) -> Shown | None:
        """The passage of that key, None where none was shown or too many have been since."""
        return self._shown.get(key)
