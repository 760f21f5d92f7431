"""A run: its table of stages, its recipe and manifest, its lock, and how its files are erased.

    mipo-mlx train RECIPE    # cli.train -> run.execute -> training/train.py

Each stage reads the files of earlier stages and writes its own. So each stage can run alone, be inspected, and resume.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from . import backend, recipe_loading
from .errors import Failure, UserError
from .files import CONTEXTS, make_private, of_round, read_json, sha256, updates, write_json, write_text
from .memory import contexts
from .models import identity
from .progress import Reporter
from .recipe import Recipe
from .recipe_loading import RecipeError
from .sources import own_choice
from .training import metrics

SIGNED = "recipe_sha256"  # a manifest with this key tells a run from a folder of other files


@dataclass(frozen=True)
class Stage:
    """What a stage runs and which files it has. A later round appends its number to the names: pairs-2.jsonl."""

    start: "Callable[[Run, Reporter, int], dict[str, Any]]"  # the int is the round; returns the summary for the manifest
    reads: tuple[str, ...]  # files of earlier stages that it takes
    writes: tuple[str, ...]  # files without which it is not done
    also: tuple[str, ...] = ()  # other files and folders of this stage
    needs: str = ""  # the stage that must be done before this one can run alone
    each_round: tuple[str, ...] = ()  # files and folders that a later round has for itself; of sources, an update of the notes


def _sources(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .sources import questions, read

    questions.prepare(run.folder, run.recipe.evaluation.abilities, reporter)
    row = read.run(run.folder, run.recipe, reporter, round_number)
    return read.show(row, reporter) if round_number == 1 else row


def _pairs(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .pairs import make

    return make.run(run.folder, run.recipe, reporter, round_number)


def _training(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .training import rounds, train

    several = run.recipe.rounds > 1 or round_number > 1 or updates(run.folder)
    given, profile = (run.folder, run.recipe, reporter), contexts.profile_of(run.folder, run.recipe)
    return rounds.run(*given, round_number, profile) if several else train.run(*given, profile)


def _evaluation(run: "Run", reporter: Reporter, round_number: int) -> dict[str, Any]:
    from .evaluation import baselines, evaluate
    from .sources import questions

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


# The one list of a run's files: what is done, what is erased and what a dry run announces are read from it.
STAGES = {
    "sources": Stage(
        _sources, (), (CONTEXTS, "prompts.jsonl"), ("sources.json", *contexts.REMEMBERED), each_round=(CONTEXTS, "sources.json")
    ),
    "pairs": Stage(
        _pairs,
        ("contexts.jsonl", "prompts.jsonl"),
        ("samples.jsonl", "pairs.jsonl"),
        ("pairs.json", contexts.CHOSEN, "profile-samples.jsonl", "parts", contexts.PROFILE_STATE),
        each_round=("samples.jsonl", "pairs.jsonl", "pairs.json"),
    ),
    "training": Stage(
        _training,
        ("pairs.jsonl",),
        ("adapters/adapters.safetensors", "adapters/adapter_config.json", "metrics.jsonl"),
        ("adapters", "checkpoints", "bake", "tensorboard", "wandb", "wandb.json"),
        each_round=("adapters", "checkpoints"),
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
PARTIAL = ".?*.partial"  # what a killed write left (files.replacing, export)
QUESTIONS = f"questions-{'[0-9a-f]' * 8}.json*"  # of a data set (sources.questions)
OWN = rf"{contexts.PROFILE}|profile\.old(-\d+)?\.md|{own_choice.FILE}|votes\.jsonl"  # the owner's
BESIDE = re.compile(rf"\.(lock|DS_Store)|{OWN}|{contexts.INDEX}(-journal)?")  # may lie there before a run


@dataclass
class Run:
    folder: Path
    recipe: Recipe
    pending: int = 0  # the round of an update of the notes that is at work, and not taken yet; 0: none

    @property
    def manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        return read_json(path) if path.exists() else {}

    def steps(self) -> list[str]:
        """The steps of its recipe, with those of the updates that were taken, and of the one that is at work."""
        return steps(self.recipe, [*updates(self.folder), *([self.pending] if self.pending else [])])

    def summary(self, step: str) -> dict[str, Any]:
        """What a step that was finished once says of itself; {} for any other."""
        return self.manifest.get("stages", {}).get(step, {}).get("summary") or {}

    def done(self, step: str) -> bool:
        """Whether a step finished and what it wrote is still there."""
        files = outputs(step, self.recipe) + (["Modelfile"] if self.summary(step).get("modelfile") else [])
        ended = self.manifest.get("stages", {}).get(step, {}).get("state") == "done"
        whole = ended and all((self.folder / name).exists() for name in files)
        if whole and step == "evaluation":
            from .evaluation import outcome

            return outcome.is_current(self.folder)
        return whole

    def is_over(self, step: str) -> bool:
        """Whether nothing of a step is left to do: it is done, or its round does not take place."""
        return self.done(step) or self.rounds_ended(step) is not None

    def rounds_ended(self, step: str) -> str | None:
        """Why a step of a later round does not take place: an earlier round ended them; None where it does."""
        number = parse(step)[1]
        rounds = range(1, number) if number <= self.recipe.rounds else ()  # none of them ends an update
        earlier = (self.summary(of_round("training", other)) for other in rounds)
        return next((summary["ends_rounds"] for summary in earlier if summary.get("ends_rounds")), None)


def steps(recipe: Recipe, added: Sequence[int] = ()) -> list[str]:
    """What a run does, in order: every stage once; later rounds as pairs-2, training-2 and so on. `added`: updates of the notes."""
    later = [of_round(name, number) for number in range(2, recipe.rounds + 1) for name in ("pairs", "training")]
    later += [of_round(name, number) for number in added for name in ("sources", "pairs", "training")]
    return [*list(STAGES)[:3], *later, *list(STAGES)[3:]]


def parse(step: str) -> tuple[str, int]:
    """The stage and the round of a step: pairs-2 -> ("pairs", 2), export -> ("export", 1)."""
    stage, _, number = step.partition("-")
    return stage, int(number or 1)


def outputs(step: str, recipe: Recipe) -> list[str]:
    """What a finished step must have left behind. `adapters/` is the result so far, `adapters-2/` what round 2 ended with."""
    stage, number = parse(step)
    if stage in ("sources", "pairs"):
        return [of_round(name, number) for name in STAGES[stage].writes if number == 1 or name in STAGES[stage].each_round]
    own = [f"adapters-{number}/adapters.safetensors"] if stage == "training" and (recipe.rounds > 1 or number > 1) else []
    return [*STAGES[stage].writes, *own]


def open_run(recipe: Recipe, name: str, root: Path, fresh: bool = False) -> Run:
    """Create `root`/`name`, or go on with it where the recipe is the same or `fresh` is True.

    Raises UserError for a name that is no folder name, for a run that was made from another recipe, and where a pair file brings
    no profile and export.system asks for one.
    """
    run = planned_run(recipe, name, root)
    if not (run.folder / "recipe.yaml").exists():
        names = [path.name for path in run.folder.iterdir()] if run.folder.exists() else []
        if not all(BESIDE.fullmatch(name) or fnmatchcase(name, PARTIAL) for name in names):
            raise UserError(f"{run.folder}: this folder holds other files; choose another --name")
    elif not fresh and (changes := changed(run)):
        remedy = recipe_loading.remedy(changes, name, run.done("training"))
        raise UserError(f"{run.folder}: this run was made from another recipe ({recipe_loading.few(changes)}); {remedy}")
    make_private(run.folder)
    return run


def planned_run(recipe: Recipe, name: str, root: Path) -> Run:
    """The run that `open_run` would create; nothing is written, and a run that exists is no obstacle."""
    if not re.fullmatch(r"[\w][\w.\- ]*", name):
        raise UserError(f"--name {name}: expected a plain folder name: letters, digits, dots and dashes")
    if root.exists() and not root.is_dir():
        raise UserError(f"--runs {root}: not a folder")
    folder = root / name
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file of this name is in the way; choose another --name or --runs")
    if recipe.pairs.file:
        from .export.system import default_system

        default_system(folder, recipe)  # no stage of such a run makes a profile: if export.system has none now, it never will
    return Run(folder, recipe)


def changed(run: Run) -> dict[str, tuple[Any, Any]]:
    """The keys in which `run`'s recipe differs from the one that its folder keeps, with the kept value and the new one."""
    kept = run.folder / "recipe.yaml"
    return recipe_loading.differences(_kept_recipe(kept), run.recipe) if kept.exists() else {}


