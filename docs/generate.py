"""Write the parts of docs/ that the code knows: keys of a recipe, commands, files of a run, functions of the library.

    python docs/generate.py            # writes the blocks of docs/*.md anew
    python docs/generate.py --check    # changes nothing; exit code 1 and the names of the stale pages

A block of a page stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->`. BLOCKS holds the function of each NAME.
The text around a block is written by hand. tests/test_docs.py fails where a page is stale.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import click  # noqa: E402
from pydantic import BaseModel  # noqa: E402

import mipo_mlx  # noqa: E402
from mipo_mlx import cli, run  # noqa: E402
from mipo_mlx.recipe import Dataset, Recipe  # noqa: E402

EXPLAINS = ROOT / "recipes" / "personal.yaml"  # every key of it has a comment
KEY = re.compile(r"^( *)(# )?(\w+):(?: +(.*?))?(?: *# (.*))?$")


@dataclass
class Explained:
    """What the comments of a recipe say about one key."""

    text: str = ""
    examples: list[tuple[str, str]] = field(default_factory=list)  # (value, its comment) of lines that are commented out


def comments(path: Path) -> dict[str, Explained]:
    """The comment of each key, as a.b, in a recipe: the lines above it, behind it, and below it where those stand far right."""
    found: dict[str, Explained] = {}
    parents: list[tuple[int, str]] = []  # (indentation, name) of the sections that a line is in
    above: list[str] = []
    explained = Explained()
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip().removeprefix("# ")
        if line.startswith(" " * 20) and text:
            explained.text += f" {text}"
        elif match := KEY.match(line):
            indent, commented, name, value, behind = len(match[1]), match[2], match[3], match[4] or "", match[5] or ""
            parents = [(depth, parent) for depth, parent in parents if depth < indent]
            key = ".".join([*(parent for _, parent in parents), name])
            explained = found.setdefault(key, Explained(" ".join([*above, behind]).strip()))
            if commented:  # an example; the first one explains the key
                explained.examples.append((value, "" if explained.text == behind else behind))
            else:
                parents.append((indent, name))
            above = []
        else:
            above = [*above, text] if line.strip().startswith("# ") else []
    return found


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections of a recipe in a type: itself, or members of a union."""
    for each in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(each, type) and issubclass(each, BaseModel):
            yield each


def keys_block() -> str:
    """A table for each section of a recipe: key, default, values, what it does."""
    said = comments(EXPLAINS)
    others = [comments(path) for path in sorted(EXPLAINS.parent.glob("*.yaml"))]
    parts = []
    for title, section, prefix in _sections(Recipe, ""):
        rows = []
        for name, values in section.model_json_schema()["properties"].items():
            key = prefix + name
            if any(sections(section.model_fields[name].annotation)) and section.model_fields[name].annotation not in NULLABLE:
                continue
            explained = next((each[key] for each in (said, *others) if key in each and each[key].text), None)
            if explained is None:
                raise SystemExit(f"{key}: no comment explains it in {EXPLAINS.name}")
            rows.append(f"| `{key}` | {_default(section, name)} | {allowed(values)} | {_cell(explained)} |")
            rows += [
                f"| `{inner}` | | | {_cell(each)} |" for inner, each in said.items() if inner.startswith(f"{key}.") and each.text
            ]
        parts.append(
            f"### {title}\n\n| key | default | values | what it does, and what it trades |\n|---|---|---|---|\n" + "\n".join(rows)
        )
    return "\n\n".join(parts)


NULLABLE = (Dataset | None, str | Dataset | None)


def _sections(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel], str]]:
    """(heading, section, prefix of its keys) of a recipe, the data set's once."""
    yield f"`{prefix[:-1]}`" if prefix else "Top level", section, prefix
    for name, held in section.model_fields.items():
        if isinstance(held.annotation, type) and issubclass(held.annotation, BaseModel):
            yield from _sections(held.annotation, f"{prefix}{name}.")
    if section is Recipe:
        yield "A data set: `sources.dataset`, `sources.prompt_dataset`, `evaluation.abilities`", Dataset, "sources.dataset."


def _default(section: type[BaseModel], name: str) -> str:
    held = section.model_fields[name]
    if held.is_required():
        return "none, must be set"
    return f"`{held.default if isinstance(held.default, str) else json.dumps(held.default, default=dict)}`"


