"""Everyday requests: the built-in bank or the user's file, split so that no request is on both sides.

The bank has a file for each kind of request. A request of another file or of a data set is personal.
"""

import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..recipe import Sources
from ..records import CHORES, GENERAL, HALF_PERSONAL, HELDOUT, PERSONAL, TRAIN, Prompt, seed_for
from .decode import writable
from .hub import read_prompts
from .markdown import parse
from .note import Skip, Tally
from .note_file import NoteFile
from .readers.rows import rows_of
from .redact import redact
from .sparing import columns_of, sound

BANK = {PERSONAL: "prompts.txt", HALF_PERSONAL: "half_personal.txt", GENERAL: "general.txt", CHORES: "chores.txt"}
LIMIT = 64 << 20  # bytes of a file of requests
COLUMNS = ("prompt", "instruction", "question", "text", "turns", "messages")
WORD = re.compile(r"\w+")


def load_prompts(sources: Sources, seed: int, tally: Tally) -> list[Prompt]:
    """The requests of the bank ("builtin"), of a .txt, .md, .json or .jsonl file or of a data set, each on a side of the split.

    Raises UserError with file and line for a file that cannot be read, and where fewer than two requests are left.
    """
    if sources.prompt_dataset:
        named, rows = f"sources.prompt_dataset: {sources.prompt_dataset.name}", read_prompts(sources.prompt_dataset, tally)
    elif sources.prompts == "builtin":
        named, rows = "sources.prompts: builtin", read_bank(PERSONAL)
    else:
        named, rows = f"sources.prompts: {sources.prompts}", _from_file(Path(sources.prompts).expanduser(), tally)
    rows = [(writable(text), writable(topic)) for text, topic in rows]
    if sources.redact and sources.prompts != "builtin":
        rows = [(redact(text, tally.redacted), topic) for text, topic in rows]
    distinct: dict[str, tuple[str, str]] = {}
    for text, topic in rows:
        key = " ".join(WORD.findall(text.lower())) or text
        if key in distinct:
            tally.removed["repeated prompts"] += 1
        distinct.setdefault(key, (text, topic))
    if len(distinct) < 2:
        raise UserError(f"{named}: {len(distinct)} prompts, and at least 2 are needed; add requests, one a line")
    prompts = split_prompts(list(distinct.values()), seed, sources.heldout_prompts)
    if sources.prompt_dataset is None and sources.prompts == "builtin":
        for kind in list(BANK)[1:]:
            prompts += split_prompts(read_bank(kind), seed, sources.heldout_prompts, kind, len(prompts))
    return prompts


def split_prompts(rows: list[tuple[str, str]], seed: int, fraction: float, kind: str = PERSONAL, first: int = 0) -> list[Prompt]:
    """Hold out `fraction` of the (text, topic) rows, spread evenly over topics, at least one row and never all.

    Each kind is split by itself, so the requests of one kind fall as they do without the others. first: the number in the first id.
    """
    rng = random.Random(seed_for(seed, "prompts" if kind == PERSONAL else f"prompts {kind}"))
    topics: dict[str, list[int]] = {}
    for number, (_, topic) in enumerate(rows):
        topics.setdefault(topic, []).append(number)
    ranked = []
    for numbers in topics.values():
        rng.shuffle(numbers)
        ranked += [((place + rng.random()) / len(numbers), number) for place, number in enumerate(numbers)]
    count = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
    held = {number for _, number in sorted(ranked)[:count]}
    return [
        Prompt(f"p{first + number:05}", text, topic, HELDOUT if number in held else TRAIN, kind)
        for number, (text, topic) in enumerate(rows)
    ]


def read_bank(kind: str) -> list[tuple[str, str]]:
    """(request, topic) of each request of one kind in the bank."""
    text = Path(__file__).with_name(BANK[kind]).read_text(encoding="utf-8")
    return read_paragraphs(text) if kind == CHORES else read_lines(text)


def read_paragraphs(text: str) -> list[tuple[str, str]]:
    """As `read_lines`, for requests of several lines: an empty line ends a request."""
    rows, topic = [], "own"
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.split("\n")
        if lines[0].startswith("#"):
            topic = lines.pop(0).lstrip("# ").strip()
        rows.append(("\n".join(lines), topic))
    return rows


def read_lines(text: str) -> list[tuple[str, str]]:
    """(request, topic) for each line; a line that begins with # names the topic of the lines behind it."""
    rows, topic = [], "own"
    for line in text.splitlines():
        if line.startswith("#"):
            topic = line.lstrip("# ").strip() or topic
        elif line.strip():
            rows.append((line.strip(), topic))
    return rows


def _from_file(path: Path, tally: Tally) -> list[tuple[str, str]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UserError(f"sources.prompts: {path}: {what}; write builtin, or the name of a .txt, .md, .json or .jsonl file")
    file = NoteFile.on_disk(path)
    try:
        if path.suffix in (".json", ".jsonl"):
            return _filled(sound(rows_of(file, tally, LIMIT), _prompt, tally, file.source), tally)
        text = file.text(tally, LIMIT)
    except Skip as reason:
        raise UserError(f"sources.prompts: {path}: {reason}") from None
    return _markdown(text) if path.suffix in (".md", ".markdown") else read_lines(text)


def _markdown(text: str) -> list[tuple[str, str]]:
    rows, topic = [], "own"
    for block in parse(text)[1]:
        if block.level:
            topic = block.text
        else:
            rows.append((re.sub(r"^(?:- |\d+\. )", "", block.text), topic))
    return rows


def _filled(rows: Iterable[tuple[str, str] | None], tally: Tally) -> list[tuple[str, str]]:
    every = list(rows)
    filled = [row for row in every if row]
    tally.left_alone["rows without a prompt"] += len(every) - len(filled)
    return filled


def _prompt(where: str, value: Any) -> tuple[str, str] | None:
    """(request, topic), or None for a row whose request is empty."""
    if value is None or isinstance(value, str):
        return (value.strip(), "own") if value and value.strip() else None
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected text, or an object with one of the columns {', '.join(COLUMNS)}")
    column = next((name for name in COLUMNS if value.get(name)), None)
    if column is None and any(name in value for name in COLUMNS):
        return None
    if column is None:
        raise UserError(f"{where}: none of the columns {', '.join(COLUMNS)} is there; found {columns_of(value)}")
    first = value[column][0] if isinstance(value[column], list) else value[column]
    text = first.get("content") if isinstance(first, dict) else first
    if text is None or text == "":
        return None
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: column {column}: expected text, found {type(text).__name__}")
    # self-instruct keeps the text that a request is about apart from it.
    given = value.get("input") or next((i.get("input") for i in value.get("instances") or [] if isinstance(i, dict)), None)
    topic = value.get("topic") or value.get("category")
    return f"{text.strip()}\n\n{given.strip()}" if isinstance(given, str) and given.strip() else text.strip(), str(topic or "own")
