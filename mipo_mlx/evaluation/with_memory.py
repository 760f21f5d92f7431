"""Asked as `chat` and `ask` are asked: memory finds the passages, over all notes of the run (`use.memory` in eval.json).

Requests about held-out passages are written by rule (about_notes.py). The bare base answers each. The base and the trained model
answer with what memory finds. The trained model also answers with the right passage given by hand, and the base with the profile
where there is one. The judge compares answers with the passage that the request was written from. So a passage that memory did not
find counts against the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..memory.contexts import profile_of, read_contexts
from ..memory.retrieve import Match, Memory
from ..models.prompts import PromptBuilder, encode
from ..recipe import Recipe
from ..records import Answer, Context, Prompt
from . import pairwise
from .about_notes import STRANGERS, about_notes
from .outcome import Remembered, Retrieval, Scene
from .requests import Group, heldout_of
from .statistics import Estimate, too_few
from .workbench import Side, Workbench

SCENES = 3  # everyday requests for the opening of the report
DEPTHS = (1, 3, 10)  # places among which the right passage is looked for
OTHERS = 3  # passages of other notes that the right one is compared with
WAYS = {
    "memory": ("base", "tuned"),
    "alone": ("bare", "tuned"),
    "profile": ("profile", "tuned"),
    "by_hand": ("by_hand", "tuned"),
    "retrieval": ("bare", "base"),
}


@dataclass(frozen=True)
class Request:
    """A request, and what memory finds for it."""

    id: str
    text: str
    matches: tuple[Match, ...]  # best first
    context: Context | None = None  # the passage that it was written from; None: an everyday request


@dataclass(frozen=True)
class Requests:
    """What is asked with memory: everyday requests for the report, and those about held-out passages, which are compared."""

    memory: Memory
    everyday: list[Request]
    about: list[Request]

    @property
    def all(self) -> list[Request]:
        return [*self.everyday, *self.about]


Framed = tuple[list[int], tuple[Match, ...]]  # a prompt with what memory finds, and the passages in it


def requests_of(folder: Path, recipe: Recipe, memory: Memory | None, ask: PromptBuilder) -> Requests | None:
    """The requests, `evaluation.use` about held-out passages at most; None where there is no memory, or none of these."""
    if memory is None or not recipe.evaluation.use:
        return None
    about = [
        Request(one.id, one.text, tuple(memory.search(one.text, recipe.passages)), one.context)
        for one in about_notes(read_contexts(folder, recipe), recipe, recipe.evaluation.use)
        if ask.fits(Prompt(one.id, one.text, "", ""), one.context)
    ]
    if not about:
        return None
    everyday: list[Request] = []
    for request in heldout_of(folder, recipe)[1]:
        matches = tuple(memory.search(request.text, recipe.passages))
        if matches and all(matches[0].entry.note != other.matches[0].entry.note for other in everyday):
            everyday.append(Request(request.id, request.text, matches))
        if len(everyday) == SCENES:
            break
    return Requests(memory, everyday, about)


def bar_total(folder: Path, recipe: Recipe, requests: Requests | None, by_embedding: bool) -> int:
    """How much the bar moves in `evaluate`."""
    if requests is None:
        return 0
    about, kinds = len(requests.about), 4 + bool(profile_of(folder, recipe))
    return 3 * len(requests.all) + (kinds - 3) * about + pairwise.bar_total(about, kinds, by_embedding)


def framed(bench: Workbench, requests: Requests) -> list[Framed]:
    """Each request's prompt with what memory finds, and the passages that have room in it."""
    profile = profile_of(bench.folder, bench.recipe)
    return [_within_window(bench, request, profile) for request in requests.all]


