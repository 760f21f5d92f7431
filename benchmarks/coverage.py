"""How often the 95 % intervals of the evaluation hold the true mean, by simulation, beside plain percentiles of the wider grouping.

PYTHONPATH=. python benchmarks/coverage.py [--trials 1000]
"""

import argparse

import numpy as np

from mipo_mlx.evaluation import statistics

DRAWS = 400  # resamples of an interval


def plain(values: np.ndarray, clusters: list) -> list[float]:
    """The earlier interval: percentiles of each grouping resampled alone, and the wider of two."""
    found = []
    for labels in clusters:
        sums = statistics.group_sums(np.stack([values, np.ones(len(values))], axis=1), labels)
        counts = np.random.default_rng([0, len(sums)]).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=DRAWS)
        drawn = counts @ sums
        found.append(np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975]))
    return max(found, key=lambda ends: ends[1] - ends[0]).tolist()


def covered(notes: int, requests: int, trials: int) -> tuple[float, float]:
    """Shares of intervals that hold 0, plain and ours. The mean is of note effects, request effects and noise, each with standard
    deviation 1. `requests` 0: every note has its own request, so there is one grouping."""
    rng = np.random.default_rng([notes, requests])
    rows, columns = np.divmod(np.arange(notes * max(1, requests)), max(1, requests))
    clusters = [rows.tolist(), columns.tolist()] if requests else [rows.tolist()]
    hits = np.zeros(2)
    for trial in range(trials):
        values = rng.normal(size=notes)[rows] + rng.normal(size=len(rows))
        values = values + (rng.normal(size=requests)[columns] if requests else 0)
        ours = statistics.Resampler(clusters, DRAWS, trial).mean(values).interval
        hits += [low <= 0 <= high for low, high in (plain(values, clusters), ours)]
    return tuple(hits / trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help="simulated means of each row")
    trials = parser.parse_args().trials
    print("| notes x requests | plain percentiles | as it is |\n|---|---|---|")
    for notes, requests in ((6, 0), (8, 0), (16, 0), (40, 0), (6, 12), (18, 12), (18, 40)):
        before, after = covered(notes, requests, trials)
        print(f"| {f'{notes} x {requests}' if requests else f'{notes} notes'} | {before:.0%} | {after:.0%} |", flush=True)


if __name__ == "__main__":
    main()
