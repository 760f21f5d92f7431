"""What else could have been done, on the same requests: the base without a context, context-aware decoding at two strengths, and
fine-tuning on the chosen answers alone (mipo_mlx/sft.py trains it).

    mipo-mlx eval RUN --baselines

~~~ The SFT baseline: the same base, pairs, steps, adapters and learning rate, but trained on the chosen answers alone; of several
rounds on those that the run's adapters are the result of, one after another, as the run was. Which weights of a round are its
result the validation pairs say, as in the run; whether a round counts is what the run found.

Training and evaluation do not know each other; this trains with the one what the other compares with, before
`mipo-mlx eval RUN --baselines`. The adapters stay in the run's folder, so an evaluation that was killed or is repeated finds them.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache

from ..engine import fast
from ..engine.prefix import body_of
from ..engine.sampling import nucleus_sampler, to_answer
from ..files import dump, read_json, sha256, write_json
from ..models import adapters
from ..models import prompts as chat
from ..progress import Bar, Reporter
from ..recipe import Pairs, Recipe
from ..training import train
from . import answers as measured
from . import requests
from .journal import Journal
from .requests import Asked, Group, Scored, score_group

STRENGTHS = (0.5, 1.5)  # of context-aware decoding
NO_CONTEXT, AWARE, SFT = "no context", "context-aware decoding {:g}", "SFT on the chosen answers"
KEPT = ("identified_by_base", "identified_by_embedding", "pmi_per_token", "tokens", "perplexity", "parroting", "self_bleu")


def work(groups: Sequence[Group]) -> int:
    """How much the bar moves in `evaluate`."""
    return 2 * sum(group.asked for group in groups) * (1 + (1 + len(STRENGTHS)) * contrastable(groups))


def contrastable(groups: Sequence[Group]) -> bool:
    """Whether every prompt is there without its context too; requests of pair files made elsewhere have none to leave out."""
    return all(group.plain is not None for group in groups)


def names(groups: Sequence[Group]) -> list[str]:
    """What is measured on these requests, in order."""
    without = [NO_CONTEXT, *(AWARE.format(s) for s in STRENGTHS)] if contrastable(groups) else []
    return [*without, SFT]


def finished(groups: Sequence[Group], journal: Journal) -> bool:
    """Whether the journal has all of it."""
    return bool(groups) and all(journal.finished(f"baseline {name} scored") == len(groups) for name in names(groups))


def evaluate(
    model: Any,
    tokenizer: Any,
    asked: Sequence[Asked],
    recipe: Recipe,
    journal: Journal,
    embedder: Any,
    sft: Path,
    bar: Bar | None = None,
) -> dict[str, Any]:
    """{name: measures} of each baseline ("after") against the base with the context in its prompt ("before"), and the paired change
    from it to the tuned model ("to_tuned"); read by the base, as the tuned model's answers are in `fresh`.

    `model` has adapters on it; sft: the folder of those that were trained on the chosen answers. Requests of pair files made
    elsewhere have no prompt without a context: nothing to leave out or to contrast, SFT alone.
    """
    if not asked:
        return {}
    groups = list({id(a.group): a.group for a in asked}.values())
    settings, pairs = recipe.evaluation, recipe.pairs

    def told(part: Sequence[Asked]) -> list[list[int]]:
        return [a.group.tokens[a.own] for a in part]

    def no_context(part: Sequence[Asked], seed: int) -> list[Any]:
        with adapters.disabled(model):
            return requests.answers(model, tokenizer, [a.group.plain for a in part], pairs, seed)

    def contrasted(strength: float, part: Sequence[Asked], seed: int) -> list[Any]:
        with adapters.disabled(model):
            with fast(model):
                return contrast(model, tokenizer, told(part), [a.group.plain for a in part], strength, pairs, seed)

    def fine_tuned(part: Sequence[Asked], seed: int) -> list[Any]:
        with adapters.swapped(model, sft):
            return requests.answers(model, tokenizer, told(part), pairs, seed)

    methods: dict[str, Callable[[Sequence[Asked], int], list[Any]]] = {NO_CONTEXT: no_context, SFT: fine_tuned}
    methods |= {AWARE.format(s): partial(contrasted, s) for s in STRENGTHS}
    found = {}
    for name in names(groups):
        method = methods[name]

        def sample(chunk: int, part: Sequence[Asked], method: Callable[..., list[Any]] = method) -> list[Any]:
            return method(part, requests.seed_of(recipe.seed, "eval", chunk))

        flat = iter(journal.map(f"baseline {name}", asked, pairs.batch, sample, bar))
        written = [[next(flat) for _ in range(group.asked)] for group in groups]

        def score(_: int, part: Sequence[int], written: list[list[dict[str, Any]]] = written) -> list[Any]:
            with adapters.disabled(model):
                return [score_group(model, groups[i], [answer["tokens"] for answer in written[i]]) for i in part]

        scores = journal.map(f"baseline {name} scored", range(len(groups)), 1, score, bar, lambda i: groups[i].asked)
        rows = iter([(w, s) for ws, ss in zip(written, scores, strict=True) for w, s in zip(ws, ss, strict=True)])
        answered = [Scored(**answer, base=score_of, tuned=score_of) for answer, score_of in rows]

        def measure(sides: list[Asked]) -> dict[str, Any]:
            return measured.evaluate(sides, settings.choices, settings.bootstrap, recipe.seed, embedder)["metrics"]

        against_base = measure([replace(a, tuned=s) for a, s in zip(asked, answered, strict=True)])
        to_tuned = measure([replace(a, base=s) for a, s in zip(asked, answered, strict=True)])
        found[name] = {
            key: {**value, "to_tuned": to_tuned[key]["change"]} for key, value in against_base.items() if key.startswith(KEPT)
        }
    return found


def contrast(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    plain: Sequence[list[int]],
    strength: float,
    settings: Pairs,
    seed: int,
) -> list[dict[str, Any]]:
    """Context-aware decoding (Shi et al. 2023): sample from softmax((1 + strength) log p(y|x,c) - strength log p(y|x)).

    prompts: with their contexts; plain: the same without; one answer each, in one batch, in the form of `sampling.answers`.
    """
    rows = [*prompts, *plain]
    longest = max(map(len, rows))
    padding = [longest - len(row) for row in rows]
    cache = [BatchKVCache(padding) for _ in model.layers]
    tokens = mx.array([[0] * pad + list(row) for pad, row in zip(padding, rows, strict=True)])
    body_of(model)(tokens[:, :-1], cache=cache)  # without the output layer, whose logits would be prompt x vocabulary numbers
    tokens = tokens[:, -1:]
    sampler = nucleus_sampler(settings.temperature, settings.top_p)
    ends = chat.end_of_turn(tokenizer)
    written: list[list[int]] = [[] for _ in prompts]
    finish = ["length"] * len(prompts)
    mx.random.seed(seed)
    for _ in range(settings.max_tokens):
        logits = model(tokens, cache=cache)[:, -1].astype(mx.float32)
        logps = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        mixed = (1 + strength) * logps[: len(prompts)] - strength * logps[len(prompts) :]
        drawn = sampler(mixed - mx.logsumexp(mixed, axis=-1, keepdims=True))
        for i, token in enumerate(drawn.tolist()):
            if finish[i] == "length":
                written[i].append(token)
                finish[i] = "stop" if token in ends else "length"
        if all(reason == "stop" for reason in finish):
            break
        tokens = mx.concatenate([drawn, drawn])[:, None]
    return [requests.row(to_answer(tokenizer, said, reason)) for said, reason in zip(written, finish, strict=True)]


FOLDER = "sft"


def settings(recipe: Recipe, count: int) -> Recipe:
    """The run's recipe of `count` rounds with the other objective. Stop rules would end it at another step than the run; what
    belongs to the contrast or to the look of the run (label smoothing, a second likelihood term, loggers) goes."""
    changed = {
        "objective": "sft", "label_smoothing": 0.0, "nll_weight": 0.0, "max_kl": None, "min_chosen_reward": None, "loggers": [],
    }  # fmt: skip
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changed), "rounds": count})


def prepare(folder: Path, recipe: Recipe, reporter: Reporter) -> None:
    """Leave the baseline's adapters in `folder`/sft/adapters; training continues where it stopped, and a finished one is kept.
    Other pairs or another recipe start it over."""
    from ..training.train import Watch

    numbers = train.kept(folder)
    trained = settings(recipe, len(numbers))
    into = folder / FOLDER
    described = {"model": recipe.model, "seed": recipe.seed, "training": trained.training.model_dump(mode="json")}
    pairs = [sha256(path) for path in train.pair_files(folder)]
    key = hashlib.sha256(dump({**described, "pairs": pairs}).encode()).hexdigest()
    state = into / "state.json"
    known = read_json(state) if state.exists() else {}
    if known.get("key") != key:
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        known = {"key": key, "rounds": 0}
        write_json(state, known)
    for number in numbers[known["rounds"] :]:
        around = f", round {number} of {len(numbers)}" if len(numbers) > 1 else ""
        reporter.say(f"  training the SFT baseline on the chosen answers{around}; it is kept")
        train.fit(folder, into, trained, Watch(reporter), number)
        if number > 1:  # this round counts, though its contrastive validation loss may say nothing of SFT
            shutil.copytree(into / f"adapters-{number}", into / "adapters", dirs_exist_ok=True)
        write_json(state, {"key": key, "rounds": number})
