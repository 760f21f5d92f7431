"""The sources stage: the recipe's notes and requests become contexts.jsonl, prompts.jsonl and sources.json.

The same seed gives the same files.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json, write_json, write_records
from ..progress import Reporter
from ..recipe import Recipe
from ..records import HELDOUT, TRAIN, Context, Prompt
from .bank import load_prompts
from .canaries import plant
from .changes import hashes
from .chunks import CountTokens, cut
from .dedupe import drop_duplicates
from .gather import named, read_notes
from .note import Passage, Tally
from .split import split


def run(folder: Path, recipe: Recipe, reporter: Reporter) -> dict[str, Any]:
    """Read, clean, cut and split the notes; sources.json is written last and marks the stage as done."""
    report = folder / "sources.json"
    if report.exists() and all((folder / name).exists() for name in ("contexts.jsonl", "prompts.jsonl")):
        return read_json(report)
    if recipe.pairs.file:  # a run from a file of pairs needs neither contexts nor requests
        for name in ("contexts.jsonl", "prompts.jsonl"):
            write_records(folder / name, [])
        write_json(report, {"pairs": recipe.pairs.file})
        return read_json(report)
    from ..models.load import load_tokenizer
    from ..models.prompts import encode_text

    tokenizer = load_tokenizer(recipe.model)
    contexts, prompts, row = collect(recipe, lambda text: len(encode_text(tokenizer, text)), reporter)
    write_records(folder / "contexts.jsonl", contexts)
    write_records(folder / "prompts.jsonl", prompts)
    row["hashes"] = hashes(recipe.sources)
    write_json(report, row)
    first, *others = summary(row)
    reporter.conclude(f"  {first}")
    for line in others:
        reporter.say(f"  {line}")
    return row


def collect(recipe: Recipe, count_tokens: CountTokens, reporter: Reporter) -> tuple[list[Context], list[Prompt], dict[str, Any]]:
    """(contexts, requests, the content of sources.json). Raises UserError where there are too few of either."""
    sources, tally = recipe.sources, Tally()
    count_tokens = lru_cache(4096)(count_tokens)  # a passage is measured as a section, as a piece and as a whole
    prompts = load_prompts(sources, recipe.seed, tally)
    if not named(sources) and set(recipe.pairs.negatives) == {"random_prompt"}:
        return [], prompts, _row(recipe, tally, [], prompts)  # answers differ by request alone, so no context is needed
    notes = read_notes(sources, tally, reporter)
    passages: list[Passage] = []
    for note in notes:
        passages += cut(note, count_tokens, sources.context_tokens, sources.min_tokens, tally)
    passages = drop_duplicates(passages, sources.near_duplicate, tally)
    if not passages:
        raise UserError(f"{named(sources)}: {_nothing(tally)}")
    if len(passages) == 1 and tally.dropped["duplicate"] + tally.dropped["near-duplicate"]:
        every = f"the {tally.passages} passages"
        raise UserError(f"{named(sources)}: {every} are all alike, so none can be a wrong context for another; add others")
    grid = recipe.pairs.contexts_per_grid
    contexts = split(passages, recipe.seed, sources.heldout_contexts, sources.max_contexts, grid, tally)
    contexts = plant(contexts, recipe.seed, sources.canaries, count_tokens)
    return contexts, prompts, _row(recipe, tally, contexts, prompts)


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
            "prompts": sum(prompt.split == side for prompt in prompts),
        }
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
        lines.append(f"and {len(files['skipped']) - 5} more, all named in sources.json")
    alone = [f"{count:,} {what}" for what, count in sorted(files["left_alone"].items(), key=lambda item: -item[1])]
    if alone:
        lines.append(f"left alone: {', '.join(alone[:6])}{' and others, all named in sources.json' if len(alone) > 6 else ''}")
    if row["canaries"]:
        lines.append(f"{row['canaries']} canaries planted in training contexts of this run")
    if row["redacted"]:
        lines.append("redacted: " + ", ".join(f"{count} {kind}" for kind, count in row["redacted"].items()))
    return lines
