"""Several machines, as processes on this one: what happens when one is lost, and how training and sampling scale.

    PYTHONPATH=. python benchmarks/several.py --moments 20    # kill -9 and kill -STOP of a process of a training, at random moments
    PYTHONPATH=. python benchmarks/several.py                 # two processes of one thread each, against one process of one thread

After a loss every other process must end within 60 s with one line, and so must a stopped process that goes on. Then the same
command must end with the adapters of an undisturbed training of as many processes. The exit code is 1 where one of that fails.

The scaling shares this machine's cores among processes: it shows what dealing and waiting cost, not what a second Mac gives.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
LIMIT = 60.0  # seconds
WIDE = {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 768, "head_dim": 64}  # of the model that is measured
TRAINING = {"epochs": 4.0, "checkpoint_every": 2, "evaluate_every": 5, "max_kl": None, "min_chosen_reward": None}
PAIRS = {"grids": 12, "validation_grids": 2, "heldout_grids": 2, "max_tokens": 32, "batch": 8}


def prepare(folder: Path, changes: dict[str, Any], grids: int, training: dict[str, Any]) -> Path:
    """A run whose pairs are done, with random weights and random pairs."""
    from mlx_lm.utils import save_model

    from mipo_mlx.files import write_records
    from tests.conftest import build_model, tiny_config, train_tokenizer
    from tests.training.test_train import make_pairs

    model, run = train_tokenizer(folder / "model"), folder / "run"
    run.mkdir()
    base = build_model(tiny_config(**changes))
    save_model(model, base)
    (model / "config.json").write_text(json.dumps(tiny_config(**changes)))
    pairs = [*make_pairs(base, grids, k=4), *make_pairs(base, grids=2, split="validation", seed=9)]
    if changes:  # as long as real ones
        for pair in pairs:
            pair.prompt_tokens[:], pair.tokens[:] = pair.prompt_tokens * 20, [tokens * 8 for tokens in pair.tokens]
    write_records(run / "pairs.jsonl", pairs)
    (run / "recipe.json").write_text(json.dumps({"model": str(model), "sources": {}, "training": training}))
    return run


def trained(size: int, run: Path) -> bytes:
    """Train to the end; returns the adapters."""
    from tests.training.test_team import adapters_of, end, start

    results = end(start(size, "fit", run), 600)
    if any(code for code, _ in results):
        sys.exit(f"an undisturbed training of {size} processes failed: {results}")
    return adapters_of(run)


def lost(size: int, run: Path, took: float, rng: random.Random) -> str:
    """Disturb one training; returns what went wrong, "" where nothing did, or "over" where it came too late."""
    from tests.training.test_team import end, start

    sent, rank, moment = rng.choice((signal.SIGKILL, signal.SIGSTOP)), rng.randrange(size), rng.uniform(0.02, took)
    processes = start(size, "fit", run)
    time.sleep(moment)
    if any(process.poll() is not None for process in processes):
        end(processes)
        return "over"
    processes[rank].send_signal(sent)
    others, begin = [process for process in processes if process is not processes[rank]], time.monotonic()
    what = f"{sent.name} of process {rank + 1} of {size} after {moment:.1f} s"
    try:
        ended = end(others, LIMIT)
        if sent == signal.SIGSTOP:
            processes[rank].send_signal(signal.SIGCONT)
            ended += end([processes[rank]], LIMIT)
        else:
            end([processes[rank]])
    except subprocess.TimeoutExpired:
        processes[rank].kill()
        return f"{what}: not all ended within {LIMIT:.0f} s"
    print(f"  {what}: all ended after {time.monotonic() - begin:.1f} s", flush=True)
    if all(code == 0 for code, _ in ended):
        return "over"
    odd = [(code, lines) for code, lines in ended if code != 1 or len(lines) != 1 or not lines[0].startswith("error: ")]
    return f"{what}: {odd}" if odd else ""


def losses(moments: int, seed: int) -> int:
    """Disturb that many trainings; returns the exit code."""
    root, rng, counts = Path(tempfile.mkdtemp(prefix="several-")), random.Random(seed), Counter[str]()
    run = prepare(root, {}, 6, TRAINING)
    whole, took = {}, {}
    for size in (2, 3):
        begin = time.monotonic()
        whole[size] = trained(size, Path(shutil.copytree(run, root / f"whole-{size}")))
        took[size] = time.monotonic() - begin
    while sum(counts.values()) < moments:
        size = rng.choice((2, 2, 3))
        place = Path(shutil.copytree(run, root / "trial"))
        wrong = lost(size, place, took[size], rng)
        if wrong != "over":
            wrong = wrong or ("" if trained(size, place) == whole[size] else f"other adapters after a loss among {size}")
            counts["wrong" if wrong else "held"] += 1
            print(wrong or "  and the rerun has the same adapters", flush=True)
        shutil.rmtree(place)
    print(dict(counts))
    shutil.rmtree(root)
    return 1 if counts["wrong"] else 0


def step_seconds(size: int, run: Path) -> float:
    """The median seconds of a step on the first process, without the first steps."""
    trained(size, run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return statistics.median([row["seconds"] for row in rows if "seconds" in row][2:])


def share_seconds(size: int, root: Path, model: Path) -> float:
    """The longest time that one of `size` processes spends on its share of the sampling, with a thread each."""
    from tests.pairs.helpers import fill

    processes = []
    for number in range(1, size + 1):
        folder = fill(root / f"share-{number}-of-{size}")
        command = [sys.executable, __file__, "--share", f"{number}/{size}", str(folder), str(model)]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    return max(float(process.communicate()[0].split()[-1]) for process in processes)


def share(text: str, folder: Path, model: Path) -> None:
    """In a process of its own: compute a share, and print its seconds without the start."""
    from mipo_mlx import backend

    backend.start()
    from mipo_mlx.pairs import make, parts
    from tests.pairs.helpers import make_recipe

    rows: list[Any] = []
    stamps: list[float] = []

    def keep(some: list[Any]) -> None:
        stamps.append(time.monotonic())
        rows.extend(some)

    make.share(folder, make_recipe(str(model), **PAIRS), parts.Share.parse(text), [], keep)
    print(stamps[-1] - stamps[0])


def scaling() -> None:
    root = Path(tempfile.mkdtemp(prefix="several-"))
    run = prepare(root, WIDE, 8, {**TRAINING, "epochs": 1.0, "checkpoint_every": 100, "evaluate_every": 100})
    print("| work | one process | two processes | times as fast |\n|---|---|---|---|")
    one, two = (step_seconds(size, Path(shutil.copytree(run, root / f"run-{size}"))) for size in (1, 2))
    print(f"| a training step, 4 pairs of about 260 tokens | {one:.3f} s | {two:.3f} s | {one / two:.2f} |", flush=True)
    one, two = (share_seconds(size, root, root / "model") for size in (1, 2))
    print(f"| sampling and scoring 16 grids | {one:.1f} s | {two:.1f} s | {one / two:.2f} |")
    shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, help="lose a process at so many random moments, in place of the scaling")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", nargs=3, metavar=("I/N", "RUN", "MODEL"), help="what this program starts to measure sampling")
    arguments = parser.parse_args()
    if arguments.share:
        share(arguments.share[0], Path(arguments.share[1]), Path(arguments.share[2]))
    elif arguments.moments:
        sys.exit(losses(arguments.moments, arguments.seed))
    else:
        scaling()


if __name__ == "__main__":
    main()
