"""What all commands share: options, the values that they give, and failures in one line."""

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click

ERASED = "erased"  # key of the command's meta: --fresh has erased the run, and would now erase what came after it
Command = Callable[..., None]


@dataclass(frozen=True)
class RunOptions:
    """What a command line says of the run that it begins, goes on with, or repeats a stage of."""

    target: str | None  # a recipe's path or name, a run's folder or name; None: the recipe that `init` wrote here
    root: Path  # folder of all runs
    quiet: bool = False
    sets: tuple[str, ...] = ()  # key=value
    name: str | None = None
    notes: tuple[str, ...] = ()  # in place of sources.notes
    fresh: bool = False
    on_battery: bool = False  # compute without mains power


def default_root() -> Path:
    """The folder of all runs where none is named: $MIPO_RUNS, else ./runs where there is one, else one in the home."""
    if named := os.environ.get("MIPO_RUNS"):
        return Path(named).expanduser()
    if Path("runs").is_dir():
        return Path("runs")
    data = "Library/Application Support" if sys.platform == "darwin" else ".local/share"
    return Path.home() / data / "mipo-mlx" / "runs"


RUNS = click.option(
    "--runs", "root", type=click.Path(path_type=Path), default=default_root,
    show_default="$MIPO_RUNS, else ./runs where there is one, else a folder in your home", help="Folder that holds all runs.",
)  # fmt: skip
QUIET = click.option("--quiet", is_flag=True, help="No progress; warnings and results only.")
ON_BATTERY = click.option("--on-battery", is_flag=True, help="Go on without mains power.")
RUN = click.argument("target", metavar="RUN")


def sets(keys: str) -> Callable[[Command], Command]:
    """--set, with the keys that the command takes in its help."""
    text = f"Override {keys}; may be given more than once."
    return click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help=text)


EXPORT_SETS = sets("a key of export, as in export.system=profile")
BEGIN = (
    click.argument("target", metavar="[RECIPE_OR_RUN]", required=False),
    sets("a key of the recipe, as in training.beta=0.2"),
    RUNS,
    QUIET,
    click.option("--name", help="Name of the run; default: the recipe's name, or that of its file."),
    click.option(
        "--notes",
        multiple=True,
        metavar="PATH",
        help="Folder or file of notes, seen from where you are, in place of sources.notes; may be given more than once.",
    ),  # fmt: skip
    click.option(
        "--fresh",
        is_flag=True,
        help="Start over; a profile.md edited by hand stays. With `profile`: the profile alone, and one edited by hand is "
        "moved to profile.old.md.",
    ),
)


def begins_a_run(command: Command) -> Command:
    """The options of commands that begin a run or go on with it; the command gets them as its first argument."""
    return _with(BEGIN, command)


def takes_a_run(*more: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """The argument RUN, --runs and `more` options of RunOptions; the command gets them as its first argument."""

    def decorate(command: Command) -> Command:
        command.__doc__ = f"{command.__doc__}\n\n    RUN is a run's name or folder."
        return _with((RUN, *more, RUNS), command)

    return decorate


def answer_options(command: Command) -> Command:
    """The options of commands in which the result answers."""
    options = (
        click.option("--no-notes", is_flag=True, help="Answer without your notes; the profile stays."),
        click.option("--base", is_flag=True, help="Let the base model answer beside the trained one."),
    )
    return _decorated(sampling_options(command), options)


def sampling_options(command: Command) -> Command:
    """The options of commands in which a model writes."""
    options = (
        click.option("--max-tokens", default=400, show_default=True, type=click.IntRange(1), help="Longest answer, in tokens."),
        click.option(
            "--temperature", type=click.FloatRange(0),
            help="0 answers the same way every time. Without it: pairs.temperature of the recipe, as in evaluation.",
        ),
    )  # fmt: skip
    return _decorated(command, options)


def _decorated(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    """The command with these options, in this order in its help."""
    for option in reversed(options):
        command = option(command)
    return command


def _with(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    fields = RunOptions.__dataclass_fields__

    def bound(**values: Any) -> None:
        given = RunOptions(**{key: values.pop(key) for key in list(values) if key in fields})
        command(given, **values)

    return _decorated(functools.update_wrapper(bound, command), options)


class UsageMistake(click.UsageError):
    """A usage error of click's, in one line like every other one."""

    def show(self, file: IO[Any] | None = None) -> None:
        from ..errors import printable

        line = " ".join(printable(self.format_message()).split()).rstrip(".")
        see = f" (see `{self.ctx.command_path} --help`)" if self.ctx else ""
        click.echo(f"error: {line[:1].lower()}{line[1:]}{see}", err=True)


NO_COMMAND = getattr(click.exceptions, "NoArgsIsHelpError", UsageMistake)  # shows the help; an error since click 8.2


@contextmanager
def in_one_line() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        if isinstance(error, (UsageMistake, NO_COMMAND)):
            raise
        raise UsageMistake(error.format_message(), error.ctx) from None


class OneLineErrors(click.Group):
    """Ends every expected failure with one line and its exit code; a traceback only with --debug."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they are used, as in cli.py

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with in_one_line():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with in_one_line():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own: usage, and output that nobody reads any more
        except KeyboardInterrupt:
            without = " without --fresh" if ERASED in ctx.meta else ""
            click.echo(f"stopped; the same command{without} continues from here", err=True)
            sys.exit(130)
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            from ..errors import one_line

            line, code = one_line(error)
            hint = " (from now on without --fresh, which would start over again)" if ERASED in ctx.meta else ""
            click.echo(f"error: {line}{hint}", err=True)
            sys.exit(code)
