"""`mipo-mlx notes RECIPE`: every passage of the notes before anything is sampled, to be kept or dropped by its owner.

    mipo-mlx notes RECIPE           # a page in the browser, served by this machine to this machine alone
    mipo-mlx notes RECIPE --text    # the same in the terminal

A click writes notes-choice.jsonl in the folder of the run. `pairs`, `train`, the dry run, `ask` and `chat` heed it.
"""

import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import make_private
from ..progress import Reporter
from ..run import Run
from ..sources.listing import Listing, listing
from ..sources.note import Tally
from ..sources.own_choice import OwnChoice, read_choice
from ..sources.rank import signs
from ..sources.read import pieces

WIDTH = 132  # columns of the terminal's text, at most


class Review:
    """The notes of a run's recipe, read once, and the owner's choice, which is written at every change.

    Raises UserError for a recipe without notes.
    """

    def __init__(self, run: Run, reporter: Reporter) -> None:
        from ..models.load import load_tokenizer
        from ..models.prompts import count_tokens

        if run.recipe.pairs.file:
            raise UserError(f"pairs.file: {run.recipe.pairs.file}: this recipe reads no notes, so there are none to choose from")
        tokenizer = load_tokenizer(run.recipe.model)
        self.run, self.tally = run, Tally()
        self.passages = pieces(run.recipe, lru_cache(4096)(lambda text: count_tokens(tokenizer, text)), reporter, self.tally)
        self.own = read_choice(run.folder, run.recipe.sources)

    def listing(self) -> Listing:
        return listing(self.run.recipe, self.passages, self.own, self.tally)

    def mark(self, keep: bool | None, place: str | None, number: int | None) -> None:
        """Keep (True), drop (False) or leave to the program (None) a file or folder, or the passage of this number."""
        self.own.mark(keep, place or "", None if number is None else self.passages[number])
        make_private(self.run.folder)
        self.own.write(self.run.folder)

    def marks(self) -> dict[str, Any]:
        """The owner's choice for the page: by place, and by the number of each passage that a mark is for."""
        listed = ((number, self.own.of_passage(passage)) for number, passage in enumerate(self.passages) if self.own.passages)
        return {"places": self.own.places, "passages": {number: keep for number, keep in listed if keep is not None}}

    def rows(self) -> list[dict[str, Any]]:
        """The passages for the page."""
        return [
            {
                "file": row.passage.source,
                "line": row.passage.line,
                "text": row.passage.text,
                "rank": round(sum(signs(row.passage.text, row.passage.source).values()), 2),
                "why": row.why,
                "state": row.state,
                "used": row.used,
            }
            for row in self.listing().rows
        ]


def as_text(listed: Listing, own: OwnChoice) -> str:
    """The page's content for a terminal."""
    return "\n".join(_lines(listed, own))


def _lines(listed: Listing, own: OwnChoice) -> Iterator[str]:
    used = sum(row.used for row in listed.rows)
    yield f"{len(listed.rows):,} passages: {used:,} used, {len(listed.rows) - used:,} left out"
    if listed.problem:
        yield f"too few: {listed.problem}"
    state = None
    for row in listed.best:
        if (heading := "used, the best first" if row.used else f"left out: {row.state}") != state:
            state = heading
            yield f"\n{state} ({sum(r.used if row.used else r.state == row.state for r in listed.rows):,})"
        kept = ", kept by you" if own.verdict(row.passage) else ""
        side = f", {row.state}" if row.used else ""
        yield f"\n{row.passage.rank:+.1f}  {row.place}{side}{kept}: {row.why}"
        yield textwrap.fill(" ".join(row.passage.text.split()), WIDTH, initial_indent="      ", subsequent_indent="      ")
    if listed.skipped:
        yield f"\nfiles that could not be read ({len(listed.skipped):,})"
        yield from (f"      {file}: {why}" for file, why in listed.skipped)
    for why, files in sorted(listed.alone.items(), key=lambda item: -len(item[1])):
        yield f"\nleft alone: {why} ({len(files):,})"
        yield from (f"      {file}" for file in files)


def show(run: Run, reporter: Reporter, text: bool, browser: bool) -> str:
    """Print the notes, or serve their page until its owner is done. Returns what there is to say."""
    review = Review(run, reporter)
    if text:
        return as_text(review.listing(), review.own)
    from .notes_server import serve

    serve(review, reporter, browser)
    count = len(review.own.rows())
    if not count:
        return "nothing is chosen by hand; `mipo-mlx train` takes the notes as they are ranked"
    return f"{count} choice{'s' * (count != 1)} in {_file(run)}; `mipo-mlx train` heeds them"


def _file(run: Run) -> Path:
    from ..sources.own_choice import FILE

    return run.folder / FILE
