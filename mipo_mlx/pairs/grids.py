"""The plan: which prompt meets which contexts. A grid is one prompt and K contexts of K different notes.

For `random_prompt` it is one context and K prompts. Prompts and contexts are dealt from shuffled decks, so both are used evenly.
With `pairs.fitting`, memory says which contexts a prompt fits. A share of the grids takes these first, and the others get what is
left, so contexts are still used evenly. Memory often finds more than the right passage. So in some grids all contexts stand behind
the same one or two distractors, and the rows still differ in the right passage alone.
The plan is a pure function of the recipe, the contexts and the prompts, so a resumed run makes the same one.
"""

import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, TypeVar

from ..errors import UserError
from ..recipe import Recipe
from ..records import HELDOUT, PERSONAL, TRAIN, VALIDATION, Context, DistractedContext, Prompt, seed_for

T = TypeVar("T")
SIDES = {TRAIN: "training", VALIDATION: "validation", HELDOUT: "held-out"}
UPDATE = 1_000_000  # ids of an update's grids begin at its round's number times this
ENOUGH = 8  # notes beside those of the grid
APART = 0.2  # of the training notes and prompts: what validation grids are made of, and training grids are not


@dataclass(frozen=True)
class Plan:
    """One grid to be sampled: row i asks `prompts[i]` with `contexts[i]` (None: no context)."""

    id: int
    split: str
    prompts: list[Prompt]
    contexts: list[Context | None]
    distractors: list[Context] = field(default_factory=list)  # before each context that the grid has

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def of_prompts(self) -> bool:
        """Whether this is one context and several prompts (`random_prompt`)."""
        return len({prompt.id for prompt in self.prompts}) > 1

    @property
    def shown(self) -> list[Context | None]:
        """The contexts of the rows, as the model is shown them."""
        return behind(self.contexts, self.distractors)


def behind(contexts: list[Context | None], distractors: list[Context]) -> list[Context | None]:
    """Each context behind these distractors."""
    if not distractors:
        return contexts
    texts = tuple(distractor.text for distractor in distractors)
    return [context and DistractedContext(**vars(context), distractors=texts) for context in contexts]


class Deck(Generic[T]):
    """Deals items in a seeded random order. A new shuffle begins when the last one is used up.

    So every item is dealt once before any twice. One exception: the items of a hand come from different notes. Where one note has
    many items, those wait while the few of other notes come around again.
    """

    def __init__(self, items: Sequence[T], rng: random.Random):
        self.items, self.rng = list(items), rng
        self.left: list[T] = []

    def deal(self, count: int, apart: Callable[[T], Hashable], without: Sequence[T] = ()) -> list[T]:
        """`count` items that all differ in `apart`, also from those of `without`; items passed over stay on top of the deck."""
        hand: list[T] = []
        passed: list[T] = []
        seen = set(map(apart, without))
        if not count:
            return hand
        for item in self._draw(passed):
            if apart(item) in seen:
                passed.append(item)
            else:
                seen.add(apart(item))
                hand.append(item)
            if len(hand) == count:
                break
        self.left.extend(reversed(passed))
        return hand

    def choose(self, count: int, apart: Callable[[T], Hashable], fit: Callable[[T], float]) -> list[T]:
        """As `deal`, but of the items that are still to come those that fit best."""
        hand: list[T] = []
        while True:
            for item in sorted(self.left, key=fit, reverse=True):
                if len(hand) < count and apart(item) not in {apart(other) for other in hand}:
                    hand.append(item)
                    self.left.remove(item)
            if len(hand) == count:
                return hand
            waiting = list(self.left)
            fresh = [item for item in self.items if item not in waiting]
            self.rng.shuffle(fresh)
            self.left = [*fresh, *waiting]  # the last shuffle's are still dealt first

    def _draw(self, passed: list[T]) -> Iterator[T]:
        while True:
            if not self.left:
                self.left = [item for item in self.items if item not in passed]  # these are still to come from the last shuffle
                self.rng.shuffle(self.left)
            yield self.left.pop()


