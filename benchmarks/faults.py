"""Faults on purpose: runs are killed, stopped, filled up, damaged and locked out at random moments, and end as others do.

The commands are train, eval, export, update --train, a part of the sampling with the pairs made of it, and a session of serve.

    PYTHONPATH=. python benchmarks/faults.py --minutes 2

Every trial takes a copy of a state, starts a command, disturbs it, and starts it again until it ends well. Then each file must have
the bytes of the undisturbed run. The table says how often each fault was tried, and how often it ended well: "held". "lost": the
command never ended well again, or a file is missing. "changed": a file has other bytes, or damage went unnoticed. "hung": a command
took many times as long as undisturbed. The exit code is 1 where something was lost, changed or hung. `--seed` repeats a campaign,
`--only` chooses faults. A trial that went wrong leaves its folder and says where.

The model has two tiny layers: what is tested is the program and not the machine. Each command runs in a forked process, which saves
the seconds that importing MLX takes. A full disk is a small tmpfs, where one can be mounted, and a limit of the size of files.
"""

import argparse
import ctypes
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from sessions import session  # noqa: E402

OUTCOMES = ("held", "lost", "changed", "hung")
SLACK, SHORTEST = 20, 30.0  # a command hangs after so many times its undisturbed duration, at least after so many seconds
TRIES = 4  # commands after the disturbed one, until the run counts as lost
PAGE = 4096  # bytes that a disk deals out
NEW = {
    "kite": "I build kites out of old tents, and I fly the largest one on the beach at Skagen every windy April weekend.",
    "chess": "I lose at chess against my neighbour Olga on Tuesdays, and she lets me take back exactly one move a game.",
    "plums": "My plum tree gave forty kilos this year, and I boiled all of them down to a dark paste without any sugar.",
}
RECIPE = """
model: {model}
name: r
sources: {{notes: {notes}, min_tokens: 8, heldout_contexts: 0.3}}
pairs:
  grids: 6
  validation_grids: 2
  heldout_grids: 2
  contexts_per_grid: 2
  max_tokens: 6
  batch: 4
  filters: {{min_pmi: null, repeated_ngrams: null, quotes_context: null, first_person: false, near_duplicates: null}}
training: {{checkpoint_every: 2, evaluate_every: 2, max_kl: null, min_chosen_reward: null, lora: {{rank: 2}}}}
evaluation: {{bootstrap: 100, answers: 2, choices: [2], everyday: 2, kinds: 1, preferences: 2, leak_contexts: 2,
              unprompted: 4, use: 2}}
memory: {{embedder: words}}
export: {{mlx: true, gguf: [f16], fidelity: 2}}
"""
# They hold times and places; so does a part, which says anew where it was made when it goes on.
NOT_COMPARED = ("manifest.json", "metrics.jsonl", "report.html", "memory.sqlite", "export.json")
STAGES = {  # the files that are taken away so that a command makes them again, in a finished run
    "train": ["*"],
    "eval": ["eval.json", "eval-samples.jsonl"],
    "export": ["export.json", "r-f16.gguf", "fused", "Modelfile"],
    "update": [],
}
BEGIN = ("train", "parts")  # commands that begin a run
STATES = {"update": "notes-that-grow", "pairs": "parts"}  # the runs that commands go on with; the others: notes
# Files whose damage must be noticed, with a command that reads them, and what is taken away first so that it does.
FLIPS = (
    ("adapters/adapters.safetensors", "eval", []),
    ("adapters/adapter_config.json", "export", []),
    ("adapters/adapters.safetensors", "ask", []),
    ("adapters/adapters.safetensors", "update", []),
    ("samples.jsonl", "train", ["pairs.jsonl"]),
    ("pairs.jsonl", "train", ["adapters/adapters.safetensors", "checkpoints"]),
    ("contexts.jsonl", "eval", []),
    ("eval-samples.jsonl", "eval", ["eval.json"]),
    ("checkpoints/LAST/adapters.safetensors", "train", ["adapters/adapters.safetensors"]),
    ("checkpoints/LAST/optimizer.safetensors", "train", ["adapters/adapters.safetensors"]),
    ("checkpoints/LAST/state.json", "train", ["adapters/adapters.safetensors"]),
    ("r-f16.gguf", "export", []),
    ("fused/model.safetensors", "export", []),
    ("parts/2-of-2.jsonl", "pairs", ["samples.jsonl", "pairs.jsonl", "pairs.json"]),
)


class Hung(Exception):
    pass


