"""What else could have been done, on the same requests: no context, context-aware decoding at two strengths, SFT.

    mipo-mlx eval RUN --baselines

SFT is fine-tuning on the chosen answers alone, with the same base, pairs, steps, adapters and learning rate. `prepare` trains it
before such an evaluation. Its adapters stay in the run's folder, so an evaluation that was killed or is repeated uses them again.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache

from ..engine import fast
from ..engine.prefix import body_of
from ..engine.sampling import nucleus_sampler, to_answer
from ..files import dump, read_json, sha256, write_json
from ..models import adapters
from ..models.journal import Journal
from ..progress import Reporter
from ..recipe import Pairs, Recipe
from ..records import Answer, key_for
from ..training import rounds, train
from . import answers
from .outcome import BaselineMeasure, Metrics
from .requests import Answered, Group, scored_by_base
from .workbench import Workbench

STRENGTHS = (0.5, 1.5)  # of context-aware decoding
NO_CONTEXT, AWARE, SFT = "no context", "context-aware decoding {:g}", "SFT on the chosen answers"
KEPT = ("identified_by_base", "identified_by_embedding", "pmi_per_token", "tokens", "perplexity", "parroting", "self_bleu")
FOLDER = "sft"


def bar_total(groups: Sequence[Group]) -> int:
    """How much the bar moves in `evaluate`."""
    return 2 * sum(group.wanted for group in groups) * len(names(groups))


def names(groups: Sequence[Group]) -> list[str]:
    """What is measured on these requests, in order. Pair files made elsewhere have no context to leave out or to contrast."""
    contrastable = all(group.plain is not None for group in groups)
    return [*([NO_CONTEXT, *(AWARE.format(s) for s in STRENGTHS)] if contrastable else []), SFT]


def finished(groups: Sequence[Group], journal: Journal) -> bool:
    """Whether the journal has all of it."""
    return bool(groups) and all(journal.finished(f"baseline {name} scored") == len(groups) for name in names(groups))


def evaluate(bench: Workbench, answered: Sequence[Answered]) -> dict[str, dict[str, BaselineMeasure]]:
    """{name: measures} of each baseline against the base with the context in its prompt, read by the base as `fresh` is."""
    if not answered:
        return {}
    groups = list({id(a.group): a.group for a in answered}.values())
    by_name = {}
    for name in names(groups):
        scored = scored_by_base(bench, f"baseline {name} scored", groups, _answers(bench, name, answered))
        against_base = _metrics(bench, [replace(a, tuned=s) for a, s in zip(answered, scored, strict=True)])
        to_tuned = _metrics(bench, [replace(a, base=s) for a, s in zip(answered, scored, strict=True)])
        by_name[name] = {
            key: BaselineMeasure(**vars(measure), to_tuned=to_tuned[key].change)
            for key, measure in against_base.items()
            if key.startswith(KEPT)
        }
    return by_name


def _metrics(bench: Workbench, answered: Sequence[Answered]) -> Metrics:
    return answers.evaluate(answered, bench.recipe.evaluation, bench.recipe.seed, bench.embedder).metrics


def _answers(bench: Workbench, name: str, answered: Sequence[Answered]) -> list[Answer]:
    """One answer a request by the baseline `name`, with the random numbers of the base's and the trained model's answers."""
    prompts = [a.group.prompts[a.own] for a in answered]
    plain = [a.group.plain or [] for a in answered]  # used only where all groups have one
    if name == SFT:
        with adapters.swapped(bench.model, bench.folder / FOLDER / "adapters"):
            return bench.sample(f"baseline {name}", prompts, "answers")
    with bench.as_side("base"):
        if name == NO_CONTEXT:
            return bench.sample(f"baseline {name}", plain, "answers")
        strength = next(s for s in STRENGTHS if AWARE.format(s) == name)

        def compute(chunk: int, part: Sequence[tuple[list[int], list[int]]]) -> list[Any]:
            key = key_for(bench.recipe.seed, f"evaluation answers {chunk}")
            contrast = Contrast(strength, bench.recipe.pairs, key)
            return [asdict(a) for a in contrast.sample(bench.model, bench.tokenizer, part)]

        jobs = list(zip(prompts, plain, strict=True))
        rows = bench.journal.map(f"baseline {name}", jobs, bench.recipe.pairs.batch, compute, bench.bar)
        return [Answer(**row) for row in rows]


@dataclass(frozen=True)
class Contrast:
    """Context-aware decoding (Shi et al. 2023): sample from softmax((1 + strength) log p(y|x,c) - strength log p(y|x))."""

    strength: float
    settings: Pairs
    key: int  # of the random numbers

    def sample(self, model: Any, tokenizer: Any, prompts: Sequence[tuple[list[int], list[int]]]) -> list[Answer]:
        """One answer to each (prompt with its context, prompt without), in one batch."""
        rows = [with_context for with_context, _ in prompts] + [without for _, without in prompts]
        longest = max(map(len, rows))
        padding = [longest - len(row) for row in rows]
        cache = [BatchKVCache(padding) for _ in model.layers]
        tokens = mx.array([[0] * pad + list(row) for pad, row in zip(padding, rows, strict=True)])
        sampler = nucleus_sampler(self.settings.temperature, self.settings.top_p)
        ends = tokenizer.eos_token_ids
        written: list[list[int]] = [[] for _ in prompts]
        finish = ["length"] * len(prompts)
        mx.random.seed(self.key)
        with fast(model):
            body_of(model)(tokens[:, :-1], cache=cache)  # without the output layer: its logits would be prompt x vocabulary numbers
            tokens = tokens[:, -1:]
            for _ in range(self.settings.max_tokens):
                logits = model(tokens, cache=cache)[:, -1].astype(mx.float32)
                logps = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
                mixed = (1 + self.strength) * logps[: len(prompts)] - self.strength * logps[len(prompts) :]
                drawn = sampler(mixed - mx.logsumexp(mixed, axis=-1, keepdims=True))
                for i, token in enumerate(drawn.tolist()):
                    if finish[i] == "length":
                        written[i].append(token)
                        finish[i] = "stop" if token in ends else "length"
                if all(reason == "stop" for reason in finish):
                    break
                tokens = mx.concatenate([drawn, drawn])[:, None]
        answers = [to_answer(tokenizer, own, reason) for own, reason in zip(written, finish, strict=True)]
        return [replace(answer, text=answer.text.strip()) for answer in answers]


def settings(recipe: Recipe, count: int) -> Recipe:
    """The run's recipe of `count` rounds with the other objective.

    The run's stop rules would end it at another step. What belongs to the contrast or to the look of the run (label smoothing, a
    second likelihood term, loggers) goes too.
    """
    changed = {
        "objective": "sft", "label_smoothing": 0.0, "nll_weight": 0.0, "max_kl": None, "min_chosen_reward": None, "loggers": [],
    }  # fmt: skip
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changed), "rounds": count})


def prepare(folder: Path, recipe: Recipe, reporter: Reporter) -> None:
    """Leave the baseline's adapters in `folder`/sft/adapters.

    Training continues where it stopped, and a finished one is kept. Other pairs or another recipe start it over. Of several rounds
    it trains on those that count in the run, one after another. The validation pairs pick the best weights of each round.
    """
    numbers = rounds.taken(folder)
    trained = settings(recipe, len(numbers))
    into = folder / FOLDER
    described = {"model": recipe.model, "seed": recipe.seed, "training": trained.training.model_dump(mode="json")}
    pairs = [sha256(path) for path in rounds.pair_files(folder)]
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
        target, before = f"adapters-{number}", into / f"adapters-{number - 1}"
        if number > 1 and not before.exists():  # of the rounds before an update the last may not count
            shutil.copytree(into / "adapters", before)
        train.fit(rounds.begin(folder, into, trained, number), into, trained, train.Watch(reporter), target)
        shutil.copytree(into / target, into / "adapters", dirs_exist_ok=True)  # whatever its contrastive validation loss says
        write_json(state, {"key": key, "rounds": number})
