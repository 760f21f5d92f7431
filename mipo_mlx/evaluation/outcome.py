"""eval.json: its parts as dataclasses, and the one place that writes and reads them.

The field names are the file's keys. A part is None where the run had nothing to measure it on, or the recipe did not ask for it.
"""

from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..errors import Failure, UserError
from ..files import read_json, write_json
from .statistics import Estimate, Items, Measure

FILE = "eval.json"
FORMAT = 5  # of eval.json and of the samples behind it; another version's are computed anew

EMBEDDING, LIKELIHOOD = "embedding", "likelihood"  # judges that need no question

Metrics = dict[str, Measure]


@dataclass(frozen=True)
class Heldout:
    """Held-out pairs, before and after training."""

    pairs: int
    grids: int
    contexts: int  # 0: there are none, or the pairs' file does not name them
    candidates: int  # answers to choose from, the largest number of all pairs
    beta: float
    no_interval: str | None  # why there are no intervals
    metrics: Metrics
    items: Items


@dataclass(frozen=True)
class Fresh:
    """Answers of the base ("before") and of the trained model ("after") to the same held-out requests."""

    answers: int  # of each model
    notes: int
    requests: int  # different ones
    apart_by: str  # "context" or, where pairs have none, "request": what an answer is to be matched with
    choices: list[int]  # among how many an answer is to be matched
    choices_left_out: list[int]  # more than there are notes
    no_interval: str | None
    metrics: Metrics
    items: Items
    # How much likelier the trained model finds its own answers than the base does, nats. A KL divergence only where answers were
    # sampled at temperature 1 without top_p.
    log_ratio_per_answer: Estimate
    pmi: dict[str, list[float]]  # of each answer by the base's likelihood, nats: {"base": ..., "tuned": ...}


@dataclass(frozen=True)
class Opinion:
    """One judge's votes on the base's and the trained model's answers."""

    judge: str
    model: str | None  # that an endpoint serves
    mode: str  # "pairwise" or "rubric"
    win: int  # of the trained model
    tie: int
    loss: int
    nonsense: int  # requests that it could not judge
    unanswered: int  # of these, those without any reply
    win_rate: Estimate | None = None  # pairwise
    length_controlled: Estimate | None = None  # the win rate at equal length; None where it cannot be known
    first_preferred: Estimate | None = None  # 0.5: no preference for a position; None for a judge that sees one answer at a time
    metrics: Metrics = field(default_factory=dict)  # rubric: mean scores, 1 to 5


@dataclass(frozen=True)
class Agreement:
    """On the requests that two judges judged: the share of equal votes, and Cohen's kappa."""

    judges: list[str]
    requests: int
    same: Estimate
    kappa: float | None


@dataclass(frozen=True)
class Judged(Opinion):
    """The first judge's opinion, the others', and how far they agree."""

    others: list[Opinion] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)


@dataclass(frozen=True)
class Retrieval:
    """How well memory finds the passage that a request was written from, among the passages of all notes."""

    passages: int
    recall: dict[str, Estimate]  # "1", "3", "10": shares of requests whose passage is among so many, whether it fits or not
    given: Estimate  # share of requests whose passage is among those that the model is told
    strangers: int  # requests of general knowledge, which fit no note
    none_given: Estimate  # share of these that get no passage


@dataclass(frozen=True)
class Scene:
    """One request of the owner's day, with what memory found for it."""

    request: str
    places: list[str]  # of the passages, best first
    passages: list[str]
    bare: str  # the base's answer, nothing told
    base: str  # the base's answer with the passages
    tuned: str  # the trained model's with the same


@dataclass(frozen=True)
class Remembered:
    """The result with memory, on requests that were written from held-out passages (see with_memory.py)."""

    requests: int
    no_interval: str | None
    # Whose answers fit the right passage better. Of the trained model with memory: "memory" against the base with the same memory,
    # "alone" against the bare base, "profile" against the base with the profile, "by_hand" against itself with the right passage.
    # "retrieval": the base with memory against the bare base.
    ways: dict[str, Opinion]
    retrieval: Retrieval
    scenes: list[Scene]


@dataclass(frozen=True)
class Use:
    """The result as its owner will use it."""

    requests: int  # with distractors
    no_interval: str | None
    # Shares of answers that fit the right passage best of three: undistracted, distracted, lost_to_distractors. {}: not measured.
    distractors: Metrics
    ways: dict[str, Opinion]  # whose answers fit the profile better: "alone" and "profile" (see use.py); {} without a profile
    memory: Remembered | None = None  # None: the run has no notes that memory could find


@dataclass(frozen=True)
class BaselineMeasure(Measure):
    """before: the base with the context in its prompt; after: the baseline; to_tuned: the change from it to the trained model."""

    to_tuned: Estimate


@dataclass(frozen=True)
class Reply:
    request: str
    text: str


@dataclass(frozen=True)
class Unprompted:
    """The trained model without a context: its drift from the base."""

    kl_per_token: Estimate
    answers: list[Reply]