@dataclass
class Child:
    """A forked process that runs commands of mipo-mlx, each after the one before has ended well; its output goes to a file."""

    commands: list[list[str]]
    out: Path
    before: Callable[[], None] = lambda: None  # what the process does first
    pid: int = field(init=False)
    code: int | None = field(init=False, default=None)  # once it has ended

    def __post_init__(self) -> None:
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            os.setpgid(0, 0)
            handle = os.open(self.out, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
            for standard in (1, 2):
                os.dup2(handle, standard)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            self.before()
            code = next(filter(None, map(one_command, self.commands)), 0)
        finally:
            os._exit(code)

    def wait(self, seconds: float) -> int | None:
        """The exit code, minus the signal's number where one ended it; None while it runs."""
        until = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                break
            if time.monotonic() >= until:
                break
            time.sleep(0.005)
        return self.code

    def end(self, seconds: float) -> int:
        """The exit code; a process that takes longer is killed, and Hung is raised."""
        code = self.wait(seconds)
        if code is None:
            self.signal(signal.SIGKILL)
            self.wait(30)
            raise Hung(f"{' '.join(self.commands[-1])}: not over after {seconds:.0f} s")
        return code

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Campaign:
    """The undisturbed states, and trials against them."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.seed = root, seed
        self.took: dict[str, float] = {}
        self.whole: dict[str, dict[str, str]] = {}  # the digests of the files that each command leaves, undisturbed
        self._prepare()

    def _prepare(self) -> None:
        from tests.test_kill import NOTES

        model = self.root / "model"
        code = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); "
            "from tests.conftest import save_tiny_model, train_tokenizer; save_tiny_model(train_tokenizer(Path(sys.argv[1])))"
        )
        # In a process of its own: a process that has computed must not fork.
        subprocess.run([sys.executable, "-c", code, str(model), str(HERE.parent)], check=True)
        for notes in ("notes-that-grow", "notes"):  # the last of them is what `train` is compared with
            write(self.root / notes, dict(NOTES[:8]))
            (self.root / f"{notes}.yaml").write_text(RECIPE.format(model=model, notes=self.root / notes))
            self._undisturbed("train", self.root / f"runs-of-{notes}" / "r", f"{notes}.yaml")
        self._undisturbed("parts", self.root / "runs-of-parts" / "r")
        write(self.root / "notes-that-grow", NEW)
        for command in ("eval", "export", "update", "serve"):
            self._undisturbed(command, self.copy(self.root / f"whole-{command}", command))

    def _undisturbed(self, command: str, place: Path, recipe: str = "notes.yaml") -> None:
        begin = time.monotonic()
        code = Child(self.words(command, place, recipe), self.root / "undisturbed.log").end(600)
        if code:
            sys.exit(f"the undisturbed {command} failed ({code}); see {self.root / 'undisturbed.log'}")
        self.took[command], self.whole[command] = time.monotonic() - begin, digests(place)

    def words(self, command: str, place: Path, recipe: str = "notes.yaml") -> list[list[str]]:
        """The command lines for a run's folder."""
        begun = [str(self.root / recipe), "--quiet", "--runs", str(place.parent)]
        return {
            "train": [["train", *begun]],
            "parts": [["pairs", *begun, "--part", "2/2"], ["pairs", *begun]],
            "pairs": [["pairs", str(place), "--quiet"]],
            "eval": [["eval", str(place), "--quiet"]],
            "export": [["export", str(place), "--quiet"]],
            "update": [["update", str(place), "--train", "--quiet"]],
            "serve": [["serve", str(place)]],
            "ask": [["ask", str(place), "Who comes when I cook?", "--max-tokens", "2", "--temperature", "0"]],
        }[command]

    def copy(self, folder: Path, command: str) -> Path:
        """A finished run in `folder`, without what the command is to make; for commands that begin a run, none."""
        place = folder / "r"
        if command in BEGIN:
            place.parent.mkdir(parents=True)
            return place
        shutil.copytree(self.root / f"runs-of-{STATES.get(command, 'notes')}" / "r", place)
        for name in STAGES.get(command, []):
            remove(place / name)
        return place

    def limit(self, command: str) -> float:
        return max(SHORTEST, SLACK * self.took.get(command, 0.0))

    def recover(self, command: str, place: Path, log: Path, before: Callable[[], None] = lambda: None) -> str:
        """Start the command until it ends well, then compare; returns the outcome."""
        for _ in range(TRIES):
            if Child(self.words(command, place), log, before).end(self.limit(command)) == 0:
                return compared(digests(place), self.whole[command])
        return "lost"

    def disturbed(self, fault: str, trial: int) -> tuple[str, str, Path]:
        """(outcome, what was done, the folder) of one trial."""
        rng = random.Random(f"{self.seed} {fault} {trial}")
        command = "update" if fault == "beside" else rng.choice(("train", "train", "eval", "export", "update", "parts", "serve"))
        folder = self.root / f"trial-{trial}"
        if fault == "flip":
            return *self._flip(rng, folder), folder
        place = self.copy(folder, command)
        try:
            outcome = FAULTS[fault](self, rng, command, place)
        except Hung:
            outcome = "hung"
        return outcome, command, folder

    def moment(self, rng: random.Random, command: str) -> float:
        return rng.uniform(0.02, self.took[command])

    def kill(self, rng: random.Random, command: str, place: Path) -> str:
        for _ in range(rng.choice((1, 1, 2, 3))):
            child = Child(self.words(command, place), place.parent / "log")
            if child.wait(self.moment(rng, command)) is None:
                child.signal(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)))
                child.end(self.limit(command))
        return self.recover(command, place, place.parent / "log")

    def stop(self, rng: random.Random, command: str, place: Path) -> str:
        child = Child(self.words(command, place), place.parent / "log")
        for _ in range(3):
            if child.wait(self.moment(rng, command) / 3) is None:
                child.signal(signal.SIGSTOP)
                time.sleep(rng.uniform(0.01, 0.2))
                child.signal(signal.SIGCONT)
        return compared(digests(place), self.whole[command]) if child.end(self.limit(command)) == 0 else "lost"

    def full(self, rng: random.Random, command: str, place: Path) -> str:
        """No file may grow beyond a size: each write behind it fails, as on a full disk."""
        most = round(2 ** rng.uniform(6, 18))

        def limited() -> None:
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # or a module that is cut off while it is compiled breaks the next process
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

        Child(self.words(command, place), Path(os.devnull), limited).end(self.limit(command))
        return self.recover(command, place, place.parent / "log")

    def tmpfs(self, rng: random.Random, command: str, place: Path) -> str:
        """The run lies on a disk of its own that is nearly full, and grows afterwards."""
        disk = place.parent
        used = sum(PAGE * -(-path.stat().st_size // PAGE) for path in disk.rglob("*"))
        kept = shutil.copytree(disk, disk.with_name(f"{disk.name}-kept"))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={used + PAGE * rng.randrange(4, 400)}", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True).returncode:
            shutil.rmtree(kept)
            return self.full(rng, command, place)
        try:
            subprocess.run(["cp", "-a", f"{kept}/.", str(disk)], capture_output=True, check=True)
            Child(self.words(command, place), Path(os.devnull)).end(self.limit(command))
            subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], capture_output=True, check=True)
            return self.recover(command, place, disk / "log")
        finally:
            subprocess.run(["umount", "-l", str(disk)], capture_output=True)
            shutil.rmtree(kept)

    def denied(self, rng: random.Random, command: str, place: Path) -> str:
        """A file or folder of the run that its owner may not touch for a while."""
        if command in BEGIN:
            child = Child(self.words(command, place), place.parent / "log")
            if child.wait(self.moment(rng, command)) is None:
                child.signal(signal.SIGKILL)
                child.end(30)
        inner = sorted(path for path in place.rglob("*") if not path.name.startswith("."))
        path = rng.choice([place, *inner] if place.exists() else [place.parent])
        mode = path.stat().st_mode & 0o777
        path.chmod(rng.choice((0, 0o400 if path.is_file() else 0o500)))
        Child(self.words(command, place), self.root / "denied.log", as_others).end(self.limit(command))
        if path.exists():
            path.chmod(mode)
        return self.recover(command, place, self.root / "denied.log", as_others)

    def twice(self, rng: random.Random, command: str, place: Path) -> str:
        """Two processes of one command at once: one of them works, the other is refused or finds all done."""
        children = [Child(self.words(command, place), place.parent / "log")]
        time.sleep(rng.uniform(0, self.took[command] / 2))
        children.append(Child(self.words(command, place), place.parent / "log"))
        codes = [child.end(2 * self.limit(command)) for child in children]
        if not all(code in (0, 2) for code in codes) or 0 not in codes:
            return "lost"
        return self.recover(command, place, place.parent / "log")

    def beside(self, rng: random.Random, command: str, place: Path) -> str:
        """Sessions of serve while an update trains: each has its answer, and the update its bytes."""
        update, sessions = Child(self.words(command, place), place.parent / "log"), []
        code = update.wait(self.moment(rng, command))
        while code is None:
            serve = Child(self.words("serve", place), place.parent / "log")
            sessions.append(serve.end(self.limit("serve")))
            code = update.wait(rng.uniform(0, 1))
        if code or any(sessions):
            return "lost"
        return self.recover(command, place, place.parent / "log")

    def _flip(self, rng: random.Random, folder: Path) -> tuple[str, str]:
        """One bit of a file changes: the command names the file, or makes it again with the bytes that it had."""
        name, command, away = rng.choice(FLIPS)
        place = self.copy(folder, command if command in STATES else "ask")
        if "LAST" in name:
            name = name.replace("LAST", sorted(path.name for path in (place / "checkpoints").glob("step-*"))[-1])
        for gone in away:
            remove(place / gone)
        path, log = place / name, folder / "log"
        sound = path.read_bytes()
        data, at = bytearray(sound), rng.randrange(len(sound))
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            code = Child(self.words(command, place), log).end(self.limit(command))
        except Hung:
            return "hung", f"{name}, {command}"
        output = log.read_text(errors="replace") if log.exists() else ""
        named = any(part in output for part in (name, name.rpartition("/")[0] or name))
        again = path.exists() and path.read_bytes() == sound
        whole = command == "pairs" and compared(digests(place), self.whole["parts"]) == "held"
        held = (named and "Traceback" not in output and (whole or command != "pairs")) or (code == 0 and (again or whole))
        return ("held" if held else "changed"), f"{name} byte {at}, {command}, exit code {code}"


