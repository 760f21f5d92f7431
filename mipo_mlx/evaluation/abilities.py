"""Whether abilities are kept: questions with a known answer, to the base and to the trained model.

Multiple choice is judged by likelihood, a number by a greedy answer that is read to its end.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import logprobs
from ..errors import UserError
from ..models.prompts import encode
from ..records import key_for
from ..sources.note import Tally
from ..sources.sparing import as_text, sound, utf_8_lines
from ..text.numbers import read_number
from .outcome import Abilities
from .statistics import SHARE, Measures, key_of, too_few
from .workbench import Workbench, drawn

WORKING = 320  # tokens for a worked solution
STEPS = "\n\nSolve the problem step by step. End with a line of #### and the number."


def read_questions(path: Path, count: int, seed: int, tally: Tally | None = None) -> list[dict[str, Any]]:
    """`count` rows drawn by the seed: {"question", "choices", "answer": index}, or {"question", "answer": number}.

    `tally` names the rows that cannot be used. Raises UserError for a file that is missing or has no other rows.
    """
    where = f"evaluation.abilities: {path}"
    if not path.is_file():
        raise UserError(f"{where}: no such file; expected JSONL of question, choices and answer")
    try:
        lines = utf_8_lines(path.read_bytes())
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error}); expected JSONL in UTF-8") from None
    placed = ((f"{where}:{number}", line) for number, line in lines)
    rows = list(sound(placed, _question, tally or Tally(), str(path)))
    if not rows:
        raise UserError(f"{where}: no question in this file")
    return drawn(rows, count, np.random.default_rng(key_for(seed, "ability questions")))


def _question(place: str, line: str | None) -> dict[str, Any]:
    try:
        row = json.loads(as_text(place, line))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: broken JSON ({error})") from None
    if not _fits(row):
        raise UserError(f"{place}: expected question, choices and answer (an index from 0), or question and answer (a number)")
    return row


def _fits(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or "answer" not in row:
        return False
    if "choices" not in row:
        return read_number(str(row["answer"])) is not None
    choices, answer = row["choices"], row["answer"]
    texts = isinstance(choices, list) and all(isinstance(choice, str | int | float) for choice in choices)
    return texts and isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices)


def bar_total(questions: Sequence[dict[str, Any]]) -> int:
    """How much the bar moves in `evaluate`."""
    return 2 * len(questions)


def evaluate(bench: Workbench, questions: Sequence[dict[str, Any]]) -> Abilities:
    """The share of right answers before and after, with intervals over questions.

    Of several choices the one of the highest mean log-probability per token is taken (length-normalised likelihood).
    """
    before, after = bench.by_side("abilities", questions, lambda part: _right(bench, part))
    keys = [key_of(row["question"], row.get("choices"), row["answer"]) for row in questions]
    measures = Measures(keys, bench.resampler([list(range(len(keys)))]))
    measures.add("ability", before, after, SHARE)
    return Abilities(len(questions), too_few(measures.resampler.clusters), measures.metrics, measures.items())


def _right(bench: Workbench, part: Sequence[dict[str, Any]]) -> list[float]:
    """1 for each question that the model answers right, else 0."""
    prompts = [
        encode(bench.tokenizer, [{"role": "user", "content": row["question"] + ("" if "choices" in row else STEPS)}])
        for row in part
    ]
    right = [0.0] * len(part)
    chosen = [i for i, row in enumerate(part) if "choices" in row]
    scored = score_choices(bench, [prompts[i] for i in chosen], [part[i]["choices"] for i in chosen])
    for i, row in zip(chosen, scored, strict=True):
        means = [float(one.mean()) if len(one) else -np.inf for one in row]
        right[i] = float(int(np.argmax(means)) == part[i]["answer"])
    worked = [i for i in range(len(part)) if i not in chosen]
    if worked:
        greedy = bench.recipe.pairs.model_copy(update={"temperature": 0.0, "max_tokens": WORKING})
        for i, answer in zip(worked, bench.sample_now([prompts[i] for i in worked], "abilities", greedy), strict=True):
            right[i] = float(read_number(answer.text) == read_number(str(part[i]["answer"])))
    return right


def score_choices(bench: Workbench, prompts: list[list[int]], choices: Sequence[Sequence[Any]]) -> list[list[np.ndarray]]:
    """(tokens,) log-probabilities, nats, of each choice behind its prompt: of the choice's own tokens, without an end of turn."""
    tokens = [[bench.tokenizer.encode(str(choice), add_special_tokens=False) for choice in some] for some in choices]
    return logprobs.token_logprobs(bench.model, prompts, tokens)
