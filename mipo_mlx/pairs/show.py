"""Pairs side by side in the terminal, with their PMI: `mipo-mlx pairs RUN --show`."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import UserError, printable
from ..files import read_json, read_records, rounds
from ..records import Pair
from .overview import pmi_of


def show(folder: Path, count: int = 8, console: Console | None = None) -> None:
    """Print `count` pairs of all rounds, spread evenly over them, the least informative first, and the summaries.

    Raises UserError where the run has no pairs yet.
    """
    files = rounds(Path(folder), "pairs.jsonl")
    pairs = [pair for path in files for pair in read_records(path, Pair)]
    if not pairs:
        raise UserError(f"{files[0]}: no pairs yet; run: mipo-mlx pairs RECIPE")
    console = console or Console()
    ordered = sorted(pairs, key=lambda pair: (min((pmi for _, pmi in pmi_of(pair)), default=0.0), pair.id))
    count = min(count, len(ordered))
    for i in range(count):
        console.print(table(ordered[i * (len(ordered) - 1) // max(1, count - 1)]))
    for number, path in enumerate(rounds(Path(folder), "pairs.json"), 1):
        if path.exists():
            console.print(shown((f"round {number}\n" if number > 1 else "") + describe(read_json(path))))


def shown(text: str, style: str = "") -> Text:
    """Rich passes on what steers a terminal."""
    return Text(printable(text), style=style)


def table(pair: Pair) -> Table:
    """One pair: the prompt above, the chosen answer at the left, every rejected one with its PMI at the right."""
    where = f"{pair.source}:{pair.line}" if pair.source else pair.context_id or ""
    if pair.distractor_ids:
        where += f", behind {' and '.join(pair.distractor_ids)}"
    drawn = Table(title=shown(f"{pair.id} ({pair.split}) {where}"), title_justify="left", expand=True, show_lines=True)
    drawn.add_column(shown(f"chosen, {len(pair.tokens[0])} tokens, {pair.reference[0]:.1f} nats"), ratio=1)
    drawn.add_column("rejected", ratio=1)
    prompt = "\n".join(f"{message['role']}: {message['content']}" for message in pair.prompt)
    drawn.add_row(shown(prompt, style="dim"), shown("the same", style="dim"))
    known = dict(pmi_of(pair))
    for number, (text, kind) in enumerate(zip(pair.negatives, pair.kinds, strict=True)):
        label = kind
        if number in known:
            label += f", PMI {known[number]:+.2f} nats ({known[number] / len(pair.tokens[0]):+.3f} a token)"
        drawn.add_row(shown(pair.chosen[0]["content"] if number == 0 else ""), shown(label + "\n", style="bold") + shown(text))
    return drawn


def describe(summary: dict[str, Any]) -> str:
    lines = []
    for split, kept in summary["pairs"].items():
        if not kept and not summary["dropped"][split]:
            continue  # later rounds sample training pairs only
        lost = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"][split].items())
        lines.append(f"{split}: {kept} pairs" + (f"; dropped {lost}" if lost else ""))
        grids = summary["grids"][split]
        if sum(grids["behind"][1:]):
            one, two = grids["behind"][1:]
            lines.append(f"  of {grids['grids']} grids {one} stand behind one passage of another note, {two} behind two")
        lines += [
            f"  {kind}: mean PMI {pmi['mean']:+.2f} nats, {pmi['mean_per_token']:+.3f} a token, {pmi['negatives']} negatives"
            for kind, pmi in summary["pmi"][split].items()
        ]
    if summary.get("said_back"):
        lines.append(f"{summary['said_back']} pairs reject their own passage, said back")
    return "\n".join(lines)