FAULTS: dict[str, Callable[[Campaign, random.Random, str, Path], str]] = {
    "kill": Campaign.kill, "stop": Campaign.stop, "full": Campaign.full, "tmpfs": Campaign.tmpfs, "denied": Campaign.denied,
    "twice": Campaign.twice, "beside": Campaign.beside,
}  # fmt: skip
NAMES = (*FAULTS, "flip")


def one_command(words: list[str]) -> int:
    """Its exit code."""
    from mipo_mlx.cli import main

    if words[0] == "serve":
        return session(Path(words[1]))
    try:
        main(words, standalone_mode=True)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    return 0


def write(notes: Path, texts: dict[str, str]) -> None:
    notes.mkdir(exist_ok=True)
    for name, text in texts.items():
        (notes / f"{name}.md").write_text(f"# {name}\n\n{text}\n")


def digests(place: Path) -> dict[str, str]:
    """The hash of each file of a run that two runs must have alike."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    names = {path.relative_to(place).as_posix(): path for path in files if path.name not in NOT_COMPARED}
    names = {name: path for name, path in names.items() if not name.startswith("parts/")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in names.items()}


def compared(now: dict[str, str], whole: dict[str, str]) -> str:
    if whole.keys() - now.keys():
        return "lost"
    return "held" if all(now[name] == digest for name, digest in whole.items()) else "changed"


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def as_others() -> None:
    """Give up root's right to pass over permissions, so that they hold as for an ordinary user (capabilities(7), Linux)."""
    if os.geteuid() == 0:
        header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        library = ctypes.CDLL(None, use_errno=True)
        if library.capget(header, sets) == 0:
            sets[0] &= ~(1 << 1 | 1 << 2)  # of the effective ones: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            library.capset(header, sets)