def allowed(schema: dict[str, Any]) -> str:
    """What a key takes, from its JSON schema, in words."""
    if "anyOf" in schema:
        return " or ".join(allowed(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return "a data set"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        bounds = {"minimum": "{} or more", "exclusiveMinimum": "above {}", "maximum": "at most {}", "exclusiveMaximum": "below {}"}
        limits = [form.format(f"{schema[name]:g}") for name, form in bounds.items() if name in schema and schema[name] < 2**31]
        return ", ".join(["whole number" if kind == "integer" else "number", *limits])
    if kind == "array":
        return f"list of {allowed(schema['items'])}"
    if kind == "object":
        return (
            "mapping of "
            + allowed(schema.get("propertyNames", {"type": "string"}))
            + " to "
            + allowed(schema["additionalProperties"])
        )
    return {"string": "text", "boolean": "`true`, `false`", "null": "`null`"}[kind or ""]


def _cell(explained: Explained) -> str:
    shown = "; ".join(f"`{value}`" + (f" ({why})" if why else "") for value, why in explained.examples)
    return explained.text + (f"{'' if explained.text.endswith('.') else '.'} Examples: {shown}" if shown else "")


def recipes_block() -> str:
    """The shipped recipes, each with the first line of its file."""
    lines = ["| recipe | what it is for |", "|---|---|"]
    for path in sorted(EXPLAINS.parent.glob("*.yaml"), key=lambda path: (path != EXPLAINS, path.stem != "demo", path.name)):
        head = path.read_text(encoding="utf-8").split("\n#\n")[0]
        lines.append(f"| [{path.stem}](../recipes/{path.name}) | {' '.join(line.lstrip('# ') for line in head.splitlines())} |")
    return "\n".join(lines)


def commands_block() -> str:
    """Every command with its arguments, its help and its options."""
    parts = []
    for name, command in cli.main.commands.items():
        if command.hidden:
            continue
        usage = " ".join(_usage(p) for p in command.params if isinstance(p, click.Argument))
        rows = [_option(p) for p in command.params if isinstance(p, click.Option) and not p.hidden]
        table = "\n\n| option | default | what it does |\n|---|---|---|\n" + "\n".join(rows) if rows else ""
        parts.append(f"### `mipo-mlx {name}{' ' if usage else ''}{usage}`\n\n{' '.join((command.help or '').split())}{table}")
    return "\n\n".join(parts)


def _usage(argument: click.Argument) -> str:
    shown = argument.metavar or (argument.name or "").upper()
    return shown if argument.required else f"[{shown.strip('[]')}]"


def _option(option: click.Option) -> str:
    shown, text = option.get_help_record(click.Context(cli.main)) or ("", "")
    text, _, default = text.partition("  [default: ")
    cells = (f"`{shown}`", default.removesuffix("]").strip("()"), text)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


KEYLIKE = re.compile(r"(?=\w*\d)(?=\w*[A-Za-z])[\w-]{16,}")  # no page shows one, not even a made-up one


FILES = {  # of run.STAGES: what each file or folder holds
    "contexts.jsonl": "the contexts: passages of the notes, each with its note, its split, its length in tokens and its rank",
    "prompts.jsonl": "the requests, each with its kind and its split",
    "sources.json": "counts: files that were read, skipped and left alone, passages that were dropped and why, redactions",
    "samples.jsonl": "the sampled grids, with the score of each answer under each context",
    "pairs.jsonl": "the pairs; TRL reads the file as it is, take the rows of split `train`",
    "pairs.json": "counts: pairs by split, dropped answers and why, information of each kind of negative",
    "memory.sqlite": "the passages of all notes and the profile, to be found by `ask`, `chat` and the evaluation",
    "memory.sqlite-journal": "what SQLite leaves of a write that was killed",
    "update.log": "what `mipo-mlx update` said each night, with `mipo-mlx schedule` on macOS",
    "chat-history": "the lines that were typed into `chat`",
    "context.json": "what the contexts tell, with `sources.context: auto`: passages, or the profile too",
    "profile-samples.jsonl": "what the model wrote while it made the profile",
    "parts": "shares of the sampling that other machines made ([several-machines.md](several-machines.md))",
    "profile.json": "the hash of profile.md as the model wrote it: an edit by hand shows",
    "adapters/adapters.safetensors": "the result of the training, in mlx-lm's layout",
    "adapters/adapter_config.json": "rank, scale and layers of the adapters",
    "metrics.jsonl": "a row for each step and each validation",
    "adapters": "the folder for `mlx_lm.generate --adapter-path`; after several rounds that of the best round",
    "checkpoints": "adapters, optimizer and place in the data; the last ones and the best one",
    "bake": "of `training.bake`: answers under the profile, and the metrics and checkpoints of their training",
    "tensorboard": "events, with `training.loggers: [tensorboard]`",
    "wandb": "W&B's own files, with `training.loggers: [wandb]`",
    "wandb.json": "the id under which W&B continues the run",
    "eval.json": "every measure, before and after, with intervals, and the answers of the report",
    "eval-samples.jsonl": "answers and scores of the evaluation, so that a killed evaluation goes on",
    "judge-verdicts.jsonl": "verdicts of judges with hashes of what they judged; no text",
    "sft": "the SFT baseline, with `mipo-mlx eval RUN --baselines`",
    "export.json": "the exported files: type, size, hash, and how much of the training each keeps",
    "fused": "the fused MLX folder",
    "Modelfile": "what Ollama reads",
    "report.html": "the page that says whether it worked; one file, no network",
}


def files_block() -> str:
    """Every file of a run that run.STAGES names: the stage that writes it, and what it holds."""
    if strange := {name for stage in run.STAGES.values() for name in (*stage.writes, *stage.also)} ^ FILES.keys():
        raise SystemExit(f"FILES and run.STAGES differ in {', '.join(sorted(strange))}")
    lines = [
        f"| `{name}` | {written_by} | {FILES[name]} |"
        for written_by, stage in run.STAGES.items()
        for name in (*stage.writes, *stage.also)
    ]
    return "\n".join(["| file | written by | what it holds |", "|---|---|---|", *lines])


def library_block() -> str:
    """Every function of the library with its signature and its docstring."""
    parts = []
    for name in mipo_mlx.__all__:
        function = getattr(mipo_mlx, name)
        signature = re.sub(r"[\w.]+\.(?=\w)|['\"]", "", str(inspect.signature(function)))  # without modules and quotes
        text = inspect.cleandoc(function.__doc__ or "").replace("\n", " ").replace("  ", "\n\n")
        parts.append(f"### `{name}`\n\n```python\n{name}{signature}\n```\n\n{text}")
    return "\n\n".join(parts)


def secrets_block() -> str:
    """What redaction finds and what it does not, from the made-up secrets of the tests."""
    folder = ROOT / "tests" / "sources"
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, part in (("secrets.jsonl", "yes"), ("missed.jsonl", "no")):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            example = re.sub("[«»‖]", "", row["text"]).replace("|", "\\|").replace("\n", " ⏎ ")
            kinds.setdefault(row["kind"], []).append((part, example))
    lines = ["| what | found | tried | an example, made up |", "|---|---|---|---|"]
    for kind, rows in kinds.items():
        shown = next((text for _, text in rows if len(text) <= 60 and not KEYLIKE.search(text)), "a made-up one of its form")
        lines.append(
            f"| {kind} | {rows[0][0]} | {len(rows)} | `{shown}` |"
            if "`" not in shown
            else f"| {kind} | {rows[0][0]} | {len(rows)} | {shown} |"
        )
    return "\n".join(lines)


BLOCKS = {
    "secrets": secrets_block,
    "library": library_block,
    "keys": keys_block,
    "recipes": recipes_block,
    "commands": commands_block,
    "files": files_block,
}


def renewed(page: str) -> str:
    """A page's text with its blocks as the code has them now."""
    for name, block in BLOCKS.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        if begin in page:
            page = page[: page.index(begin)] + f"{begin}\n{block()}\n{end}" + page[page.index(end) + len(end) :]
    return page


def stale() -> dict[Path, str]:
    """The pages whose blocks are not what the code says, with the text that they should have."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*.md"))}
    return {path: new for path, text in pages.items() if (new := renewed(text)) != text}


def main() -> None:
    found = stale()
    if "--check" in sys.argv[1:]:
        sys.exit(f"stale, run `python docs/generate.py`: {', '.join(path.name for path in found)}" if found else 0)
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
