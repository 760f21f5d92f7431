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
from .statistics import FORMAT, TRANSFORMS, crossing, enough, figure, group_sums, half_widths, joined

PARTS = {"heldout": "held-out pairs", "fresh": "fresh answers", "abilities": "questions", "checkable": "requirements"}
REWARDS = ("loss", "margin", "information", "chosen_reward", "rejected_reward")  # they grow with beta
# What is read by the base, or counted in its tokens.
BY_BASE = ("accuracy", *REWARDS, "identified_by_base", "pmi_per_token", "perplexity", "tokens")
OF_ALL = "self_bleu"
Shared = tuple[np.ndarray, list[list[str]]]  # (items, 4) values and weights of A and B; the items' groups


def compare(a: Sequence[Path], b: Sequence[Path], draws: int = Evaluation().bootstrap, seed: int = 0) -> dict[str, Any]:
    """Each measure of the tuned models of runs `a` and `b`, and B's change against A.

    a[i] and b[i] are runs of one seed. Only cases of equal text that both runs evaluated are compared, and no measure that their
    base models or betas make another one. Returns {"items", "left_out": lines that say so, "measures": {name: {"a", "b", "change",
    "interval", "relative"}}}; an interval is None where too few groups are shared. Raises UserError where a run has no evaluation,
    or nothing is shared.
    """
    if not a or len(a) != len(b):
        raise UserError(f"compare: {len(a)} runs against {len(b)}; expected as many on either side, in the order of their seeds")
    sides = [[read(folder) for folder in side] for side in (a, b)]
    found: dict[str, Any] = {}
    other_meaning = _other_meaning(list(zip(*sides, strict=True)))
    left_out = [f"{why}, so these are not compared: {', '.join(names)}" for why, names in other_meaning.items()]
    excluded = tuple(name for names in other_meaning.values() for name in names)
    shared_items = 0
    for part, what in PARTS.items():
        results = [(x.get(part), y.get(part)) for x, y in zip(*sides, strict=True)]
        if any(x is None or y is None for x, y in results):
            continue
        matched = [_matched(x["items"]["keys"], y["items"]["keys"]) for x, y in results]
        shared = sum(map(len, matched))
        alone = [sum(len(result[side]["items"]["keys"]) for result in results) - shared for side in (0, 1)]
        if any(alone):
            left_out.append(f"{what}: {shared} in both; left out, as the other has none like it: {alone[0]} of A, {alone[1]} of B")
        if not all(matched):
            continue
        shared_items += shared
        names = [n for n in results[0][0]["items"]["values"] if all(n in s["items"]["values"] for r in results for s in r)]
        if any(alone) and OF_ALL in names:
            names.remove(OF_ALL)
            left_out.append(f"{OF_ALL} holds an answer against all others of its run, which differ, so it is not compared")
        for name in (n for n in names if not n.startswith(excluded)):
            levels = [_shared(x["items"], y["items"], name, rows) for (x, y), rows in zip(results, matched, strict=True)]
            kept = results[0][0]["items"]["values"][name]
            found[name] = _measure(levels, TRANSFORMS[kept["transform"]], kept["relative"], draws, seed)
    if not found:
        raise UserError(
            f"{a[0]} and {b[0]}: no held-out item in common that can be compared{_told(left_out)}; "
            "use runs of the same notes, prompts, seed and pairs settings"
        )
    return {"items": shared_items, "left_out": left_out, "measures": found}


def show(result: dict[str, Any]) -> list[str]:
    """Lines for a terminal: A, B, the change and its interval; then what was left out."""
    lines = [f"{'':34s} {'A':>9s} {'B':>9s} {'B - A':>9s}  95 % interval"]
    for name, m in result["measures"].items():
        form = "+.1%" if m["relative"] else "+.3f"
        interval = " to ".join(figure(end, form) for end in m["interval"]) if m["interval"] else "too few groups"
        a, b, change = figure(m["a"], ".3f"), figure(m["b"], ".3f"), figure(m["change"], form)
        lines.append(f"{name.replace('_', ' '):34s} {a:>9s} {b:>9s} {change:>9s}  {interval}")
    return lines + result["left_out"]


def read(folder: Path) -> dict[str, Any]:
    """A run's eval.json. Raises UserError where there is none, or an earlier version's."""
    path = Path(folder) / "eval.json"
    if not path.exists():
        raise UserError(f"{path}: this run has no evaluation yet; run `mipo-mlx eval {folder}` first")
    found = read_json(path)
    if found.get("format") != FORMAT:
        raise UserError(f"{path}: written by another version of mipo-mlx; run `mipo-mlx eval {folder}` again")
    return found


def _other_meaning(evaluations: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, tuple[str, ...]]:
    """How the names of measures begin that mean something else in A and in B, by the reason."""
    found = {}
    if any(x["model"] != y["model"] for x, y in evaluations):
        found["the base models differ"] = BY_BASE
    heldout = [(x["heldout"], y["heldout"]) for x, y in evaluations if x.get("heldout") and y.get("heldout")]
    if any(x["beta"] != y["beta"] for x, y in heldout):
        found["training.beta differs"] = REWARDS
    return found


def _told(left_out: list[str]) -> str:
    return f" ({'; '.join(left_out)})" if left_out else ""


def _matched(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Places in A and in B of the keys that both have, in A's order; a key that occurs twice is matched by its occurrence."""
    places: list[dict[tuple[str, int], int]] = []
    for keys in (a, b):
        seen: dict[str, int] = {}
        place = {}
        for index, key in enumerate(keys):
            place[key, seen.get(key, 0)] = index
            seen[key] = seen.get(key, 0) + 1
        places.append(place)
    return [(i, places[1][key]) for key, i in places[0].items() if key in places[1]]


def _shared(a: dict[str, Any], b: dict[str, Any], name: str, matched: list[tuple[int, int]]) -> Shared:
    """Rows of a measure for the items that both have."""
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

    def over(labels: list[list[str]], number: int) -> np.ndarray:
        tables = [group_sums(columns, of) for (columns, _), of in zip(levels, labels, strict=True)]
        drawn = statistics(_resample(tables, draws, np.random.default_rng([seed, number])))[2]
        return half_widths(change, drawn, sum(map(len, tables)))

    interval = None
    if not any(enough(groups) for _, groups in levels):
        count = len(levels[0][1])
        each = [over([groups[number] for _, groups in levels], number) for number in range(count)]
        crossed = over([crossing(groups) for _, groups in levels], count) if count > 1 else None
        down, up = joined(each, crossed)
        interval = [change - down, change + up] if np.isfinite(change + up + down) else None
    return {"a": first, "b": second, "change": change, "interval": interval, "relative": relative}


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
