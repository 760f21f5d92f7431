"""Pairs from and for other trainers.

`import_pairs` reads `pairs.file`: JSONL with `prompt`, `chosen` and `rejected`, each a string or chat messages, as TRL reads
them. A run's own pairs.jsonl is such a file, and comes back with the same token ids.

`write_strings` is `mipo-mlx pairs RUN --export FOLDER`. mlx-lm-lora reads a folder of train.jsonl, valid.jsonl and test.jsonl,
where `system`, `prompt`, `chosen` and `rejected` are strings, and applies the chat template itself. TRL reads pairs.jsonl, whose
columns of the same names are chat messages. So one file cannot serve both.
"""

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from ..errors import UserError
from ..files import read_records, write_jsonl
from ..models.chat_template import Messages, render
from ..models.prompts import encode, encode_text
from ..recipe import CONTRASTS_CONTEXTS, Recipe
from ..records import HELDOUT, TRAIN, VALIDATION, Pair
from ..sources.note import Tally
from ..sources.redact import redact
from ..sources.sparing import as_text, sound, utf_8_lines
from ..text.words import connected
from .grids import seeded

SHAPES = "a string or a list of chat messages ({role, content})"
KIND = "imported"
TEXTS = ("system", "prompt", "chosen", "rejected", "negatives")
SPLITS = (TRAIN, VALIDATION, HELDOUT)


def import_pairs(path: Path, tokenizer: Any, recipe: Recipe, window: int | None = None, tally: Tally | None = None) -> list[Pair]:
    """Read the pairs of a JSONL file; `reference` is left empty, and so is `pmi` (the wrong contexts are not known).

    `chosen` and `rejected` may be whole conversations that begin alike; then `prompt` may be missing, or one of their turns.
    `rejected` may be a list of strings or of conversations: more than one negative. Every answer ends with the model's end-of-turn
    token once, whether the file writes it or not. Columns `split` and `grid` are kept where they are given. Other pairs get a grid
    each, and the seed deals the sides. window: how many tokens the model takes. `tally` names the lines that cannot be used.
    Raises UserError where there is none beside them, or for an objective that these pairs do not suffice for.
    """
    tally = Tally() if tally is None else tally
    rows = _rows(Path(path), tally)
    if recipe.sources.redact:
        rows = [(where, _redacted(row)) for where, row in rows]
    taken = {row.get("grid") for _, row in rows if isinstance(row.get("grid"), int)}
    free = (number for number in itertools.count() if number not in taken)
    vocabulary = Vocabulary(tokenizer)

    def fitting(where: str, row: dict[str, Any]) -> tuple[str, bool, Pair]:
        pair = pair_of(row if "grid" in row else {**row, "grid": next(free)}, where, vocabulary)
        length = len(pair.prompt_tokens) + max(map(len, pair.tokens))
        if window is not None and length > window:
            raise UserError(f"{where}: {length} tokens, and the model takes {window}; shorten the pair or remove the line")
        return where, "split" in row, pair

    usable = list(sound(rows, fitting, tally))
    pairs = [pair for _, _, pair in usable]
    without = next((where for where, given, _ in usable if not given), None)
    if without is None:
        for split in (TRAIN, HELDOUT):
            if all(pair.split != split for pair in pairs):
                raise UserError(f"{path}: no line has the split {split}; mark some, or leave `split` out of every line")
    elif any(given for _, given, _ in usable):
        raise UserError(f"{without}: split: other lines have one and this one has none; give it to every line or to none")
    else:
        pairs = divide(pairs, recipe, path)
    check_objective(pairs, recipe, path)
    return pairs


def check_objective(pairs: list[Pair], recipe: Recipe, path: Path) -> None:
    """Raise UserError where the objective contrasts the contexts of a grid and no training grid has two: its loss would be 0."""
    prompts_of: dict[int, set[tuple[int, ...]]] = {}
    for pair in pairs:
        if pair.split == TRAIN:
            prompts_of.setdefault(pair.grid, set()).add(tuple(pair.prompt_tokens))
    if recipe.training.objective in CONTRASTS_CONTEXTS and all(len(prompts) < 2 for prompts in prompts_of.values()):
        raise UserError(
            f"training.objective: {recipe.training.objective} contrasts the contexts of a grid, and no training grid of {path} has "
            "pairs under two of them, so it would learn nothing; give such pairs the same `grid`, or write dpo"
        )


