"""Shows how far a sweep is: a live table on a terminal, a line a finished run in a pipe."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from kdbench.sweep import job
from kdbench.sweep.plan import Run

LOOK_S = 0.5


class SweepProgress:
    """Follows the files that jobs write.

    Args:
        screen: draws the table when it is a terminal; None shows nothing at all.
    """

    def __init__(self, screen: Console | None) -> None:
        self._screen = screen
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
                    if end.outcome in ("recorded", "refused"):
                        self.ended(run, end.line if end.outcome == "recorded" else f"{run.label}: {end.line}")
                if live is not None:
                    live.update(self._table(folder, open_jobs), refresh=True)
        finally:
            if live is not None:
                live.stop()

    def _table(self, folder: Path, jobs: dict[int, Run]) -> Group:
        running = {run: state for n, run in jobs.items() if (state := job.read(job.state_file(folder, n))) is not None}
        made = Table(box=None, pad_edge=False)
        for column in ("method", "task", "seed", "device", "seconds"):
            made.add_column(column, justify="right" if column in ("seed", "seconds") else "left")
        for run, state in running.items():
            seconds = f"{time.time() - state['since']:.0f}"
            made.add_row(escape(run.cell.method), escape(run.cell.task), str(run.seed), state["device"], seconds)
        done, minutes = len(self._told), (time.time() - self._began) / 60
        line = f"{done} of {self._total} runs done, {len(running)} running, {minutes:.1f} min"
        if done:
            line += f", about {minutes * (self._total - done) / done:.1f} min to go"
        return Group(line, made)
