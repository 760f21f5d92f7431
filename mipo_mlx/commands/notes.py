"""`mipo-mlx notes RECIPE`: every passage of the notes before anything is sampled, to be kept or dropped by its owner.

    mipo-mlx notes RECIPE           # a page in the browser, served by this machine to this machine alone
    mipo-mlx notes RECIPE --text    # the same in the terminal

A click writes notes-choice.jsonl in the folder of the run. `pairs`, `train`, the dry run, `ask` and `chat` use it.
"""

import textwrap
from collections.abc import Iterator

from ..progress import Reporter
from ..run import Run
from ..sources.listing import Listing
from ..sources.own_choice import FILE, OwnChoice
from .notes_review import Review

WIDTH = 132  # columns of the terminal's text, at most


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
    return f"{count} choice{'s' * (count != 1)} in {run.folder / FILE}; `mipo-mlx train` uses them"