def evaluate(
    bench: Workbench, requests: Requests, prompts: Sequence[Framed], replies: Mapping[Side, Sequence[Answer]]
) -> Remembered:
    """The comparisons, the retrieval by itself, and the scenes for the report. replies: the models' answers to the prompts."""
    profile = profile_of(bench.folder, bench.recipe)
    about, everyday = requests.about, len(requests.everyday)
    bare = [encode(bench.tokenizer, [{"role": "user", "content": request.text}]) for request in requests.all]
    by_hand = [bench.prompt(request.text, _right(request).text, profile) for request in about]
    here = bench.keyed_by(bench.recipe.evaluation.use, [prompt for prompt, _ in prompts], bare, by_hand)

    answers: dict[str, Sequence[Answer]] = {"tuned": replies["tuned"], "base": replies["base"]}
    of_about: dict[str, Sequence[Answer]] = {"by_hand": here.sample("use-by-hand-tuned", by_hand, "use about", begin=here.unpadded)}
    with here.as_side("base"):
        answers["bare"] = here.sample("use-bare-base", bare, "use")
        if profile:
            with_profile = [bench.prompt(request.text, None, profile) for request in about]
            of_about["profile"] = here.sample("use-about-profile-base", with_profile, "use about")
    of_about |= {name: given[everyday:] for name, given in answers.items()}
    groups = [_group(bench, about, place) for place in range(len(about))]
    ways = {way: names for way, names in WAYS.items() if set(names) <= set(of_about)}
    scenes = [
        Scene(request.text, [match.place for match in matches], [match.entry.text for match in matches], bare, base, tuned)
        for request, (_, matches), bare, base, tuned in zip(
            requests.all, prompts, *([answer.text for answer in answers[name]] for name in ("bare", "base", "tuned")), strict=True
        )
    ]
    return Remembered(
        requests=len(about),
        no_interval=too_few(_notes(about)),
        ways=pairwise.opinions(here, "use-memory scored", groups, of_about, ways),
        retrieval=_retrieval(bench, requests, [matches for _, matches in prompts[everyday:]]),
        scenes=scenes[:SCENES],
    )


def _within_window(bench: Workbench, request: Request, profile: str) -> Framed:
    """The prompt with what memory finds, and the passages that have room in it: those that fit least go first."""
    matches = request.matches
    while True:
        prompt = bench.prompt(request.text, [match.entry.text for match in reversed(matches)], profile)
        if not matches or bench.window is None or len(prompt) <= bench.window:
            return prompt, matches
        matches = matches[:-1]


def _retrieval(bench: Workbench, requests: Requests, given: Sequence[tuple[Match, ...]]) -> Retrieval:
    """How well memory finds the right passage. given: the passages that go with each request about one."""
    memory, about = requests.memory, requests.about
    over = bench.resampler(_notes(about))
    ranks = [memory.ranked(request.text, max(DEPTHS)) for request in about]

    def share(lists: Sequence[Sequence[Match]]) -> Estimate:
        hits = [any(_is(match, _right(request)) for match in matches) for request, matches in zip(about, lists, strict=True)]
        return over.mean([float(hit) for hit in hits], share=True)

    none = [float(not memory.search(stranger, 1)) for stranger in STRANGERS]
    return Retrieval(
        passages=memory.index.count(),
        recall={str(depth): share([matches[:depth] for matches in ranks]) for depth in DEPTHS},
        given=share(given),
        strangers=len(STRANGERS),
        none_given=bench.resampler([list(STRANGERS)]).mean(none, share=True),
    )


def _is(match: Match, context: Context) -> bool:
    """Whether memory's passage is this one, or has the same words."""
    entry = match.entry
    return (entry.source, entry.line) == (context.source, context.line) or entry.text.split() == context.text.split()


def _right(request: Request) -> Context:
    assert request.context is not None  # of a request about a passage
    return request.context


def _notes(about: Sequence[Request]) -> list[list[str]]:
    return [[_right(request).note for request in about]]


def _group(bench: Workbench, about: Sequence[Request], place: int) -> Group:
    """The right passage, which an embedder compares with those of the next notes, and the likelihood with none."""
    request, right = about[place], _right(about[place])
    others: dict[str, str] = {}
    for other in (*about[place + 1 :], *about[:place]):
        if _right(other).note != right.note and len(others) < OTHERS:
            others.setdefault(_right(other).note, _right(other).text)
    prompt = bench.prompt(request.text, right.text)
    return pairwise.group_of(bench, request.id, request.text, right.note, prompt, [right.text, *others.values()])