class Mixed(Deck[Context]):
    """A deck of new contexts. Where a hand needs more notes than it has, `others` fill it."""

    def __init__(self, items: Sequence[Context], others: Sequence[Context], rng: random.Random):
        super().__init__(items, rng)
        self.others = Deck(others, rng)

    def deal(self, count: int, apart: Callable[[Context], Hashable], without: Sequence[Context] = ()) -> list[Context]:
        hand = super().deal(min(count, len(set(map(apart, self.items)))), apart, without)
        return [*hand, *self.others.deal(count - len(hand), apart, hand)]


Fit = Callable[[Prompt, Context], float]  # higher: the prompt fits the context better


def make_plan(
    recipe: Recipe, contexts: list[Context], prompts: list[Prompt], round_number: int = 1, fit: Fit | None = None
) -> list[Plan]:
    """The grids of all splits, training first, with ids from 0; none for validation where the notes do not suffice for it.

    A later round has fresh training grids alone, from the same notes and prompts, with ids that go on. Raises
    UserError where there is too little to fill a grid of the other splits.
    """
    grids = {TRAIN: recipe.pairs.grids, VALIDATION: recipe.pairs.validation_grids, HELDOUT: recipe.pairs.heldout_grids}
    prompts_of, contexts_of = by_split(recipe, contexts, prompts)
    for split in (TRAIN, HELDOUT):
        check(recipe, split, prompts_of[split], contexts_of[split], sum(context.split == split for context in contexts))
    set_apart(recipe, prompts_of, contexts_of)
    plans: list[Plan] = []
    for split, count in grids.items():
        if prompts_of[split]:
            numbers = range(len(plans), len(plans) + count)
            dealt = Dealt(f"plan {split}", split, prompts_of[split], contexts_of[split], fit)
            plans += _grids(recipe, dealt, numbers)
    if round_number > 1:
        first = len(plans) + (round_number - 2) * grids[TRAIN]
        numbers = range(first, first + grids[TRAIN])
        dealt = Dealt(f"plan {TRAIN} round {round_number}", TRAIN, prompts_of[TRAIN], contexts_of[TRAIN], fit)
        return _grids(recipe, dealt, numbers)
    return plans


@dataclass(frozen=True)
class Dealt:
    """What the grids of one side are dealt from."""

    purpose: str  # of the random choices
    split: str
    prompts: list[Prompt]
    contexts: list[Context]
    fit: Fit | None
    others: list[Context] = field(default_factory=list)  # that fill grids where `contexts` are of too few notes


@dataclass(frozen=True)
class News:
    """What an update of the notes is planned from."""

    first: list[Context]  # of the run's beginning, which its split belongs to
    later: list[Context]  # of the updates that were taken
    new: list[Context]
    stale: frozenset[str]  # ids of contexts that no longer stand in the notes


def plan_update(recipe: Recipe, news: News, prompts: list[Prompt], number: int) -> list[Plan]:
    """The training grids of an update: each new passage comes up about as often as one did in the run's beginning, at least once.

    Where too few notes are new, earlier training passages fill the grids. Passages of validation and held-out notes stay out.
    [] where there is nothing new to train on.
    """
    prompts_of, contexts_of = by_split(recipe, news.first, prompts)
    set_apart(recipe, prompts_of, contexts_of)
    away = {context.note for context in contexts_of[VALIDATION]}

    def trained(contexts: list[Context]) -> list[Context]:
        return [context for context in contexts if context.split == TRAIN and context.note not in away]

    new, old = distinct(trained(news.new)), distinct(trained([*contexts_of[TRAIN], *news.later]))
    size, (notes, _) = recipe.pairs.contexts_per_grid, needs(recipe)
    standing = [context for context in old if context.id not in news.stale]
    old = standing if len({context.note for context in standing}) >= notes else old
    if not new:
        return []
    often = max(1.0, recipe.pairs.grids * size / len(contexts_of[TRAIN]))
    a_grid = min(size, len({context.note for context in new}))
    count = max(recipe.training.grids_per_step, round(often * len(new) / a_grid), 1)
    dealt = Dealt(f"plan update {number}", TRAIN, prompts_of[TRAIN], new, None, old)
    return _grids(recipe, dealt, range(number * UPDATE, number * UPDATE + count))


def seeded(recipe: Recipe, purpose: str) -> random.Random:
    """Random choices of one purpose: they depend on the run's seed, not on what else was drawn."""
    return random.Random(seed_for(recipe.seed, purpose))


