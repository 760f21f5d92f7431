"""The whole run, stage by stage: this tree beside an earlier commit, in turns, so that a busy machine slows both alike.

    PYTHONPATH=. python benchmarks/whole.py --before COMMIT                           # the demo, each side with its own recipe
    PYTHONPATH=. python benchmarks/whole.py --before COMMIT --recipe recipes/demo.yaml  # one recipe for both: the code alone
    PYTHONPATH=. python benchmarks/whole.py --table                                   # what is there, nothing computed

A stage is one process: seconds, CPU seconds and peak memory are its own. Run the command again after an interruption: finished
stages stay, and an interrupted one goes on where the run goes on; its pieces are added up. Without --before this tree runs alone.
The runs stay in benchmarks/.cache/whole (or $MIPO_BENCHMARKS/whole), beside rows.jsonl, which has a line for each process.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from environments import CACHE

from mipo_mlx.files import read_jsonl, write_json

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("sources", "pairs", "training", "evaluation", "export", "report")
SIDES = ("before", "now")
WORK = """
import json, resource, sys, time
from pathlib import Path
from mipo_mlx import backend
backend.start()
from mipo_mlx import run as runs
from mipo_mlx.progress import Reporter
from mipo_mlx.recipe_loading import load_recipe
recipe, sets, root, name, stage, out = json.loads(sys.argv[1])
run = runs.open_run(load_recipe(recipe, sets), name, Path(root))
begun = time.perf_counter()
def row(ended):
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    memory = used[0].ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"side": name, "stage": stage, "ended": ended, "seconds": time.perf_counter() - begun,
            "user": sum(u.ru_utime for u in used), "system": sum(u.ru_stime for u in used), "memory": memory}
ended = False
try:
    with runs.locked(run.folder, Reporter()):
        runs.prepare(run, False)
        runs.execute(run, stage, Reporter())
    ended = True
finally:
    with open(out, "a") as file:
        file.write(json.dumps(row(ended)) + "\\n")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="the earlier commit; without it this tree runs alone")
    parser.add_argument("--recipe", default="demo", help="a file for both sides, or the name of a built-in recipe, each side's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the recipe, on both sides")
    parser.add_argument("--table", action="store_true", help="print what is there")
    args = parser.parse_args()
    folder = CACHE / "whole"
    folder.mkdir(parents=True, exist_ok=True)
    if not args.table:
        recipe = str(Path(args.recipe).resolve()) if Path(args.recipe).is_file() else args.recipe
        settings = {"before": commit_of(args.before) if args.before else None, "recipe": recipe, "set": args.set}
        check_settings(folder / "settings.json", settings)
        compute(folder, settings)
    print(table(folder))


def commit_of(name: str) -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", f"{name}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"--before {name}: no such commit; git log shows them")
    return done.stdout.strip()


def check_settings(path: Path, settings: dict) -> None:
    """Keep the settings of a comparison, or end where another one's measurements are there."""
    if path.exists() and json.loads(path.read_text()) != settings:
        kept = path.read_text().strip()
        raise SystemExit(f"{path.parent}: measured with other settings ({kept}); remove this folder to begin anew")
    write_json(path, settings)


def compute(folder: Path, settings: dict) -> None:
    """Each stage by both sides, the earlier commit first in every second one, so that neither always has the warm machine."""
    trees = {"now": ROOT}
    if settings["before"]:
        trees["before"] = tree = folder / "tree"
        if not tree.exists():
            subprocess.run(["git", "-C", str(ROOT), "worktree", "prune"], check=True)
            subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "-q", "--detach", str(tree), settings["before"]], check=True)
    for number, stage in enumerate(STAGES):
        for side in SIDES[:: 1 if number % 2 else -1]:
            done = {(row["side"], row["stage"]) for row in read_jsonl(folder / "rows.jsonl") if row["ended"]}
            if side in trees and (side, stage) not in done:
                print(f"{stage}, {side}, {time.strftime('%H:%M:%S')}", flush=True)
                work(folder, trees[side], settings, side, stage)


