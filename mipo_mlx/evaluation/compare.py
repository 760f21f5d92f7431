"""Compare finished runs on the held-out items that they share: paired, with intervals over contexts and, where there are
several runs a side, over seeds.

    mipo-mlx eval RUN_A RUN_B
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..recipe import Evaluation
from ..records import CHORES, GENERAL, HALF_PERSONAL, key_for
from .outcome import Outcome, read
from .statistics import TRANSFORMS, Items, combined, crossing, figure, group_sums, half_widths, too_few

PARTS = {
    "heldout": "held-out pairs",
    "fresh": "fresh answers",
    "abilities": "questions",
    "preferences": "preferences",
    "checkable": "requirements",
}
# Personal requests are in fresh answers.
KINDS = {kind: f"{kind.replace('_', ' ')} requests" for kind in (HALF_PERSONAL, GENERAL, CHORES)}
REWARDS = ("loss", "margin", "information", "chosen_reward", "rejected_reward")  # they grow with beta
# What is read by the base, or counted in its tokens.
BY_BASE = ("accuracy", *REWARDS, "identified_by_base", "pmi_per_token", "perplexity", "tokens")
OF_ALL = "self_bleu"
Pairing = list[tuple[int, int]]  # places in A's items and in B's


@dataclass(frozen=True)
class Level:
    """The items of one seed that both runs have: (items, 4) values and weights of A and of B, and the items' groups."""

    columns: np.ndarray
    clusters: list[list[str]]


@dataclass(frozen=True)
class Difference:
    a: float
    b: float
    change: float  # b - a, or b / a - 1 where `relative`
    interval: list[float] | None  # None where too few groups are shared
    relative: bool


@dataclass(frozen=True)
class Comparison:
    items: int  # that both have
    left_out: list[str]  # lines that say what, and why
    measures: dict[str, Difference]


def compare(a: Sequence[Path], b: Sequence[Path], draws: int = Evaluation().bootstrap, seed: int = 0) -> Comparison:
    """Each measure of the tuned models of runs `a` and `b`; a[i] and b[i] are runs of one seed.

    Only items of equal text that both runs evaluated are compared, and no measure that means something else under another base
    model or beta. Raises UserError where a run has no evaluation, or nothing is shared.
    """
    if not a or len(a) != len(b):
        raise UserError(f"compare: {len(a)} runs against {len(b)}; expected as many on either side, in the order of their seeds")
    runs = list(zip(map(read, a), map(read, b), strict=True))
    differences: dict[str, Difference] = {}
    other_meaning = _other_meaning(runs)
    left_out = [f"{why}, so these are not compared: {', '.join(names)}" for why, names in other_meaning.items()]
    excluded = tuple(name for names in other_meaning.values() for name in names)
    shared_items = 0
    for part, what in {**PARTS, **KINDS}.items():
        sides = [(_items(x, part), _items(y, part)) for x, y in runs]
        items = [(x, y) for x, y in sides if x is not None and y is not None]
        if len(items) < len(sides):
            continue
        matched = [_matched(x.keys, y.keys) for x, y in items]
        shared = sum(map(len, matched))
        alone = [sum(len(pair[side].keys) for pair in items) - shared for side in (0, 1)]
        if any(alone):
            left_out.append(f"{what}: {shared} in both; left out, as the other has none like it: {alone[0]} of A, {alone[1]} of B")
        if not all(matched):
            continue
        shared_items += shared
        names = [name for name in items[0][0].values if all(name in side.values for pair in items for side in pair)]
        if any(alone) and OF_ALL in names:
            names.remove(OF_ALL)
            left_out.append(f"{OF_ALL} holds an answer against all others of its run, which differ, so it is not compared")
        for name in (n for n in names if not n.startswith(excluded)):
            levels = [_shared(x, y, name, rows) for (x, y), rows in zip(items, matched, strict=True)]
            values = items[0][0].values[name]
            differences[f"{part}_{name}" if part in KINDS else name] = Resampling(
                levels, values.transform, values.relative, draws, seed
            ).difference()
    if not differences:
        reasons = f" ({'; '.join(left_out)})" if left_out else ""
        raise UserError(
            f"{a[0]} and {b[0]}: no held-out item in common that can be compared{reasons}; "
            "use runs of the same notes, prompts, seed and pairs settings"
        )
    return Comparison(shared_items, left_out, differences)