def prompt_share(recipe: Recipe) -> float:
    """The share of grids that are one context and K prompts."""
    weights = recipe.pairs.negatives
    return weights.get("random_prompt", 0.0) / sum(weights.values())


def by_split(
    recipe: Recipe, contexts: list[Context], prompts: list[Prompt]
) -> tuple[dict[str, list[Prompt]], dict[str, list[Context]]]:
    """The prompts of the kinds that the recipe deals, and the different contexts, of each split."""
    dealt = [prompt for prompt in prompts if prompt.kind in recipe.pairs.kinds]
    prompts_of = {split: [prompt for prompt in dealt if prompt.split == split] for split in SIDES}
    return prompts_of, {split: distinct([context for context in contexts if context.split == split]) for split in SIDES}


def set_apart(recipe: Recipe, prompts: dict[str, list[Prompt]], contexts: dict[str, list[Context]]) -> None:
    """Move some training notes and prompts to validation, which picks the checkpoint.

    Nothing moves where too few would be left, where validation has some already, or where the recipe wants none.
    """
    if not recipe.pairs.validation_grids or contexts[VALIDATION] or prompts[VALIDATION]:
        return
    rng = seeded(recipe, "validation")
    notes = sorted({context.note for context in contexts[TRAIN]})
    need_notes, need_prompts = needs(recipe)
    away = set(rng.sample(notes, min(len(notes), max(need_notes, round(APART * len(notes))))))
    chosen: set[str] = set()
    for kind in sorted(recipe.pairs.kinds):
        names = sorted(prompt.id for prompt in prompts[TRAIN] if prompt.kind == kind)
        some = rng.sample(names, min(len(names), max(need_prompts, round(APART * len(names)))))
        if len(names) - len(some) < need_prompts or len(some) < need_prompts:
            return
        chosen.update(some)
    if len(notes) - len(away) < need_notes:
        return
    contexts[VALIDATION] = [context for context in contexts[TRAIN] if context.note in away]
    contexts[TRAIN] = [context for context in contexts[TRAIN] if context.note not in away]
    prompts[VALIDATION] = [prompt for prompt in prompts[TRAIN] if prompt.id in chosen]
    prompts[TRAIN] = [prompt for prompt in prompts[TRAIN] if prompt.id not in chosen]


def needs(recipe: Recipe) -> tuple[int, int]:
    """How many notes and how many prompts one grid of each kind that the recipe mixes takes."""
    share, size = prompt_share(recipe), recipe.pairs.contexts_per_grid
    return size if share < 1 else 0, size if share > 0 else 1


def kinds_dealt(recipe: Recipe, count: int) -> list[str]:
    """The kind of request of each of `count` grids, in the recipe's shares, spread evenly."""
    shares = recipe.pairs.kinds
    total, number = sum(shares.values()), dict.fromkeys(shares, 0)
    dealt: list[str] = []
    for place in range(1, count + 1):
        kind = max(sorted(shares), key=lambda kind: shares[kind] / total * place - number[kind])
        number[kind] += 1
        dealt.append(kind)
    return dealt


def _grids(recipe: Recipe, dealt: Dealt, numbers: range) -> list[Plan]:
    """The grids of those numbers. Grids of one context and K prompts are spread evenly among the others, and fitting ones too."""
    rng, split, prompts, contexts, fit = seeded(recipe, dealt.purpose), dealt.split, dealt.prompts, dealt.contexts, dealt.fit
    fitting = recipe.pairs.fitting if fit else 0.0
    size, share, plain = recipe.pairs.contexts_per_grid, prompt_share(recipe), "no_context" in recipe.pairs.negatives
    decks: dict[str, Deck[Prompt]] = {kind: Deck([p for p in prompts if p.kind == kind], rng) for kind in recipe.pairs.kinds}
    context_deck: Deck[Context] = Mixed(contexts, dealt.others, rng) if dealt.others else Deck(contexts, rng)
    plans = []
    for place, (number, kind) in enumerate(zip(numbers, kinds_dealt(recipe, len(numbers)), strict=True)):
        rows: list[Context | None]
        prompt_deck = decks[kind]
        if int((place + 1) * share) > int(place * share):
            rows = [*context_deck.deal(1, lambda context: context.id)] if contexts else [None]
            plans.append(Plan(number, split, prompt_deck.deal(size, lambda prompt: prompt.text), rows * size))
        else:
            if fit and int((place + 1) * fitting) > int(place * fitting):
                [prompt] = prompt_deck.deal(1, lambda prompt: prompt.id)
                hand = context_deck.choose(size, lambda context: context.note, partial(fit, prompt))
            else:
                hand = context_deck.deal(size, lambda context: context.note)
                [prompt] = prompt_deck.deal(1, lambda prompt: prompt.id)
            rows = [*hand, *([None] if plain else [])]
            plans.append(Plan(number, split, [prompt] * len(rows), rows))
    return [replace(plan, distractors=_distractors(recipe, plan, [*contexts, *dealt.others])) for plan in plans]


