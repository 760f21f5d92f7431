"""Prompts from the notes: the model writes what a note's author might ask, and keeps questions that do not give the note away.

They join prompts.jsonl under the topic "notes", on the side of the note that they come from. A question is dropped that

- is no short question, or speaks of the note itself (somebody who has not read it must be able to answer);
- names what the note names, quotes it, or is much likelier after its note than after others (PMI): an answer could use the
  context without being told it;
- says what another prompt says.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from ..engine.sampling import sample
from ..files import read_records, write_records
from ..models.load import LoadedModel
from ..models.prompts import Messages, encode
from ..progress import Reporter
from ..recipe import Recipe
from ..records import HELDOUT, TRAIN, Context, Prompt, key_for
from ..sources import canaries
from ..text.words import likeness, quotes, words
from .grids import Deck, seeded
from .score import score_grids

TOPIC = "notes"
REQUEST = (
    "Here is a note that somebody wrote:\n\n{note}\n\nWrite one short question about everyday life that this person might ask an "
    "assistant. Do not mention the note, nor anything that only the note tells. Write the question only."
)
TRIES = 3  # questions written for each that is wanted
TOKENS = 40  # of a question, at most
WORDS = (4, 25)
QUOTED = 4  # words in a row that must not be the note's
ALIKE = 0.5  # likeness from which two questions are one
MOST_NATS = 4.0  # of PMI between a question and its note
GRID = 4  # notes that a question is scored under: its own and others
ABOUT_THE_NOTE = re.compile(r"\b(?:the|this|that|your|their) (?:notes?|text|passage|author|writer|person|story|article)\b", re.I)


def add_questions(folder: Path, recipe: Recipe, loaded: LoadedModel, reporter: Reporter) -> bool:
    """Write up to `pairs.own_prompts` questions into prompts.jsonl, and return whether it was written.

    A file that has such questions is left as it is. Their ids tell, since a topic "notes" may also be the user's own.
    """
    wanted = recipe.pairs.own_prompts
    prompts = read_records(folder / "prompts.jsonl", Prompt)
    if not lacks_questions(recipe, prompts):
        return False
    heldout = max(1, round(wanted * recipe.sources.heldout_prompts))
    dropped: Counter[str] = Counter()
    kept: list[Prompt] = []
    for split, count in ((TRAIN, wanted - heldout), (HELDOUT, heldout)):
        side = [context for context in read_records(folder / "contexts.jsonl", Context) if context.split == split]
        contexts = canaries.unplanted(side, recipe.seed, recipe.sources.canaries)
        if count > 0 and len({context.note for context in contexts}) > 1:
            questions, faults = _questions(split, count, contexts, prompts + kept, recipe, loaded)
            kept += questions
            dropped += faults
    lost = ", ".join(f"{number} {reason}" for reason, number in dropped.most_common())
    reporter.say(f"  {len(kept)} of {wanted} prompts written from the notes; dropped: {lost or 'none'}")
    write_records(folder / "prompts.jsonl", prompts + kept)
    return True


def lacks_questions(recipe: Recipe, prompts: list[Prompt]) -> bool:
    """Whether the recipe wants questions from the notes, and none is among the prompts."""
    return recipe.pairs.own_prompts > 0 and not any(prompt.id.startswith(f"{TOPIC}-") for prompt in prompts)


def _questions(
    split: str, count: int, contexts: list[Context], known: list[Prompt], recipe: Recipe, loaded: LoadedModel
) -> tuple[list[Prompt], Counter[str]]:
    """Up to `count` questions from `contexts`, scored in groups of notes; and how many were dropped for which reason."""
    dropped = Counter[str]()
    deck = Deck(contexts, seeded(recipe, f"questions {split}"))
    size = min(GRID, len({context.note for context in contexts}))
    groups = [deck.deal(size, lambda context: context.note) for _ in range(-(-TRIES * count // size))]
    prompts = [[encode(loaded.tokenizer, request(context)) for context in group] for group in groups]
    settings = recipe.pairs.model_copy(update={"max_tokens": TOKENS})
    rows = [row for group in prompts for row in group]
    answers = iter(sample(loaded.model, loaded.tokenizer, rows, settings, key_for(recipe.seed, f"sampling questions {split}")))
    written = [[next(answers) for _ in group] for group in groups]
    jobs = [(group, [answer.tokens for answer in row]) for group, row in zip(prompts, written, strict=True)]
    scores = score_grids(loaded.model, jobs)
    kept: list[Prompt] = []
    for group, row, matrix in zip(groups, written, scores, strict=True):
        for j, (context, answer) in enumerate(zip(group, row, strict=True)):
            text = tidy(answer.text)
            fault = unfit(text, context.text, [prompt.text for prompt in known + kept])
            if fault is None and pmi_with_note(np.array(matrix), j) > MOST_NATS:
                fault = "gives_note_away"
            if fault:
                dropped[fault] += 1
            elif len(kept) < count:
                kept.append(Prompt(f"{TOPIC}-{split}-{len(kept)}", text, TOPIC, split))
    return kept, dropped


def request(context: Context) -> Messages:
    return [{"role": "user", "content": REQUEST.replace("{note}", context.text.strip())}]


def tidy(text: str) -> str:
    """The first line without numbering, label, quotation marks or emphasis."""
    line = next((line.strip() for line in text.strip().splitlines() if line.strip()), "")
    line = re.sub(r"^(?:[-*\u2022]|\d+[.)])\s*|^(?:question|q)\s*:\s*", "", line, flags=re.I)
    return line.strip(" \"'*_\u201c\u201d\u2018\u2019")


def unfit(text: str, note: str, others: list[str]) -> str | None:
    """Why a question must not become a prompt, or None."""
    if not text.endswith("?") or text.count("?") > 1 or not WORDS[0] <= len(words(text)) <= WORDS[1]:
        return "no_question"
    if ABOUT_THE_NOTE.search(text):
        return "speaks_of_note"
    if names(text) & {word.lower() for word in re.findall(r"\w+", note)} or quotes(text, note, QUOTED):
        return "gives_note_away"
    if any(likeness(text, other) >= ALIKE for other in others):
        return "duplicate"
    return None


def names(text: str) -> set[str]:
    """Capitalised words inside the sentence, and numbers, in lower case: what a question should not take from a note."""
    return {word.lower() for word in re.findall(r"\w+", text)[1:] if word[0].isdigit() or word[0].isupper() and word != "I"}


def pmi_with_note(scores: np.ndarray, own: int) -> float:
    """log p(question | own note) - log of its mean probability under the other notes, nats. scores: (notes, questions)."""
    others = np.delete(scores[:, own], own)
    return float(scores[own, own] - (np.logaddexp.reduce(others) - np.log(len(others))))
