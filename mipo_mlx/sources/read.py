"""The sources stage: the recipe's notes and requests become contexts.jsonl, prompts.jsonl and sources.json.

The same seed gives the same files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json, write_json, write_records
from ..progress import Reporter
from ..recipe import Recipe
from ..records import HELDOUT, TRAIN, Context, Prompt
from . import renew
from .bank import load_prompts
from .canaries import plant
from .changes import kept
from .chunks import CountTokens, cut
from .dedupe import drop_duplicates
from .gather import named, read_notes
from .note import BROKEN, Passage, Tally
from .own_choice import OwnChoice, read_choice
from .rank import of_templates, ranked
from .split import split, telling_most

Order = Callable[[list[Passage], list[Prompt]], list[Passage]]  # passages with other ranks, by what a model makes of them


def run(folder: Path, recipe: Recipe, reporter: Reporter, round_number: int = 1) -> dict[str, Any]:
    """Read, clean, cut and split the notes; sources.json is written last and marks the stage as done.

    A later round is an update: it reads new and changed notes (`renew`).
    """
    if round_number > 1:
        return renew.run(folder, recipe, reporter, round_number)
    report = folder / "sources.json"
    if report.exists() and all((folder / name).exists() for name in ("contexts.jsonl", "prompts.jsonl")):
        return read_json(report)
    if recipe.pairs.file:  # a run from a file of pairs needs neither contexts nor requests
        for name in ("contexts.jsonl", "prompts.jsonl"):
            write_records(folder / name, [])
        write_json(report, {"pairs": recipe.pairs.file})
        return read_json(report)
    from ..models.load import load_tokenizer
    from ..models.prompts import count_tokens

    tokenizer = load_tokenizer(recipe.model)
    own = read_choice(folder, recipe.sources)
    order: Order | None = None
    if recipe.sources.rank == "model":
        from .weigh import by_model

        order = by_model(recipe, reporter)
    contexts, prompts, row = collect(recipe, lambda text: count_tokens(tokenizer, text), reporter, own, order)
    write_records(folder / "contexts.jsonl", contexts)
    write_records(folder / "prompts.jsonl", prompts)
    row["choice"] = own.digest()
    write_json(report, row)
    return row


def show(row: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Show what the content of sources.json comes to, and return it."""
    if "files" in row:  # not so where pairs come from a file
        first, *others = summary(row)
        reporter.conclude(f"  {first}")
        for line in others:
            reporter.say(f"  {line}")
    return row


def collect(
    recipe: Recipe, count_tokens: CountTokens, reporter: Reporter, own: OwnChoice | None = None, order: Order | None = None
) -> tuple[list[Context], list[Prompt], dict[str, Any]]:
    """(contexts, requests, the content of sources.json). own: what the owner keeps and drops; order: see `weigh`.

    Raises UserError where there are too few contexts or requests.
    """
    sources, tally = recipe.sources, Tally()
    prompts = load_prompts(sources, recipe.seed, tally)
    if not named(sources) and set(recipe.pairs.negatives) == {"random_prompt"}:
        return [], prompts, _row(recipe, tally, [], prompts)  # answers differ by request alone, so no context is needed
    passages = pieces(recipe, count_tokens, reporter, tally)
    contexts = choose(recipe, passages, own or OwnChoice(), tally, (lambda some: order(some, prompts)) if order else None)
    contexts = plant(contexts, recipe.seed, sources.canaries, count_tokens)
    return contexts, prompts, _row(recipe, tally, contexts, prompts)


def pieces(recipe: Recipe, count_tokens: CountTokens, reporter: Reporter, tally: Tally) -> list[Passage]:
    """Every passage of the recipe's notes with its rank, those that are no contexts included."""
    sources, passages = recipe.sources, list[Passage]()
    notes = read_notes(sources, tally, reporter)
    usual = of_templates(notes)
    with reporter.track("cutting notes", total=len(notes), unit="notes") as bar:
        for note in notes:
            passages += ranked(note, cut(note, count_tokens, sources.context_tokens, sources.min_tokens, tally), usual)
            bar.advance(1)
    return passages


