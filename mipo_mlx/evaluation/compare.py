"""Compare finished runs on the held-out items that they share: paired, with intervals over contexts and, where there are
several runs a side, over seeds.

    mipo-mlx eval RUN_A RUN_B
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import read_json
from ..recipe import Evaluation
from .intervals import FEWEST, LEVEL
from .measures import TRANSFORMS

Shared = tuple[np.ndarray, list[list[str]]]  # (items, 4) values and weights of A and B; the items' groups


def compare(a: Sequence[Path], b: Sequence[Path], draws: int = Evaluation().bootstrap, seed: int = 0) -> dict[str, Any]:
    """Each measure of the tuned models of runs `a` and `b`, and B's change against A.

    a[i] and b[i] are runs of one seed. Only items (pairs; context and prompt) that both runs evaluated are compared. Returns
    {"items", "measures": {name: {"a", "b", "change", "interval", "relative"}}}; an interval is None where too few groups
    are shared. Raises UserError where a run has no evaluation, or nothing is shared.
    """
    if not a or len(a) != len(b):
        raise UserError(f"compare: {len(a)} runs against {len(b)}; expected as many on either side, in the order of their seeds")
    sides = [[_read(folder) for folder in side] for side in (a, b)]
    found: dict[str, Any] = {}
    shared_items = 0
    for part in ("heldout", "fresh", "abilities", "checkable"):
        results = [(x.get(part), y.get(part)) for x, y in zip(*sides, strict=True)]
        if any(x is None or y is None for x, y in results):
            continue
        names = [n for n in results[0][0]["items"]["values"] if all(n in s["items"]["values"] for r in results for s in r)]
        for name in names:
            levels = [_shared(x["items"], y["items"], name) for x, y in results]
            if not all(len(columns) for columns, _ in levels):
                continue
            shared_items += sum(len(columns) for columns, _ in levels) if name == names[0] else 0
            kept = results[0][0]["items"]["values"][name]
            found[name] = _measure(levels, TRANSFORMS[kept["transform"]], kept["relative"], draws, seed)
    if not found:
        raise UserError(
            f"{a[0]} and {b[0]}: no held-out item in common, so there is nothing to compare; "
            "use runs of the same notes, prompts, seed and pairs settings"
        )
    return {"items": shared_items, "measures": found}


def show(result: dict[str, Any]) -> list[str]:
    """Lines for a terminal: A, B, the change and its interval."""
    lines = [f"{'':34s} {'A':>9s} {'B':>9s} {'B - A':>9s}  95 % interval"]
    for name, m in result["measures"].items():
        form = "+.1%" if m["relative"] else "+.3f"
        interval = f"{m['interval'][0]:{form}} to {m['interval'][1]:{form}}" if m["interval"] else "too few groups"
        lines.append(f"{name.replace('_', ' '):34s} {m['a']:9.3f} {m['b']:9.3f} {format(m['change'], form):>9s}  {interval}")
    return lines


def _read(folder: Path) -> dict[str, Any]:
    path = Path(folder) / "eval.json"
    if not path.exists():
        raise UserError(f"{path}: this run has no evaluation yet; run `mipo-mlx eval {folder}` first")
    return read_json(path)


def _shared(a: dict[str, Any], b: dict[str, Any], name: str) -> Shared:
    """Rows for the keys that both have, in A's order; a key that occurs twice is matched by its occurrence."""
    places: list[dict[tuple[str, int], int]] = []
    for items in (a, b):
        seen: dict[str, int] = {}
        place = {}
        for index, key in enumerate(items["keys"]):
            place[key, seen.get(key, 0)] = index
            seen[key] = seen.get(key, 0) + 1
        places.append(place)
    matched = [(i, places[1][key]) for key, i in places[0].items() if key in places[1]]
    columns = []
    for items, side in ((a, 0), (b, 1)):
        kept = items["values"][name]
        rows = [pair[side] for pair in matched]
        columns += [[kept["after"][i] for i in rows], [kept["weight"][i] if "weight" in kept else 1.0 for i in rows]]
    groups = [[labels[i] for i, _ in matched] for labels in a["clusters"]]
    return np.array(columns, dtype=np.float64).T.reshape(-1, 4), groups


def _measure(levels: list[Shared], transform: Any, relative: bool, draws: int, seed: int) -> dict[str, Any]:
    def statistics(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = transform(sums[..., 0] / sums[..., 1]), transform(sums[..., 2] / sums[..., 3])
            return first, second, second / first - 1 if relative else second - first

    first, second, change = (float(v) for v in statistics(sum(columns.sum(0) for columns, _ in levels)))
    widest = None
    for grouping in range(len(levels[0][1])):
        tables = [_group_sums(columns, groups[grouping]) for columns, groups in levels]
        if min(map(len, tables)) < FEWEST:
            widest = None
            break
        drawn = statistics(_resample(tables, draws, np.random.default_rng([seed, grouping])))[2]
        tail = (1 - LEVEL) / 2
        low, high = (float(v) for v in np.quantile(drawn[np.isfinite(drawn)], [tail, 1 - tail]))
        if widest is None or high - low > widest[1] - widest[0]:
            widest = [low, high]
    return {"a": first, "b": second, "change": change, "interval": widest, "relative": relative}


def _group_sums(columns: np.ndarray, labels: list[str]) -> np.ndarray:
    _, group = np.unique(np.array(labels), return_inverse=True)
    sums = np.zeros((group.max() + 1, columns.shape[1]))
    np.add.at(sums, group, columns)
    return sums


def _resample(tables: list[np.ndarray], draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, 4) sums: seeds drawn with replacement, then the groups within each drawn seed."""
    seeds = len(tables)
    picked = rng.integers(seeds, size=(draws, seeds)) if seeds > 1 else np.zeros((draws, 1), int)
    total = np.zeros((draws, tables[0].shape[1]))
    for slot in range(picked.shape[1]):
        for index, table in enumerate(tables):
            rows = np.flatnonzero(picked[:, slot] == index)
            counts = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=len(rows))
            total[rows] += counts @ table
    return total