def divide(pairs: list[Pair], recipe: Recipe, path: Path) -> list[Pair]:
    """Deal the pairs to the splits by the seed; those that share a grid or a prompt stay on one side.

    Held out is a share of `sources.heldout_prompts`; for validation up to as many pairs as `pairs.validation_grids` would have,
    and a fifth of the rest at most. Raises UserError where nothing can be held out.
    """
    shared = {str(place): {f"grid {pair.grid}", f"prompt {pair.prompt_tokens}"} for place, pair in enumerate(pairs)}
    groups = [sorted(map(int, group)) for group in connected(shared)]
    if len(groups) < 2:
        raise UserError(f"{path}: all pairs share a prompt or a grid, so none can be held out; add pairs with other prompts")
    seeded(recipe, "pairs of a file").shuffle(groups)
    heldout = min(len(groups) - 1, max(1, round(recipe.sources.heldout_prompts * len(groups))))
    split = {place: HELDOUT for group in groups[:heldout] for place in group}
    left = min(recipe.pairs.validation_grids * recipe.pairs.contexts_per_grid, (len(pairs) - len(split)) // 5)
    for group in groups[heldout:]:
        if len(group) <= left:
            left -= len(group)
            split |= dict.fromkeys(group, VALIDATION)
    return [replace(pair, split=split.get(place, TRAIN)) for place, pair in enumerate(pairs)]


class Vocabulary:
    """A tokenizer, its end of turn, and the token ids of answers."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.ends, self.end = tokenizer, set(tokenizer.eos_token_ids), written_end(tokenizer)
        self.size = max(tokenizer.get_vocab().values()) + 1
        self.marks = {mark for mark in (tokenizer.decode([end]).strip() for end in self.ends) if mark}

    def unmarked(self, text: str) -> str:
        """The text without the marks of an end of turn at its end, which some trainers write into their files."""
        bare = text.rstrip()
        while mark := next((mark for mark in self.marks if bare.endswith(mark)), None):
            text = bare = bare.removesuffix(mark).rstrip()
        return text

    def tokens(self, text: str, given: Any) -> list[int]:
        """The ids `given` in the file where they spell `text`: sampled text may be spelt otherwise than it is encoded, and a cut
        answer has no end. Else the tokenizer's own ids, with the end of turn."""
        if isinstance(given, list) and given and all(isinstance(i, int) and 0 <= i < self.size for i in given):
            spoken = given[:-1] if given[-1] in self.ends else given
            if self.tokenizer.decode(spoken, skip_special_tokens=True) == text:
                return given
        return [*encode_text(self.tokenizer, text), self.end]


def written_end(tokenizer: Any) -> int:
    """The id that the chat template puts behind an assistant's answer: of several ids that end a turn, the one to learn."""
    ends = tokenizer.eos_token_ids
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    written = render(tokenizer, turns, tokenize=True, opened=False)
    return next((token for token in reversed(written) if token in ends), min(ends))


def _rows(path: Path, tally: Tally) -> list[tuple[str, dict[str, Any]]]:
    """(file:line, object) of every line that is not blank; `tally` names those that hold none."""
    if not path.exists():
        raise UserError(f"{path}: no such file; pairs.file names JSONL with prompt, chosen and rejected")
    try:
        if not path.is_file():
            raise UserError(f"{path}: cannot be read (it is no file); expected JSONL with prompt, chosen and rejected")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); expected JSONL with prompt, chosen and rejected") from None
    lines = ((f"{path}:{number}", line) for number, line in utf_8_lines(data))
    rows = list(sound(lines, lambda where, line: (where, _row(as_text(where, line), where)), tally))
    if not rows:
        raise UserError(f"{path}: no pairs in this file; expected JSONL with prompt, chosen and rejected")
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if "\\ud" in line or "\\uD" in line:
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: no text, as it has half of a surrogate pair (\\ud800 to \\udfff) alone") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict) or not {"chosen", "rejected"} <= set(row):
        raise UserError(f"{where}: expected an object with prompt, chosen and rejected")
    return row


