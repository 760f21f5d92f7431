"""Pairs made elsewhere: JSONL with `prompt`, `chosen`, `rejected`, each a string or chat messages, as TRL reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..logprobs import token_logprobs
from ..models import chat
from ..records import TRAIN, Pair

SHAPES = "a string or a list of chat messages ({role, content})"
KIND = "imported"


def import_pairs(path: Path, tokenizer: Any, model: Any, split: str = TRAIN) -> list[Pair]:
    """Read the pairs of a TRL-style JSONL file; reference log-probabilities are computed with `model`, in nats.

    prompt may be missing where `chosen` and `rejected` are conversations that begin alike. `rejected` may be a list of strings
    or of conversations: more than one negative. Answers get the model's end-of-turn token, as a finished answer has. Columns
    `split` and `grid` are kept where they are given; other pairs get a grid each. PMI is not known (no wrong context), so
    `pmi` is empty. Raises UserError that names file and line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected JSONL with prompt, chosen and rejected") from None
    end = written_end(tokenizer)
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            pairs.append(_pair(_row(line, path, number), f"{path}:{number}", tokenizer, end, split, len(pairs)))
    if not pairs:
        raise UserError(f"{path}: no pairs in this file; expected JSONL with prompt, chosen and rejected")
    reference = token_logprobs(model, [pair.prompt_tokens for pair in pairs], [pair.tokens for pair in pairs])
    return [
        Pair(**{**vars(pair), "reference": [round(float(np.sum(tokens, dtype=np.float64)), 5) for tokens in found]})
        for pair, found in zip(pairs, reference, strict=True)
    ]


def written_end(tokenizer: Any) -> int:
    """The id that the chat template puts behind an assistant's answer: of several ids that end a turn, the one to learn."""
    ends = chat.end_of_turn(tokenizer)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    written = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
    return next((token for token in reversed(written) if token in ends), min(ends))


def _row(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}:{number}: not JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict) or not {"chosen", "rejected"} <= set(row):
        raise UserError(f"{path}:{number}: expected an object with prompt, chosen and rejected")
    return row


def _pair(row: dict[str, Any], where: str, tokenizer: Any, end: int, split: str, number: int) -> Pair:
    rejected = row["rejected"]
    several = isinstance(rejected, list) and rejected and not isinstance(rejected[0], dict)
    candidates = [_messages(row["chosen"], "assistant", f"{where}: chosen")]
    candidates += [_messages(r, "assistant", f"{where}: rejected") for r in (rejected if several else [rejected])]
    if "prompt" in row:
        prompt = _messages(row["prompt"], "user", f"{where}: prompt")
    else:  # TRL's implicit prompt: what all candidates begin with
        shared = [steps[0] for steps in zip(*candidates, strict=False) if all(step == steps[0] for step in steps)]
        prompt, candidates = shared, [candidate[len(shared) :] for candidate in candidates]
        if not prompt:
            raise UserError(f"{where}: no prompt, and chosen and rejected do not begin with the same messages")
    for name, candidate in zip(["chosen", *["rejected"] * len(candidates)], candidates, strict=False):
        if len(candidate) != 1 or candidate[0]["role"] != "assistant" or not candidate[0]["content"].strip():
            raise UserError(f"{where}: {name}: expected one assistant message with text after the prompt")
    texts = [candidate[0]["content"] for candidate in candidates]
    if texts[0] in texts[1:]:
        raise UserError(f"{where}: chosen and rejected are the same text; remove the line")
    given, grid = row.get("split", split), row.get("grid", number)
    if given not in ("train", "validation", "heldout"):
        raise UserError(f"{where}: split: expected train, validation or heldout, not {given!r}")
    if not isinstance(grid, int):
        raise UserError(f"{where}: grid: expected a whole number (pairs of one grid go into one step), not {grid!r}")
    return Pair(
        id=str(row.get("id", number)),
        split=given,
        grid=grid,
        prompt=prompt,
        chosen=candidates[0],
        rejected=candidates[1],
        negatives=texts[1:],
        prompt_tokens=chat.encode(tokenizer, prompt),
        tokens=[[*tokenizer.encode(text, add_special_tokens=False), end] for text in texts],
        reference=[],
        pmi=[],
        kinds=[KIND] * (len(texts) - 1),
        source=where.rpartition(":")[0],
        line=int(where.rpartition(":")[2]),
    )


def _messages(value: Any, role: str, where: str) -> list[dict[str, str]]:
    """A string becomes one message of `role`."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: expected {SHAPES}")
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise UserError(f"{where}: expected {SHAPES}")
    return [{"role": message["role"], "content": message["content"]} for message in value]