def work(folder: Path, tree: Path, settings: dict, side: str, stage: str) -> None:
    """One stage of one side in its own process, with the code of `tree`."""
    given = json.dumps([settings["recipe"], settings["set"], str(folder / "runs"), side, stage, str(folder / "rows.jsonl")])
    done = subprocess.run([sys.executable, "-c", WORK, given], cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)})
    if done.returncode:
        raise SystemExit(f"{side}, {stage}: ended with exit code {done.returncode}; run the same command again to go on")


def measured(rows: list[dict]) -> dict[tuple[str, str], dict]:
    """By side and stage: seconds, user and system of all pieces together, the largest memory, and whether it ended."""
    found: dict[tuple[str, str], dict] = {}
    for row in rows:
        kept = found.setdefault((row["side"], row["stage"]), dict.fromkeys(("seconds", "user", "system", "memory", "ended"), 0))
        for name in ("seconds", "user", "system"):
            kept[name] += row[name]
        kept["memory"], kept["ended"] = max(kept["memory"], row["memory"]), row["ended"]
    return found


def table(folder: Path) -> str:
    """Markdown: a line a stage and side, and the sums of the stages that both have ended."""
    found = measured(read_jsonl(folder / "rows.jsonl"))
    found = {place: row for place, row in found.items() if row["ended"]}
    sides = [side for side in SIDES if any(place[0] == side for place in found)]
    lines = ["| stage | side | seconds | CPU seconds | in the kernel | GB | faster, by CPU |", "|---|---|---|---|---|---|---|"]
    whole: dict[str, list[float]] = {side: [0.0, 0.0] for side in sides}
    for stage in STAGES:
        cpu = {side: found[side, stage]["user"] + found[side, stage]["system"] for side in sides if (side, stage) in found}
        for side in cpu:
            row = found[side, stage]
            ratio = f"{cpu['before'] / cpu['now']:.2f}x" if side == "now" and len(cpu) == 2 else ""
            figures = (f"{row['seconds']:.0f}", f"{cpu[side]:.0f}", f"{row['system']:.0f}", f"{row['memory'] / 1e9:.2f}", ratio)
            lines.append(" | ".join(["| " + stage, side, *figures]) + " |")
            if len(cpu) == len(sides):
                whole[side] = [whole[side][0] + row["seconds"], whole[side][1] + cpu[side]]
    for side, (seconds, used) in whole.items():
        ratio = f"{whole['before'][1] / used:.2f}x" if side == "now" and len(whole) == 2 and used else ""
        lines.append(f"| **all** | {side} | {seconds:.0f} | {used:.0f} | | | {ratio} |")
    return "\n".join([*lines, "", *same_answers(folder / "runs"), *verdicts(folder / "runs", sides)])


def same_answers(runs: Path) -> list[str]:
    """How many sampled answers both sides share, and how far the scores of those grids are apart; [] for other recipes."""
    grids = {side: {row["id"]: row for row in read_jsonl(runs / side / "samples.jsonl")} for side in SIDES}
    both = [(grids["before"][name], grids["now"][name]) for name in grids["before"].keys() & grids["now"].keys()]
    both = [(a, b) for a, b in both if (a["prompt_hash"], a["contexts"]) == (b["prompt_hash"], b["contexts"])]
    same = [(a, b) for a, b in both if a["answers"] == b["answers"]]
    if not both:
        return []
    pairs = [(x, y) for a, b in same for row in zip(a["scores"], b["scores"], strict=True) for x, y in zip(*row, strict=True)]
    apart = max((abs(x - y) for x, y in pairs), default=0.0)
    return [f"{len(same)} of {len(both)} grids have the same answers; their scores are at most {apart:.1g} nats apart."]


def verdicts(runs: Path, sides: list[str]) -> list[str]:
    """What each side's evaluation concludes."""
    files = [(side, runs / side / "eval.json") for side in sides]
    return [f"{side}: {json.loads(path.read_text())['verdict']}" for side, path in files if path.exists()]


if __name__ == "__main__":
    main()
