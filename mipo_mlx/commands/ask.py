"""`mipo-mlx ask RUN "..."`: one answer, with the passages of the notes that fit the question."""

from collections.abc import Callable
from typing import Any

from ..memory.retrieve import Match
from ..progress import Reporter, shortened
from ..run import Run
from ..serving.assistant import LABELS, AnswerOptions, Assistant

WIDTH = 80  # characters of a passage that --show prints


def ask(run: Run, question: str, options: AnswerOptions, show: bool, write: Callable[[str], Any]) -> None:
    """Write the answer; with `show`, before it what was found, where, and how well it fits.

    `write` takes pieces of text as they come.
    """
    assistant = Assistant(run.folder, run.recipe, options, Reporter())
    background = assistant.background(question)
    prompt, background = assistant.prompt([{"role": "user", "content": question}], background)
    if show:
        write("\n".join((*retrieved(assistant, question, background.matches), "", "")))
    for side in assistant.sides:
        if options.base:
            write(LABELS[side])
        assistant.answer(prompt, side, write)
        write("\n")


def retrieved(assistant: Assistant, question: str, used: tuple[Match, ...]) -> list[str]:
    """Lines about the passages that go with a question; where none fits, about the nearest one."""
    lines = ["profile: yes" if assistant.profile else "profile: none"]
    if assistant.memory is None:
        return [*lines, "notes: none"]
    if used:
        return [*lines, *(f"{match.score:.2f}  {match.place}  {shortened(match.entry.text, WIDTH)}" for match in used)]
    nearest = assistant.memory.ranked(question, 1)
    limit = assistant.memory.threshold
    if not nearest:
        return [*lines, "notes: no passage has a word of this question"]
    return [*lines, f"notes: none fits; the nearest is {nearest[0].place} with {nearest[0].score:.2f}, below {limit:.2f}"]
