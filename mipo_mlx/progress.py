"""What long work shows: stages, lines and bars on a terminal, one line a stage in a log, only warnings with --quiet."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from .errors import printable

LOG_EVERY = 10.0  # seconds between the lines of a bar in a log, outside of a stage
# A first answer takes as long as the whole batch beside it, so an early estimate is many times too long. Time left is shown after
# EARLY seconds and SHARE of the work; a long night has one after LATE seconds.
EARLY, SHARE, LATE = 20.0, 0.05, 300.0
BAR, NOTE = 24, 28  # columns on a terminal: of the bar, and of a note

Beneath = Callable[[int, bool], list[str]]  # width of the terminal, whether it knows Unicode -> lines to draw below a bar


def duration(seconds: float) -> str:
    """75 -> '1:15', 4000 -> '1:06:40'."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def shortened(text: str, width: int) -> str:
    """The beginning of a text on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 4]} ..."


class Bar:
    """One piece of work of known length; `advance` is cheap enough to call for every step."""

    def __init__(self, label: str, total: float, unit: str, emit: "Callable[[Bar], None]") -> None:
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
        """The work that is done. Rate and time left follow when they can be estimated, rate and time taken at the end."""
        elapsed = max(time.monotonic() - self.begin, 1e-9)
        count, here = f"{self.done:,.0f}/{self.total:,.0f} {self.unit}", self.done - self.skipped
        rate = here / elapsed
        if here <= 0:
            return count
        if self.done >= self.total:
            return f"{count}, {rate:,.3g} {self.unit}/s in {duration(elapsed)}"
        share = here / (self.total - self.skipped)
        if elapsed < EARLY or (share < SHARE and elapsed < LATE):
            return count
        return f"{count}, {rate:,.3g} {self.unit}/s, {duration((self.total - self.done) / rate)} left"


class Reporter:
    """Where a stage speaks. A terminal shows every line and rich bars, a log one line a stage, --quiet only warnings."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.quiet = quiet
        self.stream = stream or sys.stderr
        self.terminal = not quiet and self.stream.isatty()
        self._title: str | None = None  # of the present stage, in a log
        self._conclusions: list[str] = []
        self._open = False  # the title is written, and its line has no end yet

    def say(self, text: str) -> None:
        """A detail: the lines of a stage are not shown in a log."""
        if not self.quiet and self._title is None:
            print(printable(text), file=self.stream, flush=True)

    def conclude(self, text: str) -> None:
        """What a stage comes to, in one line: shown everywhere, in a log on the line of the stage."""
        self._conclusions.append(printable(text.strip()))
        self.say(text)

    def warn(self, text: str) -> None:
        """A warning is short, rare and shown even with --quiet."""
        self._end_line()
        print(f"warning: {printable(text)}", file=self.stream, flush=True)

    @contextmanager
    def stage(self, title: str, earlier: float = 0) -> Iterator[None]:
        """One stage: its title, its lines and its time. earlier: seconds that interrupted commands spent on it."""
        begin, title = time.monotonic(), printable(title)
        self._conclusions = []
        if self.quiet or self.terminal:
            self.say(title)
        else:
            self._title, self._open = title, True
            print(title, end="", file=self.stream, flush=True)  # visible while the stage works
        try:
            yield
        except BaseException:
            self._end_line()
            self._title = None
            raise
        seconds = time.monotonic() - begin
        took = duration(seconds) + (f", {duration(earlier + seconds)} in all" if earlier else "")
        if self._title is None:
            self.say(f"  took {took}")
        else:
            rest = f": {'; '.join([*self._conclusions, took])}"
            print(rest if self._open else title + rest, file=self.stream, flush=True)
            self._title, self._open = None, False

    def _end_line(self) -> None:
        if self._open:
            print(file=self.stream, flush=True)
        self._open = False

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
    # The label and the figures come first: on a narrow terminal the note goes first, then the bar.
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
