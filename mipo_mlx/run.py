"""A run folder: the table of stages, the recipe and the manifest that are kept, the lock, and how a run is erased.

    mipo-mlx train RECIPE    # cli.train -> run.execute -> training/train.py

Each stage reads the files of earlier stages and writes its own. So each stage can run alone, be inspected, and resume.
"""

import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import __version__, backend, recipe_loading
from .errors import Failure, UserError
from .files import is_whole, of_round, read_json, sha256, write_json, write_text
from .memory import contexts
from .progress import Reporter, duration
from .recipe import Dataset, Recipe
from .recipe_loading import RecipeError

SIGNED = "recipe_sha256"  # this key of the manifest tells a run from a folder of other files


@dataclass(frozen=True)
class Stage:
    """What a stage runs and which files it has. A later round appends its number to the names: pairs-2.jsonl."""

    start: "Callable[[Run, Reporter, int], dict[str, Any]]"  # the int is the round; returns the summary for the manifest
    reads: tuple[str, ...]  # files of earlier stages that it takes
    writes: tuple[str, ...]  # files without which it is not done
    also: tuple[str, ...] = ()  # other files and folders of this stage
    needs: str = ""  # the stage that must be done before this one can run alone
    each_round: bool = False


def _sources(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .sources import questions, read

    if isinstance(run.recipe.evaluation.abilities, Dataset):
        questions.prepare(run.folder, run.recipe.evaluation.abilities, reporter)
    return read.run(run.folder, run.recipe, reporter)


def _pairs(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .pairs import make

    return make.run(run.folder, run.recipe, reporter, round_number)


def _training(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .training import train

    return train.run(run.folder, run.recipe, reporter, round_number)


def _evaluation(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .evaluation import baselines, evaluate
    from .sources import questions

    if isinstance(run.recipe.evaluation.abilities, Dataset):
        questions.prepare(run.folder, run.recipe.evaluation.abilities, reporter)
    if run.recipe.evaluation.baselines and evaluate.can_ask(run.folder, run.recipe):  # else the stage says why there are none
        baselines.prepare(run.folder, run.recipe, reporter)
    return evaluate.run(run.folder, run.recipe, reporter)


def _export(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .export import export

    return export.run(run.folder, run.recipe, reporter)


def _report(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .report import page

    return page.run(run.folder, run.recipe, reporter)


STAGES = {
    "sources": Stage(_sources, (), ("contexts.jsonl", "prompts.jsonl"), ("sources.json",)),
    "pairs": Stage(
        _pairs,
        ("contexts.jsonl", "prompts.jsonl"),
        ("samples.jsonl", "pairs.jsonl"),
        ("pairs.json", "profile-samples.jsonl", contexts.STATE),
        each_round=True,
    ),
    "training": Stage(
        _training,
        ("pairs.jsonl",),
        ("adapters/adapters.safetensors", "adapters/adapter_config.json", "metrics.jsonl"),
        ("adapters", "checkpoints", "tensorboard", "wandb", "wandb.json"),
        each_round=True,
    ),
    "evaluation": Stage(
        _evaluation,
        ("contexts.jsonl", "prompts.jsonl", "pairs.jsonl"),
        ("eval.json",),
        ("eval-samples.jsonl", "judge-verdicts.jsonl", "sft"),
        needs="training",
    ),
    "export": Stage(_export, ("contexts.jsonl", "pairs.jsonl"), ("export.json",), ("fused", "Modelfile"), needs="training"),
    "report": Stage(_report, (), ("report.html",), needs="pairs"),
}
PARTIAL = re.compile(r"\..+\.partial")  # what a killed write left (files.replacing, export)
BESIDE = re.compile(rf"\.lock|{re.escape(contexts.FILE)}|profile\.old(-\d+)?\.md")  # may lie there before a run, or after an erase
# Files of later rounds, and questions of a data set.
NUMBERED = re.compile(r"(samples|pairs|checkpoints|adapters)-\d+(\.jsonl?)?|questions-[0-9a-f]{8}\.jsonl?")


@dataclass
class Run:
    folder: Path
    recipe: Recipe

    @property
    def manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        return read_json(path) if path.exists() else {}

    def done(self, step: str) -> bool:
        """Whether a step finished and what it wrote is still there."""
        entry = self.manifest.get("stages", {}).get(step, {})
        left = outputs(step, self.recipe) + (["Modelfile"] if (entry.get("summary") or {}).get("modelfile") else [])
        there = entry.get("state") == "done" and all((self.folder / name).exists() for name in left)
        if there and step == "evaluation":
            from .evaluation import outcome

            return outcome.is_current(self.folder)
        return there

    def rounds_ended(self, step: str) -> str | None:
        """Why a step of a later round does not take place: an earlier round ended them; None where it does."""
        stages = self.manifest.get("stages", {})
        earlier = [stages.get(of_round("training", number), {}).get("summary", {}) for number in range(1, parse(step)[1])]
        return next((summary["ends_rounds"] for summary in earlier if summary.get("ends_rounds")), None)


def steps(values: Recipe) -> list[str]:
    """What a run does, in order: every stage once; `pairs` and `training` once a round, as pairs-2, training-2 and so on."""
    once = list(STAGES)
    again = [name for name, stage in STAGES.items() if stage.each_round]
    later = [of_round(name, number) for number in range(2, values.rounds + 1) for name in again]
    return [*once[:3], *later, *once[3:]]


def parse(step: str) -> tuple[str, int]:
    """The stage and the round of a step: pairs-2 -> ("pairs", 2), export -> ("export", 1)."""
    stage, _, number = step.partition("-")
    return stage, int(number or 1)


def outputs(step: str, values: Recipe) -> list[str]:
    """What a finished step must have left behind. `adapters/` is the result so far, `adapters-2/` what round 2 ended with."""
    stage, number = parse(step)
    if stage == "pairs":
        return [of_round(name, number) for name in STAGES[stage].writes]
    own = [f"adapters-{number}/adapters.safetensors"] if stage == "training" and values.rounds > 1 else []
    return [*STAGES[stage].writes, *own]


def open_run(values: Recipe, name: str, root: Path, fresh: bool, create: bool = True) -> Run:
    """Create `root`/`name`, or continue it where the recipe is the same; with create False nothing is written.

    Raises UserError for a name that is no folder name, for a run that was made from another recipe, and where export.system
    asks for a profile that a pair file does not bring.
    """
    if not re.fullmatch(r"[\w][\w.\- ]*", name):
        raise UserError(f"--name {name}: expected a plain folder name: letters, digits, dots and dashes")
    if root.exists() and not root.is_dir():
        raise UserError(f"--runs {root}: not a folder")
    folder = root / name
    kept = folder / "recipe.yaml"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file of this name is in the way; choose another --name or --runs")
    if kept.exists() and not fresh:
        old = _kept_recipe(kept)
        changes = recipe_loading.differences(old, values)
        if changes:
            raise UserError(
                f"{folder}: this run was made from another recipe ({'; '.join(changes[:4])}"
                f"{f'; and {len(changes) - 4} more' if len(changes) > 4 else ''}); "
                "pass --fresh to start it over (to train or pairs), or --name for a new one"
            )
    elif not kept.exists() and folder.exists() and any(not may_be_there(p.name) for p in folder.iterdir()):
        raise UserError(f"{folder}: this folder holds other files; choose another --name")
    if values.pairs.file:
        from .export.system import system_text

        system_text(folder, values)  # no stage of such a run makes a profile: if export.system has none now, it never will
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, values)


def _kept_recipe(path: Path) -> Recipe:
    try:
        return recipe_loading.load(path)
    except RecipeError as error:
        raise UserError(f"{error}; this run was made by another version, start it over with --fresh") from None


def existing_run(path: Path, root: Path) -> Run:
    """A run by its folder or its name. Raises UserError where there is none."""
    for folder in (Path(path), root / path):
        if (folder / "recipe.yaml").exists():
            return Run(folder, _kept_recipe(folder / "recipe.yaml"))
    known = sorted(p.parent.name for p in root.glob("*/recipe.yaml"))
    raise UserError(
        f"{path}: no such run; " + (f"there are: {', '.join(known)}" if known else "make one with `mipo-mlx train RECIPE`")
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run for one process; a second one is told who has it."""
    import fcntl

    path = folder / ".lock"
    with open(path, "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise UserError(
                f"{folder}: another process ({handle.read().strip() or 'unknown'}) is working on this run; "
                "wait for it, or choose another --name"
            ) from None
        handle.seek(0)
        handle.truncate()
        handle.write(f"pid {os.getpid()}")
        handle.flush()
        yield


def prepare(run: Run, fresh: bool) -> None:
    """Write the resolved recipe and the manifest of a new run. Raises UserError where `fresh` would erase what no run wrote."""
    kept = run.folder / "recipe.yaml"
    if fresh:
        if kept.exists() and not _ours(run):
            raise UserError(f"{kept}: not written by a run, so --fresh erases nothing here; choose another --name or --runs")
        erase(run.folder)
    if not kept.exists():
        write_text(kept, recipe_loading.dump(run.recipe))
    if SIGNED not in run.manifest:
        _update(run, created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **{SIGNED: sha256(kept)})


def _ours(run: Run) -> bool:
    """Whether a run made this folder: its manifest says so or, where that is gone (a killed erase), each default in recipe.yaml."""
    if run.manifest:
        return SIGNED in run.manifest
    kept = run.folder / "recipe.yaml"
    try:
        return recipe_loading.dump(recipe_loading.load(kept)) == kept.read_text(encoding="utf-8")
    except RecipeError:
        return False


def check_profile(run: Run) -> None:
    """Raise UserError where the run's pairs were sampled with another profile than the one that is there now."""
    summary = run.manifest.get("stages", {}).get("pairs", {}).get("summary")
    if summary and summary.get("profile") != contexts.digest(run.folder, run.recipe):
        raise UserError(
            f"{run.folder / contexts.FILE}: changed since the pairs were sampled with it; undo the change, or pass --fresh to "
            "start the run over with it (what was edited by hand stays)"
        )


def _update(run: Run, **changes: Any) -> None:
    write_json(run.folder / "manifest.json", {**run.manifest, **changes})


def execute(run: Run, upto: str, reporter: Reporter) -> dict[str, dict[str, Any]]:
    """Run every step up to `upto` that is not done yet; returns the summaries of all of them."""
    backend.start()  # before anything below imports MLX
    summaries = {}
    planned = steps(run.recipe)
    for number, step in enumerate(planned[: planned.index(upto) + 1], 1):
        count = f"[{number}/{len(planned)}] {step}"
        ended = run.rounds_ended(step)
        if ended:
            reporter.say(f"{count}: left out, {ended}")
            continue
        if run.done(step):
            if step == "pairs":
                check_profile(run)
            reporter.say(f"{count}: done before")
        else:
            reporter.say(count)
            run_stage(run, step, reporter)
        summaries[step] = run.manifest["stages"][step]["summary"]
    return summaries


def run_stage(run: Run, step: str, reporter: Reporter) -> dict[str, Any]:
    """Run one step and enter it into the manifest; the steps behind it are no longer done. A finished step whose
    repetition is refused, fails or is interrupted stays finished where its files are as they were; its seconds are those of all
    sessions. Raises Failure where a file that it reads is damaged."""
    backend.start()
    check_files(run, step, reporter)
    before = run.manifest if run.done(step) else None
    after = _after(step, steps(run.recipe))
    stages = {name: entry for name, entry in run.manifest.get("stages", {}).items() if name not in after}
    begin, earlier = time.monotonic(), run.manifest.get("stages", {}).get(step, {}).get("seconds", 0)
    stages[step] = {"state": "started", "seconds": earlier}
    on = backend.device()
    made_with = {"versions": versions(), "device": str(on), "blas": on.blas, "seed": run.recipe.seed, "model": run.recipe.model}
    _update(run, **made_with, stages=stages)
    try:
        stage, round_number = parse(step)
        summary = STAGES[stage].start(run, reporter, round_number)
    except BaseException:
        with suppress(Failure, OSError):  # a full disk, which what is raised below tells of
            kept = before if before and _stands(run, before["stages"][step]) else {**run.manifest, "stages": stages}
            kept["stages"][step]["seconds"] = round(earlier + time.monotonic() - begin, 1)
            write_json(run.folder / "manifest.json", kept)
        raise
    seconds = time.monotonic() - begin
    hashes = {name: sha256(run.folder / name) for name in outputs(step, run.recipe)}
    if step == "pairs" and (run.folder / "prompts.jsonl").exists():
        hashes["prompts.jsonl"] = sha256(run.folder / "prompts.jsonl")  # to which questions about the notes were added
    stages[step] = {"state": "done", "seconds": round(earlier + seconds, 1), "summary": summary, "sha256": hashes}
    _update(run, stages=stages)
    in_all = f", {duration(earlier + seconds)} in all" if earlier else ""
    reporter.say(f"  {step} took {duration(seconds)}{in_all}")
    return summary


def _stands(run: Run, entry: dict[str, Any]) -> bool:
    """Whether the files of a finished step are still those that its entry in the manifest tells of."""
    return all(
        (run.folder / name).exists() and sha256(run.folder / name) == known for name, known in entry.get("sha256", {}).items()
    )


def renew_report(run: Run, reporter: Reporter) -> None:
    """Write the report anew where the run has one: a stage that was done alone has changed what it tells."""
    if (run.folder / "report.html").exists():
        run_stage(Run(run.folder, _kept_recipe(run.folder / "recipe.yaml")), "report", reporter)


def check_files(run: Run, step: str, reporter: Reporter) -> None:
    """Raise Failure where a file that `step` reads is gone, cut off or broken, and tell where it is another than was left."""
    planned, stages = steps(run.recipe), run.manifest.get("stages", {})
    reads = STAGES[parse(step)[0]].reads
    for earlier in planned[: planned.index(step)]:
        for name, known in stages.get(earlier, {}).get("sha256", {}).items():
            path = run.folder / name
            if name not in {of_round(read, parse(earlier)[1]) for read in reads}:
                continue
            if not path.exists():
                raise Failure(
                    f"{path}: gone since {earlier} wrote it; put it back, or run `mipo-mlx train` with this run's recipe, which "
                    "makes it again"
                )
            if sha256(path) == known:
                continue
            if not is_whole(path):
                raise Failure(
                    f"{path}: cut off or broken; remove it and run `mipo-mlx train` with this run's recipe, which makes it again"
                )
            if not name.startswith("prompts"):  # those to which profiles add questions of their own
                reporter.warn(f"{path} is not as {earlier} left it: edited, or lines are missing; it is taken as it stands")


def _after(step: str, planned: list[str]) -> list[str]:
    """The steps whose input a new result of `step` changes."""
    return ["report"] if step in ("evaluation", "export") else planned[planned.index(step) + 1 :]


def require(run: Run, stage: str) -> None:
    """Raise UserError unless `stage` of the run is done, in every round that takes place; of the pairs, the first round's do."""
    planned = [step for step in steps(run.recipe) if parse(step)[0] == stage][: 1 if stage == "pairs" else None]
    if not all(run.done(step) or run.rounds_ended(step) for step in planned):
        raise UserError(
            f"{run.folder}: {stage} is not finished; run `mipo-mlx train` with this run's recipe first, "
            "it continues where it stopped"
        )


def may_be_there(name: str) -> bool:
    """Whether a file may lie in a folder that no run has begun in, or that was erased."""
    return BESIDE.fullmatch(name) is not None or PARTIAL.fullmatch(name) is not None


def erase(folder: Path) -> None:
    """Remove what a run wrote, and nothing else: a profile that was edited by hand stays, and so do GGUF files of others.

    An erase that is killed leaves a run in which nothing counts as done, and which can be erased again.
    """
    profile = [] if contexts.edited(folder) else [contexts.FILE]
    others = sorted(path.name for path in folder.iterdir() if NUMBERED.fullmatch(path.name) or PARTIAL.fullmatch(path.name))
    # The record of the exported files outlives them, and the recipe, which tells a run from a folder of other files, everything.
    of_stages = [name for stage in STAGES.values() for name in (*stage.writes, *stage.also)]
    for name in ("manifest.json", *exported(folder), *profile, *of_stages, *others, "recipe.yaml"):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def exported(folder: Path) -> list[str]:
    """The GGUF files in a run's folder that its exports wrote, those of earlier exports included."""
    record = folder / "export.json"
    try:
        kinds = read_json(record).values() if record.exists() else []
    except Failure:
        return []
    return [name for kind in kinds for name in kind["files"] if re.fullmatch(r"[^/\\]+\.gguf", name)]


def versions() -> dict[str, str]:
    """Versions of everything that can change a result."""
    found = {"mipo-mlx": __version__, "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in ("mlx", "mlx-lm", "numpy", "transformers", "tokenizers", "gguf"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
