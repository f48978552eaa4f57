"""Progress: rich bars on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from kdbench.base import interrupt


class Progress:
    """Where long work shows how far it is.

    Args:
        console: draws bars when it is a terminal; None is silent.
        label: stands before each bar.
    """

    def __init__(self, console: Console | None, label: str = "") -> None:
        self.console, self.label = console, label

    @classmethod
    def silent(cls) -> Progress:
        """Shows nothing."""
        return cls(None)

    @classmethod
    def terminal(cls, label: str = "") -> Progress:
        """Draws on stderr when that is a terminal."""
        console = Console(stderr=True)
        return cls(console if console.is_terminal else None, label)

    def labelled(self, label: str) -> Progress:
        """The same place with another label."""
        return Progress(self.console, label)

    def say(self, line: str) -> None:
        """One line on stderr, terminal or not."""
        print(line, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, name: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
        """A bar of ``total`` steps; yields what advances it by one, and raises an interrupt that was swallowed."""
        if self.console is None:
            yield interrupt.check
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self.console, transient=True, refresh_per_second=4) as bars:
            task = bars.add_task(f"{self.label} {name}".strip(), total=total, completed=done)

            def advance() -> None:
                interrupt.check()
                bars.advance(task)

            yield advance
