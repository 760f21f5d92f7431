"""Bake: the trained model that is told the profile teaches itself to do without being told (`training.bake`).

    adapters/, profile.md, prompts.jsonl, pairs.jsonl -> bake/answers.jsonl -> bake/checkpoints/, bake/metrics.jsonl -> adapters/

It follows the training of the pairs, in the same adapters. The teacher is the model as that training left it. Each step mixes three
kinds of answers, and all have whole distributions as their goals (`distilling.py`):

- told: the teacher's answers under the profile; the goal is its distribution there, and the student sees the request alone;
- pairs: chosen answers of the run; the goal is the teacher's own distribution under their context, so that a context still works;
- anchors: the base's answers to requests that are not personal; the goal is the base's distribution, so they stay as they are.

Half of the requests alone have no system message, as an exported file is asked, and half have `pairs.plain_system`. An answer that
parrots the profile is left out. A bake that was killed goes on and ends with the same bytes. Where the profile has changed in
between, it begins anew.
"""

import hashlib
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from .. import backend
from ..engine.distributions import Goal, likeliest
from ..engine.head import OutputHead
from ..engine.sampling import Prefixes, sample
from ..errors import UserError
from ..files import dump, make_private, read_json, read_jsonl, read_records
from ..models import adapters, load
from ..models.journal import Journal
from ..models.load import LoadedModel
from ..models.prompts import encode, messages, window_of
from ..progress import Reporter
from ..recipe import Recipe
from ..records import CHORES, GENERAL, TRAIN, Pair, Prompt, key_for, seed_for
from ..text.parroting import parrots
from . import distilling, memory_plan
from .distilling import Distilled
from .step import batch_of
from .train import Job, Watch, longest, train

T = TypeVar("T")
FOLDER = "bake"
IMPERSONAL = (GENERAL, CHORES)
KEPT = 64  # entries of the vocabulary that a token's goal tells apart
AT_ONCE = 8  # answers whose goals are computed in one batch
MEASURED = 7  # one of so many told answers is never trained on: these measure the bake


@dataclass(frozen=True)
class Baked:
    """A bake in the manifest."""

    answers: int  # told answers that were learned
    parroted: int  # told answers that were left out
    steps: int
    first_kl: float | None  # nats a token from the teacher that is told to the student that is not, on new answers, before
    last_kl: float | None  # and after
    stopped: str | None  # why it ended early, or did not begin


def run(folder: Path, recipe: Recipe, reporter: Reporter, profile: str) -> dict[str, Any]:
    """Bake the profile into adapters/, which are as the training left them. Returns the `Baked` for the manifest.

    Where too few answers are fit to learn, the adapters stay as they are. Raises UserError where there is no profile, and where it
    is too long for the model.
    """
    if not profile:
        raise UserError(f"training.bake: {folder / 'profile.md'} is missing or has no facts, and they are what is baked")
    loaded = load.load(recipe.model)
    adapters.attach(loaded.model, recipe.training.lora, recipe.seed)
    adapters.restore(loaded.model, folder / "adapters")
    teacher = Teacher(folder, recipe, profile, loaded, reporter)
    examples, parroted = teacher.under_profile()
    measured, learned = examples[::MEASURED], [example for number, example in enumerate(examples) if number % MEASURED]
    if not learned:
        why = f"too few answers are fit to learn, and {parroted} parrot the profile"
        reporter.warn(f"training.bake: {why}; nothing was baked")
        return asdict(Baked(0, parroted, 0, None, None, why))
    job = teacher.job(mixed(learned, teacher.pairs(len(learned)), teacher.anchors(len(learned)), recipe))
    before = divergence(loaded.model, measured, job.pad)
    result = train(loaded.model, job, Watch(reporter))
    after = divergence(loaded.model, measured, job.pad)
    config = read_json(folder / "adapters" / "adapter_config.json")
    adapters.save(loaded.model, folder / "adapters", config)
    reporter.conclude(
        f"  baked the profile: the model without it is {after:.3f} nats a token from the model with it, {before:.3f} before"
    )
    if result.stopped:
        reporter.warn(f"the bake ended early: {result.stopped}")
    return asdict(Baked(len(learned), parroted, result.steps, before, after, result.stopped))


