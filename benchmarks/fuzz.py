"""Hostile inputs on purpose: every reader, the recipe, GGUF, the pair file and the endpoint's bodies, 1 kB to 1 MB each.

    PYTHONPATH=. python benchmarks/fuzz.py --minutes 30

An input (`hostile.py`) is tokens of the reader's own syntax again and again, deep nesting, one endless line, mixed encodings, or a
valid file with pieces cut out, put in, doubled and flipped. A finding is an error that is not the package's own, more CPU time than
SECONDS a megabyte, or more memory than MEMORY. Its input stays in `--folder`. `--seed` repeats a run, `--case` one input. A child
process reads the inputs, and is ended after HANG seconds on one, so a hang is a finding and not the end of the run.
"""

import argparse
import json
import os
import random
import resource
import select
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import hostile  # noqa: E402

from mipo_mlx.errors import Failure, UserError  # noqa: E402
from mipo_mlx.recipe_loading import RecipeError  # noqa: E402
from mipo_mlx.sources import gather  # noqa: E402
from mipo_mlx.sources.note import Skip  # noqa: E402

SECONDS = 5.0  # of CPU time for a megabyte
MEMORY, MOST = 500 << 20, 4 << 30  # bytes: a finding; the limit of a child
HANG = 300  # seconds by the clock: a machine that does much else is slow
ENOUGH = 150 << 20  # bytes that a child grows until a fresh one goes on
OWN = (UserError, Failure, Skip, RecipeError)


@dataclass(frozen=True)
class Run:
    """Inputs by their numbers. every: the targets, which take turns."""

    seed: int
    every: list[hostile.Target]
    folder: Path

    def input(self, case: int) -> tuple[hostile.Target, bytes, int]:
        target = self.every[case % len(self.every)]
        return target, *hostile.written(target, random.Random(f"{self.seed} {case}"))

    def kept(self, case: int) -> Path:
        """The place of an input that was a finding, written."""
        target, data, _ = self.input(case)
        path = self.folder / f"{case}-{Path(target.name).name}"
        path.write_bytes(data)
        return path

    def tried(self, case: int) -> str:
        """What was wrong with an input; '' for nothing."""
        target, data, size = self.input(case)
        path = self.folder / "now" / target.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        before = peak()
        why = once(target, path, size)
        if why.startswith("time"):  # again: what was measured may have been the machine
            why = once(target, path, size)
        grown = peak() - before
        return f"memory: {grown >> 20} MB more" if grown > MEMORY else why


def once(target: hostile.Target, path: Path, size: int) -> str:
    begin = time.process_time()
    try:
        target.read(path)
    except OWN as error:
        if "\n" in str(error):
            return f"several lines: {str(error)[:200]!r}"
    except Exception as error:
        return f"raised {type(error).__name__}: {str(error)[:200]!r}"
    took, most = time.process_time() - begin, max(target.least, SECONDS * size / hostile.LARGEST)
    return f"time: {took:.1f} s, at most {most:.1f}" if took > most else ""


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def child(run: Run, cases: list[int], out: int, until: float) -> None:
    """Try inputs, and write a line before and after each."""
    gather.within_limits = lambda work, file, tally: work(file, tally)  # the limits of a run would hide what is slow
    resource.setrlimit(resource.RLIMIT_AS, (MOST, resource.RLIM_INFINITY))
    begin = peak()
    for case in cases:
        if time.monotonic() > until or peak() - begin > ENOUGH:
            break
        os.write(out, f"{json.dumps([case, None])}\n".encode())
        os.write(out, f"{json.dumps([case, run.tried(case)])}\n".encode())


def fuzz(run: Run, ahead: Callable[[int], list[int]], until: float) -> tuple[Counter[str], list[tuple[str, int, str]]]:
    """(inputs by target, findings) until the time is over or nothing is ahead. ahead: the numbers from one on."""
    counts, findings, following = Counter[str](), list[tuple[str, int, str]](), 0
    while time.monotonic() < until and (cases := ahead(following)):
        for case, why in results(run, cases, until):
            name, following = run.every[case % len(run.every)].name, case + 1
            counts[name] += 1
            if why:
                findings.append((name, case, why))
                print(f"{name}, case {case}, {run.kept(case)}: {why}", flush=True)
    return counts, findings


def results(run: Run, cases: list[int], until: float) -> Iterator[tuple[int, str]]:
    """(number, what was wrong) of the inputs that one child tries."""
    source, out = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(source)
        sys.stdout = sys.stderr = open(os.devnull, "w")
        try:
            child(run, cases, out, until)
        finally:
            os._exit(0)
    os.close(out)
    now, why, buffer = -1, "", b""
    while True:
        ready, _, _ = select.select([source], [], [], HANG)
        data = os.read(source, 1 << 16) if ready else b""
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            now, why = json.loads(line)
            if why is not None:
                yield now, why
        if not data:
            break
    os.kill(pid, 9)
    os.close(source)
    os.waitpid(pid, 0)
    if why is None:
        yield now, "ended the process" if ready else f"hung for {HANG} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, action="append", help="only this input; it may be given again")
    parser.add_argument("--inputs", type=int, help="so many inputs in place of a time")
    parser.add_argument("--only", default="", help="names of targets, between commas; numbers then count these alone")
    parser.add_argument(
        "--folder", type=Path, help="where inputs stay that were findings; default: one in the system's place for such"
    )
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    every = [target for target in hostile.targets() if not only or target.name in only]
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)

    def ahead(start: int) -> list[int]:
        if arguments.case:
            return [case for case in arguments.case if case >= start]
        return list(range(start, min(start + 10_000, arguments.inputs or sys.maxsize)))

    begin = time.monotonic()
    counts, findings = fuzz(Run(arguments.seed, every, folder), ahead, begin + 60 * arguments.minutes)
    for name in sorted(counts):
        print(f"{name:22}{counts[name]:7} tried{sum(finding[0] == name for finding in findings):5} findings")
    took = (time.monotonic() - begin) / 60
    print(f"{counts.total():,} inputs in {took:.1f} minutes, seed {arguments.seed}: {len(findings)} findings; see {folder}")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
