"""Progress as plain lines on stderr: one a minute in a pipe, one an epoch for those who ask."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from kdbench.base.progress import Point, Work
from kdbench.watch import words

EVERY_S = 60.0


class Silence:
    """A view that does nothing; others say what they do."""

    def began(self, work: Work) -> None:
        pass

    def moved(self, work: Work) -> None:
        pass

    def ended(self, work: Work) -> None:
        pass

    def point(self, work: Work, point: Point) -> None:
        pass

    def said(self, line: str) -> None:
        pass

    def paused(self) -> None:
        pass


class Lines(Silence):
    """A line a minute on the work under way; work that is over before that says nothing.

    Args:
        every: seconds between two lines; clock: what they are counted on.
        write: takes a line.
    """

    def __init__(
        self,
        every: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self._every, self._clock, self._write = every, clock, write
        self._next = clock() + every

    def moved(self, work: Work) -> None:
        if self._clock() >= self._next:
            work.refresh()
            self._write(words.line(work))
            self._next = self._clock() + self._every


class Epochs(Silence):
    """A line an epoch, with each term of the loss."""

    def point(self, work: Work, point: Point) -> None:
        print(words.epoch(work, point), file=sys.stderr, flush=True)
