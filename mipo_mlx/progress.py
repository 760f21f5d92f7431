"""What long work shows: a bar with rate and time left on a terminal, plain lines in a log, nothing with --quiet."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LOG_EVERY = 10.0  # seconds between plain lines in a log
BAR, NOTE = 24, 28  # columns on a terminal: of the bar, and of a note

Beneath = Callable[[int, bool], list[str]]  # width of the terminal, whether it knows Unicode -> lines to draw below a bar


def duration(seconds: float) -> str:
    """75 -> '1:15', 4000 -> '1:06:40'."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Bar:
    """One piece of work of known length; `advance` is cheap enough to call for every step."""

    def __init__(self, label: str, total: float, unit: str, emit) -> None:
        self.label, self.total, self.unit, self._emit = label, total, unit, emit
        self.done, self.begin, self.note = 0.0, time.monotonic(), ""
        self.skipped = 0.0

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        self._emit(self)

    def skip(self, amount: float) -> None:
        """Count work that an earlier, interrupted command did: it moves the bar, not the rate."""
        self.done += amount
        self.skipped += amount
        self._emit(self)

    def text(self) -> str:
        return self.figures() + (f"  {self.note}" if self.note else "")

    def figures(self) -> str:
        """How far it is; how fast and how long still, as soon as this command has done a part of it."""
        elapsed = max(time.monotonic() - self.begin, 1e-9)
        far, fresh = f"{self.done:,.0f}/{self.total:,.0f} {self.unit}", self.done - self.skipped
        if fresh <= 0:
            return far
        rate = fresh / elapsed
        ending = f", {duration((self.total - self.done) / rate)} left" if self.done < self.total else f" in {duration(elapsed)}"
        return f"{far}, {rate:,.3g} {self.unit}/s{ending}"


class Reporter:
    """Where a stage speaks. On a terminal: rich bars; elsewhere: plain lines, at most one each LOG_EVERY seconds."""

    def __init__(self, quiet: bool = False, stream=None) -> None:
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self.terminal = not quiet and self.stream.isatty()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=self.stream, flush=True)

    def warn(self, text: str) -> None:
        """A warning is short, rare and shown even with --quiet."""
        print(f"warning: {text}", file=self.stream, flush=True)

    @contextmanager
    def track(self, label: str, total: float, unit: str = "steps", beneath: Beneath | None = None) -> Iterator[Bar]:
        """Show the progress of `total` units of work; on a terminal with the lines of `beneath` below it."""
        if self.terminal:
            with _rich_bar(label, total, unit, beneath) as bar:
                yield bar
            return
        last = time.monotonic()

        def line(bar: Bar) -> None:
            nonlocal last
            if time.monotonic() - last >= LOG_EVERY and bar.done < bar.total:
                last = time.monotonic()
                self.say(f"  {label}: {bar.text()}")

        bar = Bar(label, total, unit, line)
        yield bar
        if bar.done:
            self.say(f"  {label}: {bar.text()}")


@contextmanager
def _rich_bar(label: str, total: float, unit: str, beneath: Beneath | None) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Drawn(Progress):
        def get_renderables(self) -> Iterator[Any]:
            yield from super().get_renderables()
            if beneath:
                lines = beneath(console.width, not console.options.ascii_only)
                yield from (Text(line, no_wrap=True) for line in lines)

    console = Console(stderr=True)
    # The label and the figures come first: what does not fit beside them goes, the note before the bar.
    figures = f"{total:,.0f}/{total:,.0f} {unit}, 99.9 {unit}/s, 59:59 left"
    room = console.width - len(f"  {label} {figures}")
    shown = Bar.text if room > BAR + NOTE else Bar.figures
    bars = (BarColumn(BAR),) if room > BAR else ()
    name = TextColumn("  {task.description}", table_column=Column(no_wrap=True, min_width=len(label) + 2))
    columns = (name, *bars, TextColumn("{task.fields[text]}"))
    with Drawn(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task(label, total=total, text="")
        bar = Bar(label, total, unit, lambda b: progress.update(task, completed=b.done, text=shown(b)))
        yield bar
