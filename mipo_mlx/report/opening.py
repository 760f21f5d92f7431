"""The top of the page: three everyday requests with each model's answer, and one sentence on what to do now."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from ..evaluation.outcome import Outcome
from .figures import against_chance, around
from .signs import Sign

COUNT = 3
BARE, WITH_NOTES, TUNED_WITH_NOTES = "The base model", "The base model with your notes", "The trained model with your notes"
HELD_OUT = "Held out: neither the request nor the note was used in training, and nobody picked them by their result."
FIRST = "The first held-out requests for which memory finds a note. Nobody picked them by their result."
BASE, TUNED = "The base model with this note", "The trained model with this note"
# Without contexts an answer is matched with its request, and there is no note.
BASE_ALONE, TUNED_ALONE = "The base model", "The trained model"


@dataclass(frozen=True)
class Scene:
    """One request of the owner's day, the note that goes with it, and the answers: (who answers, text)."""

    request: str
    note: str
    answers: list[tuple[str, str]]
    place: str = "The note"


def scenes(outcome: Outcome) -> list[Scene]:
    """The first requests for which memory finds a note, else those of the gallery. They are never picked by their result."""
    if memory := outcome.remembered:
        names = (BARE, WITH_NOTES, TUNED_WITH_NOTES)
        return [
            Scene(
                scene.request,
                "\n\n".join(scene.passages),
                list(zip(names, (scene.bare, scene.base, scene.tuned), strict=True)),
                " ".join(f"[{place}]" for place in scene.places) or "Memory finds no note that fits",
            )
            for scene in memory.scenes
        ]
    return _of_gallery(outcome)


def origin(outcome: Outcome) -> str:
    return FIRST if outcome.remembered else HELD_OUT


def _of_gallery(outcome: Outcome) -> list[Scene]:
    """Each with another note where there are enough."""
    notes = [example.context for example in outcome.gallery]
    first = [example for place, example in enumerate(outcome.gallery) if notes.index(example.context) == place]
    rest = [example for example in outcome.gallery if not any(example is chosen for chosen in first)]
    of_notes = {True: (BASE, TUNED), False: (BASE_ALONE, TUNED_ALONE)}
    return [
        Scene(e.request, e.context, list(zip(of_notes[bool(e.context)], (e.base.text, e.tuned.text), strict=True)))
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


def added(outcome: Outcome) -> str:
    """What training adds over retrieval alone, in one sentence; "" where no memory was measured."""
    memory = outcome.remembered
    shares = [opinion.win_rate for way in ("retrieval", "memory") if memory and (opinion := memory.ways.get(way))]
    if len(shares) < 2 or any(share is None or share.value is None for share in shares):
        return ""
    retrieval, training = (against_chance(share) for share in shares if share)
    more = {
        "better": "adds to that",
        "": "adds nothing to that which these few answers can show",
        "worse": "takes away from that",
    }[training]
    helped = {
        "better": "help the base model",
        "": "do not show to help the base model",
        "worse": "do not help the base model",
    }[retrieval]
    with_notes, tuned = (around(share, ".0%") for share in shares if share)
    return (
        f"Your notes alone {helped} (its answers with them fit better in {with_notes} of the comparisons), and training {more}: "
        f"with the same notes, the trained model's answers fit better than the base's in {tuned}; 50% is chance."
    )