@dataclass(frozen=True)
class OfKind:
    """Held-out requests of one kind, each under one held-out context, and each without any.

    A personal request has an answer for each context. No context matters to a general one, whose answer should stay the same.
    """

    requests: int
    no_interval: str | None
    fit: Opinion  # whose answers fit their context better
    metrics: Metrics  # of fresh answers: pmi_per_token, tokens, perplexity, parroting
    # KL(tuned || base) of the trained model's answers, nats a token: with the context, and without one.
    kl_told: Estimate
    kl_untold: Estimate
    items: Items


@dataclass(frozen=True)
class Canaries:
    planted: int
    trained: int  # of these, those that stood in a training prompt
    among: int  # lines that each is ranked among
    exposure: list[float]  # bits, of each trained one
    control: list[float]  # bits, of lines that were planted nowhere
    p: float | None


@dataclass(frozen=True)
class Leak:
    """The leak test; the two sides are "train" and "heldout"."""

    contexts: dict[str, int]
    gain_per_token: dict[str, float | None]
    difference: float | None
    p: float | None
    too_few: bool  # so few notes are there that no likelihood could show a leak
    samples: int
    longest_run: dict[str, int]  # words
    passage_gain: float | None
    canaries: Canaries
    signs: list[str]


@dataclass(frozen=True)
class Abilities:
    questions: int
    no_interval: str | None
    metrics: Metrics
    items: Items


@dataclass(frozen=True)
class Preferences(Abilities):
    """Stated preferences, each a question with four answers of which one respects it."""


@dataclass(frozen=True)
class HeldoutKinds:
    """Requirements of kinds that no training pair stated."""

    requests: int
    no_interval: str | None
    metrics: Metrics


@dataclass(frozen=True)
class KindShare:
    """How often a kind of requirement was met."""

    requests: int
    before: float
    after: float


@dataclass(frozen=True)
class Checkable:
    requests: int
    no_interval: str | None
    metrics: Metrics
    items: Items
    heldout_kinds: HeldoutKinds
    kinds: dict[str, KindShare]


@dataclass(frozen=True)
class ShadedAnswer:
    text: str
    words: list[tuple[str, float]]  # pieces that join to the text, and how much likelier the context made each, nats


@dataclass(frozen=True)
class Example:
    """One request of the gallery with both models' answers."""

    request: str
    context: str
    base: ShadedAnswer
    tuned: ShadedAnswer


@dataclass(frozen=True)
class Outcome:
    """The whole of eval.json."""

    model: str
    heldout: Heldout | None = None
    fresh: Fresh | None = None
    fit: Opinion | None = None  # whose fresh answers fit better, by embeddings or by the base's likelihood
    judged: Judged | None = None
    use: Use | None = None
    baselines: dict[str, dict[str, BaselineMeasure]] | None = None
    kinds: dict[str, OfKind] = field(default_factory=dict)  # by the kind of request; {}: not measured
    unprompted: Unprompted | None = None
    leak: Leak | None = None
    abilities: Abilities | None = None
    preferences: Preferences | None = None
    checkable: Checkable | None = None
    gallery: list[Example] = field(default_factory=list)
    verdict: str = ""
    format: int = FORMAT
    key: str = ""  # a hash of all that it depends on
    settings: dict[str, Any] = field(default_factory=dict)  # the recipe's `evaluation`, as it was for these figures

    @property
    def apart_by(self) -> str:
        """What an answer is matched with: its context or, in pairs that name none, its request."""
        return "context" if self.heldout is None or self.heldout.contexts else "request"

    @property
    def remembered(self) -> Remembered | None:
        """The result with memory; None where it was not measured."""
        return self.use.memory if self.use else None

    @property
    def with_notes(self) -> Opinion | None:
        """Whose answers fit better where both models have what memory finds; None where it was not measured."""
        return self.remembered.ways.get("memory") if self.remembered else None


def write(folder: Path, outcome: Outcome) -> None:
    write_json(folder / FILE, asdict(outcome))


def read(folder: Path) -> Outcome:
    """A run's eval.json. Raises UserError where there is none, or where it has another format; Failure for a broken one."""
    path = Path(folder) / FILE
    if not path.exists():
        raise UserError(f"{path}: this run has no evaluation yet; `mipo-mlx eval {folder}` makes it")
    row = read_json(path)
    if row.get("format") != FORMAT:
        raise UserError(f"{path}: written by another version of mipo-mlx; `mipo-mlx eval {folder}` makes it anew")
    try:
        return parse(row)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise Failure(f"{path}: broken at {place}; remove this file, `mipo-mlx eval {folder}` makes it anew") from None


def parse(row: dict[str, Any]) -> Outcome:
    """The object of eval.json as an Outcome. Raises pydantic's ValidationError where something in it is missing."""
    return _adapter().validate_python(row)


def is_current(folder: Path) -> bool:
    path = Path(folder) / FILE
    return path.exists() and read_json(path).get("format") == FORMAT


@cache
def _adapter() -> TypeAdapter[Outcome]:
    return TypeAdapter(Outcome)
