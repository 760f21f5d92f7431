"""The top of the page: three everyday requests with each model's answer, and one sentence on what to do now."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from ..evaluation.outcome import Outcome
from .signs import Sign

COUNT = 3
BASE, TUNED = "The base model with this note", "The trained model with this note"
# Without contexts an answer is matched with its request, and there is no note.
BASE_ALONE, TUNED_ALONE = "The base model", "The trained model"


@dataclass(frozen=True)
class Scene:
    """One request of the owner's day, the note that goes with it, and the answers: (who answers, text)."""

    request: str
    note: str
    answers: list[tuple[str, str]]


def scenes(outcome: Outcome) -> list[Scene]:
    """The first requests of the gallery, each with another note where there are enough. They are never picked by their result."""
    notes = [example.context for example in outcome.gallery]
    first = [example for place, example in enumerate(outcome.gallery) if notes.index(example.context) == place]
    rest = [example for example in outcome.gallery if not any(example is chosen for chosen in first)]
    names = {True: (BASE, TUNED), False: (BASE_ALONE, TUNED_ALONE)}
    return [
        Scene(e.request, e.context, list(zip(names[bool(e.context)], (e.base.text, e.tuned.text), strict=True)))
        for e in [*first, *rest][:COUNT]
    ]


def advice(folder: Path, outcome: Outcome, colour: str, signs: list[Sign]) -> str:
    """What to do now, in one sentence; "" before the evaluation. colour: of the verdict."""
    if not (outcome.heldout or outcome.fresh):
        return ""
    run = quote(str(folder))
    remedy = next((sign.remedy for sign in signs if sign.bad and sign.remedy), "use more notes, or notes that say more about you")
    if outcome.leak and outcome.leak.signs:
        return "Keep this model to yourself: it shows signs of reciting your notes; to train it anew, " + remedy + "."
    if colour == "better":
        return f"Use it: `mipo-mlx chat {run}` talks to the trained model with your notes."
    if colour == "worse":
        return f"Do not use this model: the base model with your notes answers better; to train another one, {remedy}."
    return f"Compare both yourself with `mipo-mlx chat {run} --base`; for a clearer result, {remedy}."
