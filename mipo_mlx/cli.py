"""The command line: parse, call one function, print. No logic; heavy imports happen inside the command that needs them."""

import sys
from contextlib import contextmanager
from pathlib import Path

import click

from . import __version__

ERASED = "erased"  # in the command's meta: --fresh has done its work, and would undo what came after it
RUNS = click.option(
    "--runs", "root", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
    help="Folder that holds all runs; a run is its folder in there.",
)  # fmt: skip


def sets(what: str):
    """--set, with the keys that the command takes in its help."""
    told = f"Override {what}; may be given more than once."
    return click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help=told)


EXPORT_SETS = sets("a key of export, as in export.system=profile")
QUIET = click.option("--quiet", is_flag=True, help="No progress; warnings and results only.")
RECIPE = click.argument("recipe", type=click.Path(path_type=Path))
RUN = click.argument("run", type=click.Path(path_type=Path))


def starts_a_run(command):
    """The options of commands that begin or continue a run from a recipe."""
    options = (
        sets("a key of the recipe, as in training.beta=0.2"),
        RUNS,
        QUIET,
        click.option("--name", help="Name of the run; default: the recipe's name, or that of its file."),
        click.option(
            "--notes", metavar="PATH", help="Folder or file of notes, seen from where you are, in place of sources.notes."
        ),
        click.option(
            "--fresh",
            is_flag=True,
            help="Start over; a profile.md edited by hand stays. With `profile`: the profile alone, and one edited by hand is "
            "moved to profile.old.md.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


class Mistyped(click.UsageError):
    """A usage error of click's, in one line like every other one."""

    def show(self, file=None) -> None:
        line = " ".join(self.format_message().split()).rstrip(".")
        see = f" (see `{self.ctx.command_path} --help`)" if self.ctx else ""
        click.echo(f"error: {line[:1].lower()}{line[1:]}{see}", err=True)


NO_COMMAND = getattr(click.exceptions, "NoArgsIsHelpError", Mistyped)  # shows the help; an error since click 8.2


@contextmanager
def in_one_line():
    try:
        yield
    except click.UsageError as error:
        if isinstance(error, (Mistyped, NO_COMMAND)):
            raise
        raise Mistyped(error.format_message(), error.ctx) from None


class Friendly(click.Group):
    """Ends every expected failure with one line and its exit code; a traceback only with --debug."""

    def make_context(self, *args, **more) -> click.Context:
        with in_one_line():
            return super().make_context(*args, **more)

    def invoke(self, context: click.Context):
        try:
            with in_one_line():
                return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own: usage, and output that nobody reads any more
        except KeyboardInterrupt:
            without = " without --fresh" if ERASED in context.meta else ""
            click.echo(f"stopped; the same command{without} continues from here", err=True)
            sys.exit(130)
        except Exception as error:
            if context.params.get("debug"):
                raise
            from .errors import told

            line, code = told(error)
            hint = " (from now on without --fresh, which would start over again)" if ERASED in context.meta else ""
            click.echo(f"error: {line}{hint}", err=True)
            sys.exit(code)


@click.group(cls=Friendly, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Personalize a local assistant from your own notes; nothing leaves this machine."""


@main.command()
@RECIPE
@starts_a_run
@click.option("--dry-run", is_flag=True, help="Print the plan, its memory and its time, and stop.")
def train(recipe: Path, overrides, root: Path, quiet: bool, name, notes, fresh: bool, dry_run: bool) -> None:
    """Notes in, a personalized model out: every stage of RECIPE. Run again after an interruption to continue."""
    from .commands import dry_run as plan
    from .commands import summary

    opened, reporter = _open(recipe, overrides, root, quiet, name, notes, fresh, create=not dry_run)
    if dry_run:
        click.echo(plan.describe(opened))
        return
    _work(opened, "report", reporter, fresh)
    click.echo(summary.final(opened))


def _open(recipe: Path, overrides, root: Path, quiet: bool, name, notes, fresh: bool, create: bool = True):
    from . import run as runs
    from .progress import Reporter
    from .recipe_loading import load_recipe

    values = load_recipe(recipe, list(overrides), notes)
    return runs.open_run(values, name or values.name or recipe.stem, root, fresh, create), Reporter(quiet)


def _work(opened, upto: str, reporter, fresh: bool = False) -> None:
    from . import run as runs
    from .commands import preflight

    with runs.locked(opened.folder):
        preflight.check(opened, upto, fresh, reporter)
        runs.prepare(opened, fresh)
        if fresh:
            click.get_current_context().meta[ERASED] = True
        runs.execute(opened, upto, reporter)


@main.command()
@click.argument("target", metavar="RECIPE_OR_RUN", type=click.Path(path_type=Path))
@starts_a_run
@click.option("--show", is_flag=True, help="Print the pairs side by side with their PMI.")
@click.option("--export", type=click.Path(path_type=Path), help="Also write them as text for mlx-lm-lora into this folder.")
def pairs(target: Path, overrides, root: Path, quiet: bool, name, notes, fresh: bool, show: bool, export: Path | None) -> None:
    """Read the notes and sample the contrastive pairs; stop before training."""
    opened, reporter = _recipe_or_run(target, overrides, root, quiet, name, notes, fresh)
    _work(opened, "pairs", reporter, fresh)
    if show:
        from .pairs.show import show as show_pairs

        show_pairs(opened.folder)
    if export:
        from .pairs.exchange import write_strings

        click.echo(write_strings(opened.folder, export))


@main.command()
@click.argument("target", metavar="RECIPE_OR_RUN", type=click.Path(path_type=Path))
@starts_a_run
def profile(target: Path, overrides, root: Path, quiet: bool, name, notes, fresh: bool) -> None:
    """Distil the notes into a short profile of their author, profile.md in the run, to be edited by hand."""
    from . import run as runs
    from .commands.profile import make_profile

    opened, reporter = _recipe_or_run(target, overrides, root, quiet, name, notes, fresh=False)
    with runs.locked(opened.folder):
        runs.prepare(opened, fresh=False)
        path = make_profile(opened, reporter, fresh)
    click.echo(f"{path.read_text(encoding='utf-8', errors='replace').rstrip()}\n\n{path}")


def _recipe_or_run(target: Path, overrides, root: Path, quiet: bool, name, notes, fresh: bool):
    from . import run as runs
    from .errors import UserError
    from .progress import Reporter

    if target.suffix in (".yaml", ".yml"):
        return _open(target, overrides, root, quiet, name, notes, fresh)
    if overrides or name or notes is not None:
        raise UserError(f"{target}: a run keeps the recipe that it began with; --set, --name and --notes need a recipe's path")
    return runs.existing_run(target, root), Reporter(quiet)


def _again(run: Path, root: Path, stage: str, quiet: bool, overrides=()):
    """Do one stage of an existing run anew; what it needs must be there. `overrides` reach this stage's own section only."""
    from . import run as runs
    from .commands import preflight
    from .progress import Reporter
    from .recipe_loading import with_section

    opened, reporter = runs.existing_run(run, root), Reporter(quiet)
    runs.require(opened, runs.STAGES[stage].needs)
    if stage == "evaluation":
        runs.check_profile(opened)
    opened.recipe = with_section(opened.recipe, stage, list(overrides))
    with runs.locked(opened.folder):
        preflight.settings(opened.recipe, [stage], reporter)
        runs.run_stage(opened, stage, reporter)
        if stage != "report":
            runs.renew_report(opened, reporter)
    return opened


@main.command("eval")
@RUN
@click.argument("other", required=False, type=click.Path(path_type=Path))
@sets("a key of evaluation, as in evaluation.judge=base; paths are seen from where you are")
@RUNS
@QUIET
@click.option("--baselines", is_flag=True, help="Also no context, two strengths of context-aware decoding, and SFT (a training).")
def evaluate(run: Path, other: Path | None, overrides, root: Path, quiet: bool, baselines: bool) -> None:
    """Evaluate RUN (its name or folder) anew; with OTHER, compare two finished runs instead."""
    from . import run as runs
    from .commands import summary
    from .errors import UserError

    if other is None:
        sets = [*overrides, *(["evaluation.baselines=true"] if baselines else [])]
        click.echo(summary.evaluation(_again(run, root, "evaluation", quiet, sets)))
        return
    if overrides or baselines:
        raise UserError(f"{other}: two runs are compared by what they measured; --set and --baselines need one run alone")
    from .evaluation.compare import compare, show

    click.echo("\n".join(show(compare([runs.existing_run(run, root).folder], [runs.existing_run(other, root).folder]))))


@main.command()
@RUN
@EXPORT_SETS
@RUNS
@QUIET
def fuse(run: Path, overrides, root: Path, quiet: bool) -> None:
    """Fuse the adapters of RUN (its name or folder) into a model folder that mlx-lm loads."""
    from . import run as runs
    from .progress import Reporter
    from .recipe_loading import with_section

    opened = runs.existing_run(run, root)
    runs.require(opened, "training")
    opened.recipe = with_section(opened.recipe, "export", list(overrides))
    with runs.locked(opened.folder):
        from . import backend

        backend.start()
        from .export.export import fuse as fuse_run

        told = fuse_run(opened.folder, opened.recipe, Reporter(quiet))
        runs.renew_report(opened, Reporter(quiet))
    click.echo(told)


@main.command()
@RUN
@EXPORT_SETS
@RUNS
@QUIET
@click.option("--type", "types", multiple=True, help="GGUF type, as in q4_k_m; may be given more than once; default: export.gguf.")
@click.option("--split-max-size", "split", metavar="SIZE", help="Largest GGUF file, as in 4G or 500M; more becomes several.")
@click.option("--adapter-only", is_flag=True, help="Only the adapters, as a small GGUF for llama.cpp's --lora over the base's.")
@click.option(
    "--install", type=click.Choice(["ollama", "lmstudio"]), help="Also enter the result into this program, which must be installed."
)
def export(run: Path, overrides, root: Path, quiet: bool, types, split, adapter_only: bool, install) -> None:
    """Write the GGUF, the fused folder and the Modelfile of RUN (its name or folder)."""
    from .commands import summary
    from .errors import UserError

    if adapter_only and (types or split):
        raise UserError("--adapter-only: the adapters are one small file of one type; leave out --type and --split-max-size")
    sets = [*overrides, *([f"export.gguf=[{', '.join(types)}]"] if types else [])]
    sets += [f"export.split={split}"] if split else []
    sets += ["export.gguf=[]", "export.mlx=false", "export.adapter=true"] if adapter_only else []
    opened = _again(run, root, "export", quiet, sets)
    click.echo(summary.files(opened))
    if install:
        from .export import install as programs

        name = opened.folder.name
        done = (
            programs.install_ollama(opened.folder, name)
            if install == "ollama"
            else programs.install_lmstudio(opened.folder, opened.recipe, name)
        )
        click.echo(done)


@main.command()
@RUN
@RUNS
@QUIET
def report(run: Path, root: Path, quiet: bool) -> None:
    """Write report.html of RUN (its name or folder)."""
    opened = _again(run, root, "report", quiet)
    click.echo(str(opened.folder / "report.html"))


@main.command()
@RUN
@click.argument("repository", metavar="OWNER/NAME")
@RUNS
@click.option(
    "--what", type=click.Choice(["adapter", "mlx", "gguf"]), multiple=True, default=["adapter"], show_default=True,
    help="Adapters, fused folder or GGUF files; may be given more than once.",
)  # fmt: skip
@click.option("--public", is_flag=True, help="Let everyone see the repository; default: only you.")
def push(run: Path, repository: str, root: Path, what, public: bool) -> None:
    """Upload the result of RUN (its name or folder) to the Hub, after asking."""
    from . import run as runs
    from .export import publish

    opened = runs.existing_run(run, root)
    runs.require(opened, "export")
    upload = publish.Upload(opened.folder, opened.recipe, repository, what, public)
    click.echo(publish.push(upload, click.confirm))


@main.command()
@RUN
@RUNS
@click.option("--context", help="What the model is told of you: a text file, or a note of the run by its name or id.")
@click.option("--base", is_flag=True, help="Let the base model answer beside the tuned one.")
@click.option("--max-tokens", default=400, show_default=True, type=click.IntRange(1), help="Longest answer, in tokens.")
@click.option("--temperature", default=0.7, show_default=True, type=click.FloatRange(0), help="0 answers the same way every time.")
def chat(run: Path, root: Path, context, base: bool, max_tokens: int, temperature: float) -> None:
    """Talk to the result of RUN (its name or folder)."""
    from . import run as runs

    opened = runs.existing_run(run, root)
    runs.require(opened, "training")
    from . import backend

    backend.start()
    from .commands.chat import talk

    talk(opened, context, base, max_tokens, temperature)


@main.command()
def doctor() -> None:
    """Say what this machine is, what fits on it, what is wrong, and the command that mends it."""
    from .commands.doctor import examine

    text, healthy = examine()
    click.echo(text)
    sys.exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
