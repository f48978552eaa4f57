"""Progress on a terminal, drawn at once: which run of how many, the stage with its bar, loss, last score, time left.

Of runs that take turns each has its row.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kdbench.base.progress import Progress, View, Work
from kdbench.watch import words
from kdbench.watch.lines import Epochs, Lines, Silence

READ_S = 1.0
"""Seconds between two looks at the loss: each waits for the device."""
BAR = range(4, 31)
"""Columns that a bar may take."""


class Screen(Silence):
    """Draws the work under way at the foot of a terminal, for as long as there is some.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._works: list[Work] = []
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._read: dict[Work, float] = {}

    def began(self, work: Work) -> None:
        self._works.append(work)
        if self._live is None:
            # Lines of both streams stand above what is drawn; but results that go into a file go there.
            self._live = Live(
                console=self._console, get_renderable=self.drawn, transient=True, refresh_per_second=4,
                redirect_stdout=sys.stdout.isatty(),
            )  # fmt: skip
            self._live.start(refresh=True)

    def moved(self, work: Work) -> None:
        now = time.monotonic()
        if now - self._read.get(work, 0.0) >= READ_S:
            work.refresh()
            self._read[work] = now

    def ended(self, work: Work) -> None:
        self._works.remove(work)
        self._read.pop(work, None)
        if not self._works:
            self.paused()

    def paused(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def drawn(self) -> RenderableType:
        """What stands there now: of work whose length is known all, else what began last."""
        works = list(self._works)
        known = [work for work in works if work.total is not None]
        return Group(*self._lines(known or works[-1:])) if works else Text()

    def _lines(self, works: Sequence[Work]) -> Iterator[RenderableType]:
        work = works[-1]
        runs = work.runs
        left, every = work.runs_left()
        if runs.label:
            parts = [f"run {runs.number}/{runs.total}"] * (runs.total > 1) + [runs.label]
            if work.counts:
                parts += [f"ETA {words.clock(left)}" + (f", all {words.clock(every)}" if runs.total > 1 else "")]
            yield Text("  ".join(parts), no_wrap=True, overflow="ellipsis")
        if work.total is None:
            self._spinner.update(text=work.name)
            yield self._spinner
            return
        before = [f"{one.name}  {words.place(one)}" for one in works]
        after = ["  ".join(words.values(one.loss, one.score) + _left(one)) for one in works]
        room = min(BAR[-1], self._console.width - max(map(len, before)) - max(map(len, after)) - 5)
        rows = Table.grid(padding=(0, 2))
        for one, first, last in zip(works, before, after, strict=True):
            bar = [ProgressBar(total=max(1, one.total or 0), completed=one.done, width=room)] if room in BAR else []
            rows.add_row(Text(first), *bar, Text(last))
        yield rows


def _left(work: Work) -> list[str]:
    """The time left, where it does not stand above."""
    return [] if work.counts else [f"ETA {words.clock(work.left())}"]


def terminal(label: str = "", *, verbose: bool = False) -> Progress:
    """Progress on stderr: drawn where that is a terminal, else a line a minute.

    Args:
        label: stands before the name of each work.
        verbose: a line an epoch as well.
    """
    console = Console(stderr=True)
    views: list[View] = [Screen(console) if console.is_terminal else Lines()]
    return Progress([*views, Epochs()] if verbose else views, label)
