"""`mipo-mlx profile`: distil the notes into profile.md, and keep a profile that was edited by hand."""

from dataclasses import replace
from pathlib import Path

from .. import run as runs
from ..errors import UserError
from ..memory import contexts
from ..progress import Reporter
from ..run import Run
from . import start
from .options import RunOptions


def make_profile(options: RunOptions) -> Path:
    """Read the notes of a run and distil profile.md from them; with --fresh anew, and nothing else in the run is touched."""
    run, reporter = start.open_target(replace(options, fresh=False)), Reporter(options.quiet)
    with runs.locked(run.folder, reporter):
        runs.prepare(run, fresh=False)
        return distil(run, reporter, options.fresh)


def distil(run: Run, reporter: Reporter, fresh: bool) -> Path:
    """The profile of a run that is held. With `fresh`, one edited by hand becomes profile.old.md, or profile.old-2.md.

    Raises UserError where the pairs of the run were sampled with the profile that is there.
    """
    path = run.folder / contexts.PROFILE
    if fresh and contexts.uses_profile(run.folder, run.recipe) and (run.folder / "samples.jsonl").exists():
        raise UserError(
            f"{path}: the pairs of this run were sampled with it, so a new one would be another run's; make that with --name, or "
            f"remove this profile and start the run over with `mipo-mlx train --fresh`"
        )
    runs.execute(run, "sources", reporter)
    if fresh:
        _put_aside(run, path, reporter)
    if path.exists():
        reporter.say(f"  {path}: there before and left as it is; --fresh writes a new one")
        return path
    from ..memory.distil import write_profile
    from ..models.load import load

    write_profile(run.folder, run.recipe, load(run.recipe.model), reporter)
    return path


def _put_aside(run: Run, path: Path, reporter: Reporter) -> None:
    """Make room for a new profile. What was written by hand is kept, and so are earlier copies of it."""
    if contexts.edited(run.folder):
        reporter.say(f"  {path}: edited by hand; moved to {contexts.put_aside(run.folder)}")
    for name in (contexts.PROFILE, contexts.PROFILE_STATE, "profile-samples.jsonl"):
        (run.folder / name).unlink(missing_ok=True)
    if run.recipe.export.system.strip() in ("auto", "profile") and run.done("export"):
        reporter.say(f"  the files were exported with the profile before; `mipo-mlx export {run.folder}` makes them anew")
