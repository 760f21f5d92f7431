"""The records that stages hand to one another through the run directory, one JSON line each; and the seeds of a run."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

TRAIN, VALIDATION, HELDOUT = "train", "validation", "heldout"  # validation picks the checkpoint, held-out judges it
# Kinds of request, by how much the right answer depends on who asks: wholly, a little, hardly at all, on the text in the request.
PERSONAL, HALF_PERSONAL, GENERAL, CHORES = "personal", "half_personal", "general", "chores"


def seed_for(run_seed: int | str, purpose: str, separator: str = " ") -> str:
    """The seed of one purpose, as text. It depends on the run's seed and on the purpose, not on earlier draws.

    `random.Random` takes it as it is. `key_for` turns it into an integer.
    """
    return f"{run_seed}{separator}{purpose}"


def key_for(run_seed: int | str, purpose: str) -> int:
    """The seed of one purpose as an integer in [0, 2^64), for MLX and NumPy."""
    return int.from_bytes(hashlib.sha256(seed_for(run_seed, purpose).encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Context:
    """One passage about or by the user (contexts.jsonl)."""

    id: str
    text: str
    note: str  # who or what it belongs to: contexts of one note never count as wrong ones for each other
    source: str  # file, relative to the notes folder
    line: int  # first line in that file, from 1
    split: str  # "train" or "heldout"; all contexts of one note are on one side
    tokens: int  # length under the run's tokenizer
    rank: float = 0.0  # how much it seems to tell of its author (sources/rank.py); 0 in runs of older versions
    profile: str = ""  # facts about its author, before the passage; `text` itself where it is all; empty in contexts.jsonl

    @property
    def passages(self) -> tuple[str, ...]:
        """The passages that the model is told; none where the profile is all."""
        return () if self.text == self.profile else (self.text,)

    @property
    def full_text(self) -> str:
        """Profile and passage, as texts are compared with them."""
        return "\n\n".join(filter(None, (self.profile, *self.passages)))


@dataclass(frozen=True)
class DistractedContext(Context):
    """A context whose passage stands behind distractors: passages of other notes, as memory finds them beside the right one."""

    distractors: tuple[str, ...] = ()

    @property
    def passages(self) -> tuple[str, ...]:
        """The distractors, then the right passage."""
        return (*self.distractors, *super().passages)


@dataclass(frozen=True)
class Prompt:
    """One everyday request (prompts.jsonl)."""

    id: str
    text: str
    topic: str
    split: str
    kind: str = PERSONAL  # as are all requests from elsewhere than the bank

    @property
    def judges(self) -> bool:
        """Whether it is held out, and of the kind that the verdict stands on."""
        return self.split == HELDOUT and self.kind == PERSONAL


@dataclass(frozen=True)
class Answer:
    """One sampled answer. `tokens` includes the end-of-turn token when the model wrote one (finish == "stop")."""

    text: str
    tokens: list[int]
    finish: str  # "stop": the model ended its turn; "length": cut at max_tokens


@dataclass(frozen=True)
class Grid:
    """K contexts and one prompt, sampled and scored once (samples.jsonl).

    answers[j] was sampled under contexts[j]. scores[i][j] is log p(answers[j] | prompt, contexts[i]), summed over tokens, in nats,
    float32. It is by the model that sampled: the base, or in a later round the policy of the round before. A context id of None is
    the prompt without a context (`no_context`). A grid of several prompts under one context (`random_prompt`) names the prompt of
    each row in `prompts`, which is empty otherwise. Every context of the grid stood behind the same `distractors`.
    """

    id: int
    split: str
    prompt: str  # Prompt.id
    contexts: list[str | None]  # Context.id
    answers: list[Answer]
    scores: list[list[float]]
    prompts: list[str] = field(default_factory=list)
    prompt_hash: str = ""  # of the rows' token ids: it changes with an edited context or another template
    distractors: list[str] = field(default_factory=list)  # Context.id, in the order in which the model was shown them

    @staticmethod
    def from_row(row: dict[str, Any]) -> "Grid":
        return Grid(**{**row, "answers": [Answer(**answer) for answer in row["answers"]]})


@dataclass(frozen=True)
class Pair:
    """A chosen answer against one or more rejected ones, under one prompt and context (pairs.jsonl).

    `prompt`, `chosen` and `rejected` are chat messages, so TRL can train on the file as it is. With more than one negative,
    `rejected` is the first, and `negatives` has all. Candidate 0 of `tokens` and `reference` is the chosen answer.
    """

    id: str
    split: str
    grid: int  # pairs of one grid share answers and go into one optimizer step
    prompt: list[dict[str, str]]
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]
    negatives: list[str]  # the text of every rejected answer
    prompt_tokens: list[int]
    tokens: list[list[int]]  # candidates' token ids, chosen first
    reference: list[float]  # candidates' summed log-probabilities under the reference (held-out: under the base), nats
    pmi: list[float]  # log p(y+|x,c) - log p(y+|x,c') for each negative's context c', by the model that sampled them, nats
    kinds: list[str]  # each negative's kind: random_context, no_context, ...; the last may be said_back
    prompt_id: str = ""
    context_id: str | None = None
    wrong_context_ids: list[str | None] = field(default_factory=list)
    distractor_ids: list[str] = field(default_factory=list)  # passages that stood before the right one, and before the wrong ones
    source: str = ""
    line: int = 0


VOTES = "votes.jsonl"  # the owner's own, like the profile: no run erases it
TUNED, BASE, NEITHER = "tuned", "base", "neither"


@dataclass(frozen=True)
class Ballot:
    """One blind vote of the owner's (votes.jsonl): which of two answers to one request fits better."""

    request: str
    own: bool  # the owner's own request, not a held-out one of the run
    prompt: list[dict[str, str]]  # the messages that both models had
    passages: list[str]
    tuned: str  # the trained model's answer
    base: str
    first: str  # whose answer stood first: TUNED or BASE
    choice: str  # TUNED, BASE or NEITHER
    adapters: str  # a hash of the adapters that answered
    time: str = ""  # in UTC
    sources: list[str] = field(default_factory=list)  # places of the passages