def table(counts: dict[str, Counter[str]]) -> str:
    """The outcomes of each fault, and of all."""
    every: Counter[str] = sum(counts.values(), Counter())
    rows = [
        (name, *(str(n) for n in (sum(c.values()), *(c[o] for o in OUTCOMES)))) for name, c in [*counts.items(), ("all", every)]
    ]
    lines = [("fault", "tried", *OUTCOMES), *rows]
    return "\n".join("  ".join(cell.ljust(8) if place == 0 else cell.rjust(7) for place, cell in enumerate(line)) for line in lines)


def campaign(root: Path, seed: int, only: list[str], goes_on: Callable[[int], bool]) -> dict[str, Counter[str]]:
    """Trials until `goes_on`, which gets the number of trials, says no. Returns the outcomes by fault."""
    import mipo_mlx.backend

    mipo_mlx.backend.start()
    # Before the first fork, so that no child has to import them. Nothing is computed here.
    import mlx.core  # noqa: F401
    import mlx_lm  # noqa: F401
    import transformers  # noqa: F401

    import mipo_mlx.cli  # noqa: F401

    work, counts, trial = Campaign(root, seed), {name: Counter[str]() for name in only}, 0
    while goes_on(trial):
        fault = only[trial % len(only)]
        outcome, what, folder = work.disturbed(fault, trial)
        counts[fault][outcome] += 1
        if outcome == "held":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"{outcome}: trial {trial}, {fault}, {what}; see {folder}", flush=True)
        trial += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long, without the undisturbed runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(NAMES), help=f"faults, between commas; default: {','.join(NAMES)}")
    parser.add_argument("--trials", type=int, help="so many trials in place of a time")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in; default: one in the system's place for such")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    if unknown := set(only) - set(NAMES):
        sys.exit(f"--only: no fault {', '.join(sorted(unknown))}; expected some of {', '.join(NAMES)}")
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    began: list[float] = []

    def goes_on(trial: int) -> bool:
        began.append(time.monotonic())
        return trial < arguments.trials if arguments.trials else began[-1] - began[0] < 60 * arguments.minutes

    counts = campaign(root, arguments.seed, only, goes_on)
    print(table(counts))
    wrong = sum(c[outcome] for c in counts.values() for outcome in OUTCOMES[1:])
    if not wrong and not arguments.folder:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
