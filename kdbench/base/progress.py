"""What long work tells of itself, and to whom. Nothing is drawn here: :mod:`kdbench.watch` does that."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

from kdbench.base import interrupt


@dataclass(frozen=True)
class Point:
    """Where training stands at the end of an epoch, or now and then in a stage that counts steps alone.

    Attributes:
        stage: its name.
        epoch: epochs done, of ``epochs``; None in a stage without.
        step: optimiser steps done in the stage.
        run_step: optimiser steps done in all stages so far.
        seconds: of training in this stage, without evaluation and checkpoints.
        lr: learning rate of the stage's first group.
        loss: mean of the total since the last point; ``terms``: that of each of its terms.
        scores: test metrics by name, empty where the network was not evaluated.
    """

    stage: str
    epoch: int | None
    epochs: int | None
    step: int
    run_step: int
    seconds: float
    lr: float
    loss: float
    terms: Mapping[str, float]
    scores: Mapping[str, float]


class Runs:
    """The runs of one command: which is under way, and how long the others trained.

    Attributes:
        told: lines that hold for all of them, said once.
    """

    def __init__(self) -> None:
        self.total, self.number, self.label = 0, 0, ""
        self.told: set[str] = set()
        self._spent: list[float] = []
        self._began: float | None = None
        self._trained = 0.0

    def begin(self, label: str, total: int) -> None:
        """The next run, of so many."""
        if self._trained:
            self._spent.append(self._trained)
        self.number, self.label, self.total = self.number + 1, label, total
        self._began, self._trained = None, 0.0

    def training(self, now: float) -> None:
        """The run under way trains at this moment, or did until now."""
        self._began = now if self._began is None else self._began
        self._trained = now - self._began

    def left(self, of_stage: float, now: float) -> tuple[float, float]:
        """Seconds left of the run under way and of all, by the runs before; by its own stage in the first.

        Args:
            of_stage: seconds left of the stage under way; what comes after it is not known in a first run.
        """
        gone = now - (now if self._began is None else self._began)
        usual = fmean(self._spent) if self._spent else gone + of_stage
        own = max(of_stage, usual - gone)
        return own, own + (self.total - self.number) * usual


@dataclass(eq=False)
class Work:
    """Something that takes a while, under way.

    Attributes:
        name: for people.
        total: steps, None where nobody knows; ``done`` of them.
        began: on ``time.monotonic``'s clock, with ``first`` steps done already.
        epochs: of a stage, None without; ``epoch_steps`` steps each.
        loss: mean of the total, as last read; ``read`` reads it anew, for which the host waits for the device.
        score: the last one, with its metric.
        runs: those of the command; ``counts`` is whether it is a stage of the run under way itself.
    """

    name: str
    total: int | None
    done: int
    runs: Runs
    counts: bool = False
    epochs: int | None = None
    epoch_steps: int = 1
    loss: float | None = None
    score: tuple[str, float] | None = None
    read: Callable[[], float] | None = None
    began: float = field(init=False)
    first: int = field(init=False)

    def __post_init__(self) -> None:
        self.began, self.first = time.monotonic(), self.done

    @property
    def epoch(self) -> int | None:
        """The epoch under way, from 1."""
        return None if self.epochs is None else min(self.done // self.epoch_steps + 1, self.epochs)

    def refresh(self) -> None:
        """Reads the loss."""
        if self.read is not None and self.done > self.first:
            self.loss = self.read()

    def left(self) -> float | None:
        """Seconds to its end at its own pace, None while that is not known."""
        if self.total is None or self.done <= self.first:
            return None
        return (self.total - self.done) * (time.monotonic() - self.began) / (self.done - self.first)

    def runs_left(self) -> tuple[float | None, float | None]:
        """Seconds to the end of its run, and of all runs; None where that is not known or there is one alone."""
        own = self.left()
        if own is None or not self.counts:
            return own, None
        run, every = self.runs.left(own, time.monotonic())
        return run, every if self.runs.total > 1 else None


class View(Protocol):
    """Follows long work. ``moved`` is called at every step and decides by the clock whether it has something to do."""

    def began(self, work: Work) -> None: ...

    def moved(self, work: Work) -> None: ...

    def ended(self, work: Work) -> None: ...

    def point(self, work: Work, point: Point) -> None: ...

    def said(self, line: str) -> None: ...

    def paused(self) -> None:
        """Something is measured now: no work of one's own until the next call of another kind."""
        ...


class Progress:
    """Where long work shows how far it is.

    Args:
        views: who follows; silent without.
        label: stands before the name of each work, which is not the run's own then.
        runs: those of the command.
    """

    def __init__(self, views: Sequence[View] = (), label: str = "", runs: Runs | None = None) -> None:
        self.views, self.label, self.runs = tuple(views), label, runs or Runs()

    @classmethod
    def silent(cls) -> Progress:
        """Shows nothing."""
        return cls()

    def labelled(self, label: str) -> Progress:
        """The same place with another label, for work that is not the run's own."""
        return Progress(self.views, label, self.runs)

    def with_view(self, view: View) -> Progress:
        """The same place with one more who follows."""
        return Progress((*self.views, view), self.label, self.runs)

    def say(self, line: str) -> None:
        """One line on stderr, terminal or not."""
        print(line, file=sys.stderr, flush=True)
        for view in self.views:
            view.said(line)

    def tell(self, line: str) -> None:
        """Says what holds for every run of the command, once."""
        if line not in self.runs.told:
            self.runs.told.add(line)
            self.say(line)

    def pause(self) -> None:
        """Nothing is drawn until the next work begins."""
        for view in self.views:
            view.paused()

    @contextmanager
    def bar(self, name: str, total: int | None, done: int = 0) -> Iterator[Callable[[], None]]:
        """A bar of ``total`` steps; yields what advances it by one, and raises an interrupt that was swallowed."""
        with self._followed(Work(f"{self.label} {name}".strip(), total, done, self.runs)) as work:
            yield lambda: self.step(work)

    @contextmanager
    def stage(self, name: str, total: int, done: int, epochs: int | None, epoch_steps: int) -> Iterator[Work]:
        """A stage of training; the caller calls :meth:`step` and :meth:`point`."""
        work = Work(f"{self.label} {name}".strip(), total, done, self.runs, not self.label, epochs, epoch_steps)
        with self._followed(work):
            if work.counts:
                self.runs.training(work.began)
            try:
                yield work
            finally:
                if work.counts:
                    self.runs.training(time.monotonic())

    @contextmanager
    def _followed(self, work: Work) -> Iterator[Work]:
        with ExitStack() as stack:
            for view in self.views:
                stack.callback(view.ended, work)
                view.began(work)
            yield work

    def step(self, work: Work) -> None:
        """One step more; raises an interrupt that was swallowed."""
        interrupt.check()
        work.done += 1
        for view in self.views:
            view.moved(work)

    def point(self, work: Work, point: Point) -> None:
        """A stage has come to a point."""
        work.loss = point.loss
        work.score = next(iter(point.scores.items()), work.score)
        for view in self.views:
            view.point(work, point)
