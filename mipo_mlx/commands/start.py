"""Which run a command means, and what is checked before it computes.

train RECIPE      begins a run, or goes on with it where the recipe is the same
train RUN         goes on with a run by its name, as it was begun
eval RUN, ...     repeat one stage of a run
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from .. import recipe_loading
from .. import run as runs
from ..errors import UserError
from ..models import identity
from ..progress import Reporter
from ..recipe import Recipe
from ..run import Run
from . import power, preflight
from .options import ERASED, RunOptions

if TYPE_CHECKING:
    from ..serving.assistant import AnswerOptions


def open_target(options: RunOptions) -> Run:
    """The run that a command begins or goes on with; its folder exists afterwards."""
    run = _named(options)
    return run or runs.open_run(*_begin(options), options.root, options.fresh)


def plan_target(options: RunOptions) -> Run:
    """The same run, but nothing is written, and a run that was made from another recipe is no obstacle."""
    run = _named(options)
    return run or runs.planned_run(*_begin(options), options.root)


def _begin(options: RunOptions) -> tuple[Recipe, str]:
    """The recipe of a command line, and the name of its run."""
    from .init import written

    target = options.target or str(written())
    recipe = recipe_loading.load_recipe(target, options.sets, options.notes)
    return recipe, options.name or recipe.name or recipe_loading.find(target).stem


def _named(options: RunOptions) -> Run | None:
    """The run that the command line names; None where it names a recipe.

    A recipe in the working folder wins over a run of its name, which wins over a built-in recipe. With options
    that change a recipe, the name means the recipe.
    """
    target = options.target
    if target is None or target.endswith(recipe_loading.ENDINGS) or Path(f"{target}.yaml").is_file():
        return None
    changes = options.sets or options.name or options.notes
    if changes and target in recipe_loading.shipped():
        return None
    if not any((folder / "recipe.yaml").exists() for folder in (Path(target), options.root / target)):
        if target in recipe_loading.shipped() or Path(target).exists():
            return None
        raise UserError(
            f"{target}: no such recipe and no such run; `mipo-mlx recipes` lists the built-in recipes, `mipo-mlx runs` your runs"
        )
    if changes:
        raise UserError(f"{target}: a run keeps the recipe that it began with; --set, --name and --notes need a recipe's path")
    return runs.existing_run(Path(target), options.root)


@contextmanager
def checked_and_locked(run: Run, upto: str, options: RunOptions) -> Iterator[Reporter]:
    """Lock a run whose steps up to `upto` are to be computed. What would end them late is checked, then --fresh erases."""
    reporter, planned = Reporter(options.quiet), run.steps()
    computes = options.fresh or not all(map(run.is_over, planned[: planned.index(upto) + 1]))
    _ask_about_code(run, reporter)
    with runs.locked(run.folder, reporter):
        try:
            power.require_mains(options.on_battery or not computes)
            preflight.check(run, upto, options.fresh, reporter)
        except UserError:
            _remove_unused(run.folder)
            raise
        runs.prepare(run, options.fresh)
        if options.fresh:
            click.get_current_context().meta[ERASED] = True
        yield reporter


def _remove_unused(folder: Path) -> None:
    """Remove the folder of a run that was refused before it began: it holds the lock alone."""
    if [path.name for path in folder.iterdir()] == [".lock"]:
        (folder / ".lock").unlink()
        folder.rmdir()


def _ask_about_code(run: Run, reporter: Reporter) -> None:
    """Ask on a terminal before a repository of code is read as notes; warn elsewhere. Raises UserError where the answer is no."""
    from ..sources import gather, licences

    sources = run.recipe.sources
    if not sources.notes or run.done("sources"):
        return
    for place in gather.places(sources):
        if sign := licences.code_in(place):
            line = f"{place}: this folder looks like a repository of code ({sign})"
            if not sys.stdin.isatty():
                reporter.warn(f"{line}; its documents are read as your notes")
            elif not click.confirm(f"{line}. Read its documents as your notes?"):
                raise UserError(f"{line}; name your notes with --notes PATH")


def repeat_stage(options: RunOptions, stage: str) -> Run:
    """Repeat one stage of an existing run. The overrides reach this stage's own section only.

    Raises UserError where a stage that it needs is not done.
    """
    run, reporter = runs.existing_run(Path(options.target or ""), options.root), Reporter(options.quiet)
    require(run, runs.STAGES[stage].needs)
    if stage == "evaluation":
        preflight.profile(run)
    run.recipe = recipe_loading.with_section(run.recipe, stage, options.sets)
    with runs.locked(run.folder, reporter):
        preflight.settings(run.recipe, [stage], reporter)
        runs.run_stage(run, stage, reporter)
        if stage != "report":
            renew_report(run, reporter)
    return run


def evaluate(options: RunOptions, baselines: bool) -> Run:
    return repeat_stage(replace(options, sets=(*options.sets, *(["evaluation.baselines=true"] if baselines else []))), "evaluation")


def export(options: RunOptions, types: Sequence[str], split: str | None, adapter_only: bool) -> Run:
    """Repeat the export of a run. types: GGUF types in place of export.gguf; split: largest file."""
    if adapter_only and (types or split):
        raise UserError("--adapter-only: the adapters are one small file of one type; leave out --type and --split-max-size")
    sets = [f"export.gguf=[{', '.join(types)}]"] if types else []
    sets += [f"export.split={split}"] if split else []
    sets += ["export.gguf=[]", "export.mlx=false", "export.adapter=true"] if adapter_only else []
    return repeat_stage(replace(options, sets=(*options.sets, *sets)), "export")


def install(run: Run, program: str) -> str:
    """Enter the exported result into ollama or lmstudio; returns what there is to say of it."""
    from ..export import install as programs

    name = run.folder.name
    if program == "ollama":
        return programs.install_ollama(run.folder, name)
    return programs.install_lmstudio(run.folder, run.recipe, name)


def fuse(options: RunOptions) -> str:
    """Write the fused folder of a run alone; returns what there is to say of it."""
    run, reporter = finished(options, "training"), Reporter(options.quiet)
    run.recipe = recipe_loading.with_section(run.recipe, "export", options.sets)
    from ..export.export import fuse as fuse_run

    with runs.locked(run.folder, reporter):
        text = fuse_run(run.folder, run.recipe, reporter)
        renew_report(run, reporter)
    return text


def finished(options: RunOptions, stage: str) -> Run:
    """An existing run in which `stage` is done. Raises UserError for any other."""
    run = runs.existing_run(Path(options.target or ""), options.root)
    require(run, stage)
    return run


def answering_run(options: RunOptions, given: dict[str, Any], context: str | None = None) -> "tuple[Run, AnswerOptions]":
    """A trained run, and what a command line wants of its answers. `context` is the text of --context."""
    run = finished(options, "training")
    from ..serving.assistant import AnswerOptions
    from .chat import find_context

    named = find_context(run.folder, run.recipe, context) if context else None
    return run, AnswerOptions(notes=not given.pop("no_notes", False), context=named, **given)


def require(run: Run, stage: str) -> None:
    """Raise UserError unless `stage` is done, in every round that takes place; of `pairs`, the first round suffices."""
    planned = [step for step in run.steps() if runs.parse(step)[0] == stage][: 1 if stage == "pairs" else None]
    if not all(map(run.is_over, planned)):
        again = f"`mipo-mlx train {quote(str(run.folder))}`"
        raise UserError(f"{run.folder}: {stage} is not finished; {again} goes on where it stopped")
    if stage == "training":
        identity.check_adapters(run.folder, run.recipe.model)


def renew_report(run: Run, reporter: Reporter) -> None:
    """Write the report of a run anew where it has one, with the recipe that the run keeps."""
    if (run.folder / "report.html").exists():
        runs.run_stage(runs.existing_run(run.folder, run.folder.parent), "report", reporter)