def choose(
    recipe: Recipe,
    every: list[Passage],
    own: OwnChoice,
    tally: Tally,
    order: Callable[[list[Passage]], list[Passage]] | None = None,
) -> list[Context]:
    """The passages that become contexts, each on its side; the others are dropped under their reasons.

    A passage that the owner keeps comes before all others, and is kept whatever its form is.
    """
    sources = recipe.sources
    passages = drop_duplicates(list(own.applied(every, tally)), sources.near_duplicate, tally)
    if not passages:
        raise UserError(f"{named(sources)}: {_nothing(tally)}")
    if len(passages) == 1 and tally.dropped["duplicate"] + tally.dropped["near-duplicate"]:
        raise UserError(
            f"{named(sources)}: the {tally.passages} passages are all alike, so none can be a wrong context for another; add others"
        )
    grid = recipe.pairs.contexts_per_grid
    passages = telling_most(passages, sources.least_contexts, tally)
    passages = order(passages) if order else passages
    return split(passages, recipe.seed, sources.heldout_contexts, sources.max_contexts, grid, tally)


def _row(recipe: Recipe, tally: Tally, contexts: list[Context], prompts: list[Prompt]) -> dict[str, Any]:
    sources = recipe.sources
    bank = sources.prompt_dataset.name if sources.prompt_dataset else sources.prompts
    row = {"notes": named(sources), "prompts": bank} | tally.to_row()
    row["passages"]["kept"] = len(contexts)
    row["canaries"] = sources.canaries if contexts else 0
    for side in (TRAIN, HELDOUT):
        mine = [context for context in contexts if context.split == side]
        row[side] = {
            "contexts": len(mine),
            "notes": len({context.note for context in mine}),
            "tokens": sum(context.tokens for context in mine),
            "prompts": sum(prompt.split == side and prompt.kind in recipe.pairs.kinds for prompt in prompts),
        }
    row["hashes"] = kept(tally.hashes, sources)
    return row


def _nothing(tally: Tally) -> str:
    """The reason why no passage is left, in one line."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.dropped.items()) if count)
    if dropped:
        return f"none of the {tally.passages} passages can be used ({dropped}); add notes, or lower sources.min_tokens"
    if tally.skipped:
        first = tally.skipped[0]
        return f"none of the {len(tally.skipped) + tally.read} files can be read (first {first['file']}: {first['why']})"
    return f"the {tally.read} files have no text; add notes"


def summary(row: dict[str, Any]) -> list[str]:
    """The content of sources.json as lines for the terminal."""
    files, passages = row["files"], row["passages"]
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in passages["dropped"].items())
    lines = [
        f"{files['read']:,} files read, {len(files['skipped'])} skipped; {passages['all']:,} passages, "
        f"{passages['kept']:,} kept{f' (dropped: {dropped})' if dropped else ''}",
        "; ".join(
            f"{name}: {row[side]['contexts']} contexts of {row[side]['notes']} notes, {row[side]['prompts']} prompts"
            for side, name in ((TRAIN, "training and validation"), (HELDOUT, "held out"))
        ),
    ]
    return lines + left_out(row)


def left_out(row: dict[str, Any]) -> list[str]:
    """Lines on skipped files, files left alone, canaries and secrets."""
    files = row["files"]
    lines = [f"skipped {skip['file']}: {skip['why']}" for skip in files["skipped"][:5]]
    if len(files["skipped"]) > 5:
        lines.append(f"and {len(files['skipped']) - 5:,} more, named in sources.json")
    lines += [f"left out: {count:,} {what}" for what, count in row["removed"].items() if what.endswith(BROKEN)]
    alone = [f"{count:,} {what}" for what, count in sorted(files["left_alone"].items(), key=lambda item: -item[1])]
    if alone:
        lines.append(f"left alone: {', '.join(alone[:6])}{' and others, all named in sources.json' if len(alone) > 6 else ''}")
    if row["canaries"]:
        lines.append(f"{row['canaries']} canaries planted in training contexts of this run")
    if row["redacted"]:
        lines.append("redacted: " + ", ".join(f"{count} {kind}" for kind, count in row["redacted"].items()))
    return lines