def _distractors(recipe: Recipe, plan: Plan, contexts: list[Context]) -> list[Context]:
    """Passages of the same side, of notes that the grid does not have; fewer than drawn where there are not as many notes.

    `auto` takes none where fewer than ENOUGH such notes are left: the same few would stand in most grids.
    """
    rng = seeded(recipe, f"distractors {plan.id}")
    shares = recipe.distractors
    wanted = rng.choices(range(len(shares)), shares)[0]
    own = {context.note for context in plan.contexts if context}
    others: dict[str, list[Context]] = {}
    for context in contexts if own and wanted else []:
        if context.note not in own:
            others.setdefault(context.note, []).append(context)
    if recipe.pairs.distractors == "auto" and len(others) < ENOUGH:
        return []
    return [rng.choice(others[note]) for note in rng.sample(list(others), min(wanted, len(others)))]


def distinct(contexts: list[Context]) -> list[Context]:
    """The contexts without those whose words another one already has (a wrong context must differ from the right one)."""
    first: dict[str, Context] = {}
    for context in contexts:
        first.setdefault(" ".join(context.text.lower().split()), context)
    return list(first.values())


def check(recipe: Recipe, split: str, prompts: list[Prompt], contexts: list[Context], before: int) -> None:
    """Raise UserError where this split cannot fill one grid. `before`: how many contexts there were, equal ones counted."""
    side = SIDES[split]
    notes, (size, texts) = len({context.note for context in contexts}), needs(recipe)
    for kind in recipe.pairs.kinds:
        of_kind = [prompt for prompt in prompts if prompt.kind == kind]
        what = "prompts" if kind == PERSONAL else f"prompts of the kind {kind}"
        if 0 < len({prompt.text for prompt in of_kind}) < texts:
            raise UserError(
                f"{what}: {len(of_kind)} {side} ones, and a grid for random_prompt needs {texts} different ones "
                "(pairs.contexts_per_grid); add prompts or lower it"
            )
        if not of_kind and kind != PERSONAL:
            raise UserError(
                f"{what}: none on the {side} side; only the built-in bank has this kind: "
                f"write sources.prompts: builtin, or remove {kind} from pairs.kinds"
            )
        if not of_kind:
            raise UserError(
                f"{what}: none on the {side} side; add prompts to the file named in sources.prompts, "
                f"or change sources.heldout_prompts ({recipe.sources.heldout_prompts})"
            )
    if size and before >= size and len(contexts) < 2:
        raise UserError(f"contexts: the {before} {side} ones are all alike, none is wrong for another; add different notes")
    if notes < size:
        mend = f"lower pairs.contexts_per_grid to {notes} or add notes" if notes >= 2 else "add notes"
        raise UserError(
            f"contexts: {len(contexts)} different {side} ones from {notes} note{'s' * (notes != 1)}, and a grid needs "
            f"{size} from as many notes (pairs.contexts_per_grid); {mend}"
        )


def in_chunks(plans: list[Plan], batch: int) -> list[list[Plan]]:
    """Consecutive whole grids, as many as fit into `batch` sequences (at least one): what is sampled and saved together."""
    chunks: list[list[Plan]] = []
    for plan in plans:
        if chunks and sum(map(len, chunks[-1])) + len(plan) <= batch:
            chunks[-1].append(plan)
        else:
            chunks.append([plan])
    return chunks
