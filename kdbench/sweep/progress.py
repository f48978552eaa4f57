"""Shows how far a sweep is: a live table on a terminal; in a pipe a line a finished run, and one a minute."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from kdbench.sweep import job
from kdbench.sweep.plan import Run
from kdbench.watch import words
from kdbench.watch.lines import EVERY_S

LOOK_S = 0.5


class SweepProgress:
    """Follows the files that jobs write.

    Args:
        screen: draws the table when it is a terminal; None shows nothing at all.
        every: seconds between two lines in a pipe; clock: what they are counted on.
    """

    def __init__(
        self, screen: Console | None, every: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen, self._every, self._clock = screen, every, clock
        self._next = clock() + every
        self._total = 0
        self._told: set[Run] = set()
        self._began = time.time()

    @classmethod
    def stderr(cls) -> SweepProgress:
        """On standard error."""
        return cls(Console(stderr=True, highlight=False))

    def expect(self, runs: int) -> None:
        """More runs to come."""
        self._total += runs

    def ended(self, run: Run, line: str) -> None:
        """Tells of a finished run, once."""
        if run in self._told:
            return
        self._told.add(run)
        if self._screen is None:
            return
        if self._screen.is_terminal:
            self._screen.print(escape(line))
        else:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Shows that it is found out what is to run."""
        if self._screen is None or not self._screen.is_terminal:
            yield
            return
        with self._screen.status("looking up what is recorded and what is to run"):
            yield

    @contextmanager
    def following(self, folder: Path, jobs: dict[int, Run]) -> Iterator[None]:
        """Shows these jobs for as long as the block lasts."""
        over = threading.Event()
        thread = threading.Thread(target=self._follow, args=(folder, jobs, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _follow(self, folder: Path, jobs: dict[int, Run], over: threading.Event) -> None:
        open_jobs = dict(jobs)
        live = None
        if self._screen is not None and self._screen.is_terminal:
            live = Live(self._table(folder, {}), console=self._screen, auto_refresh=False, transient=True)
            live.start()
        try:
            last = False
            while not last:
                last = over.wait(LOOK_S)
                for number, run in list(open_jobs.items()):
                    end = job.ended(folder, number)
                    if end is None:
                        continue
                    del open_jobs[number]
                    if end.outcome == "recorded":
                        self.ended(run, ": ".join(filter(None, (run.cell.called, end.line))))
                    elif end.outcome == "refused":
                        self.ended(run, f"{run.label}: {end.line}")
                if live is not None:
                    live.update(self._table(folder, open_jobs), refresh=True)
                elif self._screen is not None and self._clock() >= self._next:
                    print(self.line(_running(folder, open_jobs)), file=sys.stderr, flush=True)
                    self._next = self._clock() + self._every
        finally:
            if live is not None:
                live.stop()

    def line(self, running: Mapping[Run, Mapping[str, Any]]) -> str:
        """How far all is, and the run that has been under way for longest, by the states of those under way."""
        line = self._sum(running)
        if not running:
            return line
        run, state = min(running.items(), key=lambda item: item[1]["since"])
        left = f"ETA {words.clock(state.get('left'))}"
        parts = [state.get("stage", ""), state.get("place", ""), *words.values(state.get("loss"), state.get("score"))]
        return f"{line}; {run.label}: {', '.join([*filter(None, parts), left])}"

    def _sum(self, running: Mapping[Run, Mapping[str, Any]]) -> str:
        done, seconds = len(self._told), time.time() - self._began
        left = seconds * (self._total - done) / done if done else None
        return (
            f"{done}/{self._total} runs done, {len(running)} running, {words.clock(seconds)}, ETA {words.clock(left)}"
        )

    def _table(self, folder: Path, jobs: dict[int, Run]) -> Group:
        running = _running(folder, jobs)
        made = Table(box=None, pad_edge=False)
        several = len({state["device"] for state in running.values()}) > 1
        for column in ("method", "task", "seed", *["device"] * several, "stage", "epoch", "loss", "score", "ETA"):
            words_of = column in ("method", "task", "stage")
            made.add_column(column, justify="left" if words_of else "right", no_wrap=not words_of, overflow="fold")
        for run, state in running.items():
            loss, score = state.get("loss"), state.get("score")
            made.add_row(
                escape(run.cell.told_apart), escape(run.cell.task), str(run.seed), *[state["device"]] * several,
                escape(state.get("stage", "")), state.get("place", ""), "" if loss is None else f"{loss:.4g}",
                "" if score is None else f"{score[1]:.2f}", words.clock(state.get("left")),
            )  # fmt: skip
        return Group(self._sum(running), made)


def _running(folder: Path, jobs: Mapping[int, Run]) -> dict[Run, dict[str, Any]]:
    """The runs under way, each with its state."""
    return {run: state for n, run in jobs.items() if (state := job.read(job.state_file(folder, n))) is not None}
