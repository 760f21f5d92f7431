"""Every passage of the notes as `mipo-mlx notes` shows it: where it stands, its rank and why, what becomes of it and why."""

from collections import defaultdict
from dataclasses import dataclass, field

from ..errors import UserError
from ..recipe import Recipe
from ..records import HELDOUT, TRAIN, Context
from .note import Passage, Tally
from .own_choice import OwnChoice
from .read import choose

STATES = {TRAIN: "to train on", HELDOUT: "held out", "": "not dealt yet"}


@dataclass(frozen=True)
class Row:
    """One passage."""

    passage: Passage
    state: str  # one of STATES, or why it is left out
    used: bool

    @property
    def place(self) -> str:
        return f"{self.passage.source}:{self.passage.line}"

    @property
    def why(self) -> str:
        """The signs behind its rank, the strongest first."""
        ordered = sorted(self.passage.signs.items(), key=lambda sign: -abs(sign[1]))
        return ", ".join(f"{'' if value > 0 else 'less for: '}{sign}" for sign, value in ordered) or "no sign of its author"


@dataclass(frozen=True)
class Listing:
    rows: list[Row]  # as they stand in the notes
    skipped: list[tuple[str, str]]  # (file, why it could not be read)
    alone: dict[str, list[str]] = field(default_factory=dict)  # why files are left alone -> their names
    problem: str = ""  # why there are too few contexts; "" where there are enough

    @property
    def best(self) -> list[Row]:
        """What is used, the best first, then what is left out by its reason."""
        return sorted(self.rows, key=lambda row: (not row.used, "" if row.used else row.state, -row.passage.rank))


def listing(recipe: Recipe, every: list[Passage], own: OwnChoice, read: Tally) -> Listing:
    """What becomes of `every` passage under the owner's choice. read: the counts of reading them."""
    tally, problem, contexts = Tally(passages=len(every)), "", list[Context]()
    try:
        contexts = choose(recipe, every, own, tally)
    except UserError as error:
        problem = str(error)
    sides = {(c.note, c.source, c.line, c.text): c.split for c in contexts}
    gone = {(p.note, p.source, p.line, p.text): why for p, why in reversed(tally.gone)}
    rows, seen = [], set()
    for passage in every:
        key = (passage.note, passage.source, passage.line, passage.text)
        side = None if key in seen else sides.get(key)
        why = "duplicate" if key in seen and key in sides else gone.get(key, "")
        seen.add(key)
        rows.append(Row(passage, STATES[side] if side else why or STATES[""], side is not None or not why))
    alone = defaultdict(list)
    for file, why in read.alone:
        alone[why].append(file)
    return Listing(rows, [(skip["file"], skip["why"]) for skip in read.skipped], dict(alone), problem)