def _kept_recipe(path: Path) -> Recipe:
    try:
        return recipe_loading.load(path)
    except RecipeError as error:
        raise UserError(f"{error}; this run was made by another version, start it over with --fresh") from None


def existing_run(path: Path, root: Path) -> Run:
    """A run by its folder or its name. Raises UserError where there is none."""
    folder = folder_of(path, root)
    return Run(folder, _kept_recipe(folder / "recipe.yaml"))


def folder_of(path: Path, root: Path) -> Path:
    """The folder of a run, by itself or by the run's name. Raises UserError where there is none."""
    for folder in (Path(path), root / path):
        if (folder / "recipe.yaml").exists():
            return folder
    known = sorted(file.parent.name for file in root.glob("*/recipe.yaml"))
    others = f"there are: {', '.join(known)}" if known else "make one with `mipo-mlx train RECIPE`"
    raise UserError(f"{path}: no such run in {root}; {others}")


@contextmanager
def locked(folder: Path, reporter: Reporter) -> Iterator[None]:
    """Hold the run for one process. Raises UserError where another process holds it; a disk without locks is warned of."""
    import fcntl

    path = folder / ".lock"
    with open(path, "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = path.read_text().strip() or "unknown"
            reason = f"another process ({other}) is working on this run; wait for it, or choose another --name"
            raise UserError(f"{folder}: {reason}") from None
        except OSError as error:  # network disks and FUSE
            reporter.warn(f"{folder}: this disk knows no locks ({error.strerror}); start no second command on this run")
        path.write_text(f"pid {os.getpid()}")
        yield


def prepare(run: Run, fresh: bool) -> None:
    """Write the resolved recipe and the manifest of a new run. Raises UserError where `fresh` would erase what no run wrote."""
    kept = run.folder / "recipe.yaml"
    if fresh:
        from .memory import index

        require_own(run.folder)
        index.start_over(run.folder, run.recipe)
        erase(run.folder, keep=contexts.INDEX_FILES)
    if not kept.exists():
        write_text(kept, recipe_loading.dump(run.recipe))
    if SIGNED not in run.manifest:
        _update(run, created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **{SIGNED: sha256(kept)})


def require_own(folder: Path) -> None:
    """Raise UserError for a folder with a recipe.yaml that no run wrote.

    The manifest of a run is signed. Where it is gone (a killed erase), the recipe.yaml of a run has every default written out.
    """
    kept, manifest, own = folder / "recipe.yaml", folder / "manifest.json", not (folder / "recipe.yaml").exists()
    if manifest.exists():
        own = own or SIGNED in read_json(manifest)
    elif not own:
        with suppress(RecipeError):
            own = kept.read_text(encoding="utf-8") == recipe_loading.dump(recipe_loading.load(kept))
    if not own:
        raise UserError(f"{kept}: not written by a run, so nothing here is erased; choose another --name or --runs")


def _update(run: Run, **changes: Any) -> None:
    write_json(run.folder / "manifest.json", {**run.manifest, **changes})


def execute(run: Run, upto: str, reporter: Reporter) -> dict[str, dict[str, Any]]:
    """Run every step up to `upto` that is not done yet; returns the summaries of all of them."""
    from .sources import changes

    summaries, planned = {}, run.steps()
    newest = [step for step in planned if parse(step)[0] == "sources"][-1]
    for number, step in enumerate(planned[: planned.index(upto) + 1], 1):
        title = f"[{number}/{len(planned)}] {step}"
        if ended := run.rounds_ended(step):
            reporter.say(f"{title}: left out, {ended}")
            continue
        if run.done(step):
            reporter.say(f"{title}: done before")
            if step == newest:
                changes.warn(run.folder, run.recipe.sources, run.summary(step), reporter)
            if parse(step)[0] == "training":
                identity.check_adapters(run.folder, run.recipe.model)
        else:
            run_stage(run, step, reporter, title)
        summaries[step] = run.summary(step)
    return summaries


def run_stage(run: Run, step: str, reporter: Reporter, title: str = "") -> dict[str, Any]:
    """Run one step and enter it into the manifest; the steps after it are no longer done. Returns its summary.

    A finished step whose repetition fails stays finished where its files are as they were. Its seconds are those of all
    sessions. Raises Failure where a file that it reads is damaged.
    """
    check_files(run, step, reporter)
    before = run.manifest if run.done(step) else None
    changed_by_it = ["report"] if step in ("evaluation", "export") else run.steps()[run.steps().index(step) + 1 :]
    changed_by_it = [] if run.pending else changed_by_it  # an update changes nothing before it is taken
    entries = {name: entry for name, entry in run.manifest.get("stages", {}).items() if name not in changed_by_it}
    begin, earlier = time.monotonic(), run.manifest.get("stages", {}).get(step, {}).get("seconds", 0)
    entries[step] = {"state": "started", "seconds": earlier}
    on = backend.device()
    made_with = {"versions": backend.versions(), "device": str(on), "blas": on.blas}
    _update(run, **made_with, seed=run.recipe.seed, model=run.recipe.model, stages=entries)
    try:
        with reporter.stage(title or step, earlier):
            summary = STAGES[parse(step)[0]].start(run, reporter, parse(step)[1])
    except BaseException:
        with suppress(Failure, OSError):  # a full disk, which the error below names
            known = before["stages"][step]["sha256"].items() if before else ()
            as_left = all((run.folder / name).exists() and sha256(run.folder / name) == digest for name, digest in known)
            kept = before if before and as_left else {**run.manifest, "stages": entries}
            kept["stages"][step]["seconds"] = round(earlier + time.monotonic() - begin, 1)
            write_json(run.folder / "manifest.json", kept)
        raise
    files = outputs(step, run.recipe) + (["prompts.jsonl"] if step == "pairs" else [])  # to which it may have added questions
    hashes = {name: sha256(run.folder / name) for name in files}
    seconds = round(earlier + time.monotonic() - begin, 1)
    entries[step] = {"state": "done", "seconds": seconds, "summary": summary, "sha256": hashes}
    _update(run, stages=entries)
    return summary


def check_files(run: Run, step: str, reporter: Reporter) -> None:
    """Compare each file that `step` reads with what its stage wrote (`identity.check_file`)."""
    metrics.read(run.folder)  # raises UserError where another version trained the run
    if STAGES[parse(step)[0]].needs == "training":
        identity.check_adapters(run.folder, run.recipe.model)
    planned, entries = run.steps(), run.manifest.get("stages", {})
    for earlier in planned[: planned.index(step)]:
        reads = {of_round(name, parse(earlier)[1]) for name in STAGES[parse(step)[0]].reads}
        known = entries.get(earlier, {}).get("sha256", {})
        for name in sorted(reads & known.keys()):
            identity.check_file(run.folder / name, known[name], earlier, reporter)


def erase(folder: Path, keep: Sequence[str] = ()) -> None:
    """Remove what a run wrote but `keep`, and nothing else: a profile edited by hand stays, and so do GGUF files of others.

    An erase that is killed leaves a run in which nothing counts as done, and which can be erased again.
    """
    exports = [name for kind in read_json(folder / "export.json", {}).values() for name in kind["files"]]
    names = [name for name in exports if re.fullmatch(r"[^/\\]+\.gguf", name)]
    names += [path.name for path in sorted(folder.iterdir()) if path.name not in keep and _written(path.name)]
    names += [] if contexts.edited(folder) else [contexts.PROFILE]
    # recipe.yaml is the last to go: it tells a run from other folders. export.json names the GGUF files, so it outlives them.
    for name in ("manifest.json", *names, "recipe.yaml"):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _written(name: str) -> bool:
    """Whether a run writes a file or folder of this name; a later round adds its number to it."""
    first = re.sub(r"-\d+(?=\.|$)", "", name)
    stages = STAGES.values()
    known = any(first in s.each_round or name in (file.partition("/")[0] for file in (*s.writes, *s.also)) for s in stages)
    return known or fnmatchcase(name, PARTIAL) or fnmatchcase(name, QUESTIONS)