def show(result: Comparison) -> list[str]:
    """Lines for a terminal: A, B, the change and its interval; then what was left out."""
    lines = [f"{'':34s} {'A':>9s} {'B':>9s} {'B - A':>9s}  95 % interval"]
    for name, m in result.measures.items():
        form = "+.1%" if m.relative else "+.3f"
        interval = " to ".join(figure(end, form) for end in m.interval) if m.interval else "too few groups"
        a, b, change = figure(m.a, ".3f"), figure(m.b, ".3f"), figure(m.change, form)
        lines.append(f"{name.replace('_', ' '):34s} {a:>9s} {b:>9s} {change:>9s}  {interval}")
    return lines + result.left_out


def _items(outcome: Outcome, part: str) -> Items | None:
    return getattr(outcome.kinds.get(part) if part in KINDS else getattr(outcome, part), "items", None)


def _other_meaning(runs: Sequence[tuple[Outcome, Outcome]]) -> dict[str, tuple[str, ...]]:
    """How the names of measures begin that mean something else in A and in B, by the reason."""
    reasons: dict[str, tuple[str, ...]] = {}
    if any(x.model != y.model for x, y in runs):
        reasons["the base models differ"] = BY_BASE
    if any(x.heldout and y.heldout and x.heldout.beta != y.heldout.beta for x, y in runs):
        reasons["training.beta differs"] = REWARDS
    return reasons


def _matched(a: Sequence[str], b: Sequence[str]) -> Pairing:
    """Places of the keys that both have, in A's order; a key that occurs twice is matched by its occurrence."""
    places: list[dict[tuple[str, int], int]] = []
    for keys in (a, b):
        seen: dict[str, int] = {}
        place = {}
        for index, key in enumerate(keys):
            place[key, seen.get(key, 0)] = index
            seen[key] = seen.get(key, 0) + 1
        places.append(place)
    return [(i, places[1][key]) for key, i in places[0].items() if key in places[1]]


def _shared(a: Items, b: Items, name: str, matched: Pairing) -> Level:
    columns = []
    for items, side in ((a, 0), (b, 1)):
        values = items.values[name]
        rows = [pair[side] for pair in matched]
        columns += [[values.after[i] for i in rows], [values.weight[i] if values.weight else 1.0 for i in rows]]
    clusters = [[labels[i] for i, _ in matched] for labels in a.clusters]
    return Level(np.array(columns, dtype=np.float64).T.reshape(-1, 4), clusters)


@dataclass(frozen=True)
class Resampling:
    """Resamples the seeds (`levels`), and the groups within each."""

    levels: list[Level]
    transform: str  # a name in TRANSFORMS
    relative: bool
    draws: int
    seed: int

    def difference(self) -> Difference:
        first, second, change = (float(v) for v in self._statistics(sum(level.columns.sum(0) for level in self.levels)))
        interval = None
        if not any(too_few(level.clusters) for level in self.levels):
            count = len(self.levels[0].clusters)
            each = [self._over([level.clusters[n] for level in self.levels], n, change) for n in range(count)]
            crossed = self._over([crossing(level.clusters) for level in self.levels], count, change) if count > 1 else None
            down, up = combined(each, crossed)
            interval = [float(change - down), float(change + up)] if np.isfinite(change + up + down) else None
        return Difference(first, second, change, interval, self.relative)

    def _statistics(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        transform = TRANSFORMS[self.transform]
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = transform(sums[..., 0] / sums[..., 1]), transform(sums[..., 2] / sums[..., 3])
            return first, second, second / first - 1 if self.relative else second - first

    def _over(self, labels: list[list[str]], number: int, change: float) -> np.ndarray:
        """(2,) half-widths over one grouping."""
        tables = [group_sums(level.columns, own) for level, own in zip(self.levels, labels, strict=True)]
        rng = np.random.default_rng(key_for(self.seed, f"resample grouping {number} of two runs"))
        drawn = self._statistics(_resample(tables, self.draws, rng))[2]
        return half_widths(change, drawn, sum(map(len, tables)))


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