def mixed(learned: list[Distilled], pairs: list[Distilled], anchors: list[Distilled], recipe: Recipe) -> list[Distilled]:
    """The answers of all steps of one pass, each with its step as its grid. Pairs and anchors come around again."""
    settings, examples = recipe.training.bake, []
    for step in range(math.ceil(len(learned) / settings.batch)):
        some = learned[step * settings.batch : (step + 1) * settings.batch]
        for others, count in ((pairs, settings.pairs), (anchors, settings.anchors)):
            some += [others[(step * count + i) % len(others)] for i in range(count)] if others else []
        examples += [replace(example, id=f"{step}-{number}", grid=step) for number, example in enumerate(some)]
    return examples


def divergence(model: Any, examples: list[Distilled], pad: int) -> float:
    """The mean KL from the goals of examples to the model, nats a token."""
    each = [distilling.losses(model, batch_of([x], pad), [x], checkpoint=False)[0].item() for x in examples]
    return float(np.mean(each)) if each else 0.0


@dataclass
class Teacher:
    """The teacher, and the answers that it gives. Its model has the adapters that the training of the pairs left."""

    folder: Path
    recipe: Recipe
    profile: str
    loaded: LoadedModel
    reporter: Reporter

    def __post_init__(self) -> None:
        self.requests = [p for p in read_records(self.folder / "prompts.jsonl", Prompt) if p.split == TRAIN]
        self.pad = min(self.loaded.tokenizer.eos_token_ids)
        own, path = self.folder / FOLDER, self.folder / FOLDER / "answers.jsonl"
        key = self._key()
        if read_jsonl(path)[:1] != [{"key": key}]:  # of another profile, say: neither its answers nor its checkpoints are of use
            shutil.rmtree(own, ignore_errors=True)
        make_private(own)
        self.journal = Journal(path, key)

    def _key(self) -> str:
        """A hash of what the answers and the examples depend on, beside the adapters."""
        settings = [section.model_dump(mode="json") for section in (self.recipe.pairs, self.recipe.training.bake)]
        made_of = [self.profile, [asdict(request) for request in self.requests], self.recipe.seed, *settings]
        return hashlib.sha256(dump(made_of).encode()).hexdigest()

    def under_profile(self) -> tuple[list[Distilled], int]:
        """The answers under the profile, and how many parrot it and are left out."""
        own = [request for request in self.requests if request.kind not in IMPERSONAL] or self.requests
        dealt = self._deal(own, self.recipe.training.bake.answers, "told")
        prompts = [encode(self.loaded.tokenizer, messages(self.recipe.pairs, p.text, None, self.profile)) for p in dealt]
        window = window_of(self.loaded.config, self.recipe.pairs.max_tokens)
        widest = max(map(len, prompts))
        if window is not None and widest > window:
            raise UserError(
                f"{self.folder / 'profile.md'}: {widest} tokens with a request, and {window} fit the model; shorten the profile"
            )
        answers = self._answers(prompts, "told")
        fit = [
            (number, request.text, prompt, answer["tokens"])
            for number, (request, prompt, answer) in enumerate(zip(dealt, prompts, answers, strict=True))
            if answer["tokens"] and not parrots(answer["text"], self.profile, request.text)
        ]
        return self._examples([(prompt, tokens, self._alone(text, n)) for n, text, prompt, tokens in fit]), len(answers) - len(fit)

    def pairs(self, learned: int) -> list[Distilled]:
        """Chosen answers of the run under their own contexts, as many as all steps of one pass take."""
        known = [p for p in read_records(self.folder / "pairs.jsonl", Pair) if p.split == TRAIN]
        count = min(len(known), self._count(learned, self.recipe.training.bake.pairs))
        return self._examples([(p.prompt_tokens, p.tokens[0], p.prompt_tokens) for p in self._deal(known, count, "pairs")])

    def anchors(self, learned: int) -> list[Distilled]:
        """The base's answers to requests that are not personal; none where the requests have no such kind."""
        count = self._count(learned, self.recipe.training.bake.anchors)
        general = [request for request in self.requests if request.kind in IMPERSONAL]
        if count and not general:
            self.reporter.warn("training.bake: all requests are personal, so nothing anchors the model to the base")
        dealt = self._deal(general, min(count, len(general)), "anchors")
        prompts = [self._alone(request.text, number) for number, request in enumerate(dealt)]
        with distilling.as_base(self.loaded.model):
            answers = self._answers(prompts, "anchors")
            rows = [(prompt, answer["tokens"]) for prompt, answer in zip(prompts, answers, strict=True) if answer["tokens"]]
            return self._examples([(prompt, tokens, prompt) for prompt, tokens in rows])

    def job(self, examples: list[Distilled]) -> Job:
        """The training over the examples."""
        settings, bake = self.recipe.training, self.recipe.training.bake
        own = settings.model_copy(update={"learning_rate": bake.learning_rate, "epochs": bake.epochs, "grids_per_step": 1})
        plan = memory_plan.choose(self.loaded.model, own, longest(list(examples)), backend.device().budget)
        backend.set_memory_limits(plan.activation_bytes, plan.peak_bytes)
        return Job(
            list(examples),
            [],
            own,
            self.folder / FOLDER,
            seed_for(self.recipe.seed, "bake"),
            budget=plan.token_budget if own.micro_batch_tokens == "auto" else own.micro_batch_tokens,
            pad=self.pad,
        )

    def _count(self, learned: int, each_step: int) -> int:
        return math.ceil(learned / self.recipe.training.bake.batch) * each_step

    def _deal(self, items: Sequence[T], count: int, purpose: str) -> list[T]:
        """`count` items in a seeded order; all come once before any comes twice."""
        dealt: list[T] = []
        rng = Random(seed_for(self.recipe.seed, f"bake {purpose}"))
        while len(dealt) < count:
            dealt += rng.sample(items, len(items))
        return dealt[:count]

    def _alone(self, request: str, number: int) -> list[int]:
        """The prompt of a request without the profile; every second one has no system message."""
        plain = messages(self.recipe.pairs, request, None)
        return encode(self.loaded.tokenizer, plain[-1:] if number % 2 == 0 else plain)

    def _answers(self, prompts: list[list[int]], purpose: str) -> list[dict[str, Any]]:
        """An answer to each prompt, by the model as it is now. Batches that bake/answers.jsonl has are not sampled again."""
        settings = self.recipe.pairs
        prefixes = Prefixes(self.loaded.model, prompts, [()] * len(prompts))  # the shared beginning runs once

        def compute(number: int, part: Sequence[list[int]]) -> list[dict[str, Any]]:
            started = prefixes.starts(part, [()] * len(part))
            key = key_for(self.recipe.seed, f"bake {purpose} {number * settings.batch}")
            fresh = sample(self.loaded.model, self.loaded.tokenizer, started, settings, key, lambda answer: bar.advance(1))
            return [asdict(answer) for answer in fresh]

        with self.reporter.track(f"sampling for the bake, {purpose}", total=len(prompts), unit="answers") as bar:
            bar.skip(min(len(prompts), self.journal.finished(purpose) * settings.batch))
            return self.journal.map(purpose, prompts, settings.batch, compute)

    def _examples(self, rows: Sequence[tuple[list[int], list[int], list[int]]]) -> list[Distilled]:
        """(prompt, answer, prompt of the student) of each. What all prompts of a batch begin with, such as a profile, runs once."""
        examples: list[Distilled] = []
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            pairs = [Pair("", TRAIN, 0, [], [], [], [], prompt, [answer], [0.0], [], []) for prompt, answer, _ in some]
            hidden = distilling.hidden_rows(self.loaded.model, batch_of(pairs, self.pad))
            examples += [self._example(pair, row[0], alone) for pair, row, (*_, alone) in zip(pairs, hidden, some, strict=True)]
        return examples

    def _example(self, pair: Pair, hidden: mx.array, alone: list[int]) -> Distilled:
        """The answer of `pair` after `alone`. Its goal and its reference are those of the model as it is, after its own prompt."""
        answer = pair.tokens[0]
        ids, logps = likeliest(OutputHead(self.loaded.model), hidden, mx.array(answer, dtype=mx.int32), KEPT)
        own = float(logps[ids == np.array(answer)[:, None]].sum(dtype=np.float64))
        kept = np.exp(logps)
        goal = Goal(ids, kept, np.maximum(1 - kept.sum(axis=1), 0))
        return Distilled.of(replace(pair, prompt_tokens=alone, reference=[own]), goal)