def _redacted(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the secrets in its texts replaced."""
    return {name: _without_secrets(value) if name in TEXTS else value for name, value in row.items()}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value, Counter())
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    if isinstance(value, dict):
        return {name: _without_secrets(each) if name == "content" else each for name, each in value.items()}
    return value


def pair_of(row: dict[str, Any], where: str, vocabulary: Vocabulary) -> Pair:
    """The pair of one row. where: its file and line. Raises UserError for a row that is none."""
    prompt, candidates = _conversations(row, where)
    texts = [vocabulary.unmarked(candidate[0]["content"]) for candidate in candidates]
    if not all(text.strip() for text in texts):
        raise UserError(f"{where}: expected text in chosen and rejected, not only the mark of an end of turn")
    if texts[0] in texts[1:]:
        raise UserError(f"{where}: chosen and rejected are the same text; remove the line")
    split, grid = row.get("split", TRAIN), row["grid"]
    if split not in SPLITS:
        raise UserError(f"{where}: split: expected train, validation or heldout, not {split!r}")
    if not isinstance(grid, int):
        raise UserError(f"{where}: grid: expected a whole number (pairs of one grid go into one step), not {grid!r}")
    try:
        prompt_tokens = encode(vocabulary.tokenizer, prompt)
    except (TemplateError, ValueError) as error:
        raise UserError(f"{where}: prompt: the model's chat template refuses these messages ({error})") from None
    given = row.get("tokens")
    given = given if isinstance(given, list) and len(given) == len(texts) else [None] * len(texts)
    file, _, line = where.rpartition(":")
    return Pair(
        id=str(row.get("id", line)),
        split=split,
        grid=grid,
        prompt=prompt,
        chosen=[{"role": "assistant", "content": texts[0]}],
        rejected=[{"role": "assistant", "content": texts[1]}],
        negatives=texts[1:],
        prompt_tokens=prompt_tokens,
        tokens=[vocabulary.tokens(text, ids) for text, ids in zip(texts, given, strict=True)],
        reference=[],
        pmi=[],
        kinds=[KIND] * (len(texts) - 1),
        prompt_id=_text(row.get("prompt_id")) or "",
        context_id=_text(row.get("context_id")),
        source=file,
        line=int(line),
    )


def _conversations(row: dict[str, Any], where: str) -> tuple[Messages, list[Messages]]:
    """The prompt and the candidates, the chosen one first, each of one assistant message."""
    rejected, negatives = row["rejected"], row.get("negatives")
    if isinstance(negatives, list) and negatives and all(isinstance(text, str) for text in negatives):
        rejected = negatives  # our own files name the first under `rejected`, and all of them here
    several = isinstance(rejected, list) and rejected and not isinstance(rejected[0], dict)
    candidates = [_messages(row["chosen"], "assistant", f"{where}: chosen")]
    candidates += [_messages(r, "assistant", f"{where}: rejected") for r in (rejected if several else [rejected])]
    prompt = _messages(row["prompt"], "user", f"{where}: prompt") if "prompt" in row else []
    if not prompt or all(len(candidate) > 1 for candidate in candidates):  # whole conversations begin with the prompt
        opening = _opening(candidates)
        candidates = [candidate[len(opening) :] for candidate in candidates]
        if not opening:
            without = "" if prompt else "no prompt, and "
            raise UserError(f"{where}: {without}chosen and rejected do not begin with the same messages")
        own, shared = _bare(prompt), _bare(opening)
        if not set(own) <= set(shared) and own[-len(shared) :] != shared:
            raise UserError(f"{where}: prompt: not what chosen and rejected begin with")
        prompt = prompt if len(prompt) > len(opening) else opening
    for name, candidate in zip(["chosen", *["rejected"] * len(candidates)], candidates, strict=False):
        if len(candidate) != 1 or candidate[0]["role"] != "assistant" or not candidate[0]["content"].strip():
            raise UserError(f"{where}: {name}: expected one assistant message with text after the prompt")
    return prompt, candidates


def _opening(conversations: list[Messages]) -> Messages:
    """The messages that all conversations begin with."""
    alike = itertools.takewhile(lambda turns: len(set(turns)) == 1, zip(*map(_bare, conversations), strict=False))
    return conversations[0][: len(list(alike))]


def _bare(turns: Messages) -> list[tuple[str, str]]:
    """Role and text of each message; the space around a text is no difference."""
    return [(turn["role"], turn["content"].strip()) for turn in turns]


def _messages(value: Any, role: str, where: str) -> Messages:
    """A string becomes one message of `role`."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: expected {SHAPES}")
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise UserError(f"{where}: expected {SHAPES}")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


FILES = {TRAIN: "train.jsonl", VALIDATION: "valid.jsonl", HELDOUT: "test.jsonl"}


def write_strings(folder: Path, target: Path) -> str:
    """Write the first round's pairs of the run in `folder` into `target`, a line for each negative; returns the sentence to print.

    Raises UserError for a prompt of several turns, which has no place in such a file, and where `target` is a file.
    """
    path = Path(folder) / "pairs.jsonl"
    rows: dict[str, list[dict[str, str]]] = {split: [] for split in FILES}
    for line, pair in enumerate(read_records(path, Pair), 1):
        rows[pair.split] += strings(pair, f"{path}:{line}")
    if target.exists() and not target.is_dir():
        raise UserError(f"--export {target}: this is a file; name a folder")
    for split, name in FILES.items():
        write_jsonl(target / name, rows[split])
    return f"{target}/: " + ", ".join(f"{name} ({len(rows[split])} lines)" for split, name in FILES.items())


def strings(pair: Pair, where: str) -> list[dict[str, str]]:
    """One row for each negative. Raises UserError unless the prompt is a request, with or without a system message."""
    roles = [message["role"] for message in pair.prompt]
    if roles not in (["user"], ["system", "user"]):
        turns = ", ".join(roles)
        raise UserError(f"{where}: the prompt's turns are {turns}; strings can hold a request and a system message only")
    request = {"prompt" if message["role"] == "user" else "system": message["content"] for message in pair.prompt}
    return [{**request, "chosen": pair.chosen[0]["content"], "rejected": text} for text in pair.negatives]
