"""The parent of a sweep: launch what has no record, wait for what still runs, look again, at most four times a wave.

A killed worker makes joblib drop what it had not done, and submitit stop waiting; so the records are asked, not what
launchers return.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.base.leftovers import tidy
from kdbench.devices import backends
from kdbench.index.store import Store
from kdbench.records.files import new_run_id
from kdbench.records.folder import of_task
from kdbench.records.provenance import PUBLISHED
from kdbench.results.matched import match_in, recorded
from kdbench.specs import registry
from kdbench.sweep import job, launch
from kdbench.sweep.devices import Where
from kdbench.sweep.known import Known
from kdbench.sweep.order import JobOrder, RunOrder
from kdbench.sweep.plan import (
    Asked,
    PlannedCell,
    Run,
    Wave,
    grouped,
    is_matched,
    left_out,
    matched_cell,
    plan,
    waves,
)
from kdbench.sweep.progress import SweepProgress

ROUNDS = 4
WAIT_S = 0.5


@dataclass
class Outcome:
    """How a sweep ended.

    Attributes:
        statuses: of the records of its runs, counted.
        refused: runs without a record because of something a user can put right, with the reason.
        left: runs without a record after all rounds.
        skipped: cells with seeds that were left out.
        logs: what the processes printed, where something is left to explain; else None.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    skipped: list[PlannedCell] = field(default_factory=list)
    logs: Path | None = None

    @property
    def failed(self) -> bool:
        """Whether a run has no result although its method applies, or had none before."""
        bad = set(self.statuses) - {"ok", "not_applicable"}
        return bool(bad or self.refused or self.left or any(s.failed for cell in self.skipped for s in cell.skipped))


class Sweep:
    """One call of ``kdbench sweep``.

    Args:
        asked: what to run.
        where: the devices, and the launcher.
        progress: shows how far it is.
    """

    def __init__(self, asked: Asked, where: Where, progress: SweepProgress) -> None:
        self.asked, self.where, self.progress = asked, where, progress
        self.outcome = Outcome()
        self.folder = asked.home.root / "sweeps" / new_run_id()[:12]
        self._next = 0
        self._died: set[Run] = set()
        self._alone: set[Run] = set()

    def known(self) -> Known:
        """What the index tells now."""
        return Known.read(self.asked.home, self.asked.smoke, self.where.belongs)

    def first(self) -> list[PlannedCell]:
        """The cells that need nothing measured before them."""
        return plan(self.asked, self.known(), [name for name in self.asked.methods if not is_matched(name)])

    def matched(self) -> list[PlannedCell]:
        """The compute-matched cells, as far as the cost of their methods is known now."""
        methods = list(filter(is_matched, self.asked.methods))
        if not methods:
            return []
        known = self.known()
        published = [folder for task in self.asked.tasks for folder in of_task(PUBLISHED, registry.task(task).name)]
        with recorded([self.asked.home.records, *published]) as store:
            return [self._matched(store, known, method, task) for method in methods for task in self.asked.tasks]

    def _matched(self, store: Store, known: Known, method: str, task: str) -> PlannedCell:
        """The cell of a compute-matched variant, by its method's cost on the sweep's own device class."""
        ref = registry.method(method)
        entries = [entry for entries in known.runs.values() for entry in entries]
        own = [entry for entry in entries if (entry.method, entry.task) == (ref.match, task)]
        classes = sorted({entry.device_class for entry in own if entry.status == "ok"})
        if not classes and any(entry.status == "not_applicable" for entry in own):
            return left_out(self.asked, method, task, f"{ref.match} does not apply")
        if len(classes) != 1:
            found = f"results on {', '.join(classes)}: name one --device" if classes else "no result here"
            return left_out(self.asked, method, task, f"needs the measured cost of {ref.match}, which has {found}")
        try:
            match = match_in(store, ref, task, registry.task(task).version, classes[0])
        except UserError as error:
            return left_out(self.asked, method, task, str(error))
        return matched_cell(self.asked, known, method, task, match)

    def run(self) -> Outcome:
        """Everything, to the end.

        Raises:
            UserError: the launcher cannot start.
        """
        self.folder.mkdir(parents=True)
        try:
            for planned in (self.first, self.matched):
                with self.progress.planning():
                    cells = planned()
                self._cells(cells)
        finally:
            job.close()
        tidy(self.asked.home)
        if self.outcome.refused or self.outcome.left or set(self.outcome.statuses) - {"ok", "not_applicable"}:
            self.outcome.logs = self.folder
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        return self.outcome

    def _cells(self, cells: list[PlannedCell]) -> None:
        self.outcome.skipped += [cell for cell in cells if cell.skipped]
        self.progress.expect(sum(len(cell.seeds) for cell in cells))
        end = launch.LAUNCHERS[self.where.launcher].end
        for number, wave in enumerate(waves(cells, self.asked.overhead, self.where.jobs, self.where.alone)):
            if number and end is not None:
                end()  # idle processes hold memory of their cards, and no cost is measured beside another process
            self._wave(wave)

    def _wave(self, wave: Wave) -> None:
        known = self.known()
        before = frozenset(  # records of earlier failures are no answer when these are to be tried again
            entry.run_id
            for run in wave.runs
            for entry in known.runs.get((run.cell.spec_hash, run.seed), [])
            if self.asked.retry and entry.status != "ok"
        )
        todo = self._settle(list(wave.runs), known, before)
        problem = None
        for _ in range(ROUNDS):
            if not todo:
                return
            problem = self._round(wave, todo)
            todo = self._settle(todo, self.known(), before)
        if problem is not None and not any(self.folder.glob(job.state_file(Path(), "*").name)):
            line = str(problem).splitlines()[0]
            raise UserError(f"--launcher {self.where.launcher} started no run: {line}; its logs are in {self.folder}")
        for run in todo:
            self.outcome.left.append(run.label)
            self.progress.ended(run, f"{run.label}: no record after {ROUNDS} attempts")

    def _settle(self, runs: list[Run], known: Known, before: frozenset[str]) -> list[Run]:
        """Counts the runs that have an answer; returns the others."""
        left = []
        for run in runs:
            record = run.record(known, before)
            if record is not None:
                self.outcome.statuses[record.status] += 1
                self.progress.ended(run, f"{run.label}: {record.status.replace('_', ' ')}")
            elif run.label not in self.outcome.refused:
                left.append(run)
        return left

    def _round(self, wave: Wave, runs: list[Run]) -> launch.LaunchFailed | None:
        """Launches runs once and takes in how they ended; what the launcher complained of."""
        where = self.where
        launcher = launch.LAUNCHERS[where.launcher]
        groups = grouped(runs, self.asked.together, self._alone)
        size = launcher.batch * wave.jobs if launcher.batch else launcher.limit or len(groups)
        limit = None if where.timeout is None else where.timeout * max(map(len, groups))
        options = launch.options(where.launcher, wave.jobs, limit, where.launcher_options)
        numbers: dict[int, Run] = {}
        problem = None
        for start in range(0, len(groups), size):
            jobs: list[int] = []
            batch: dict[int, Run] = {}
            for group in groups[start : start + size]:
                jobs.append(self._next)
                batch |= {self._next + place: run for place, run in enumerate(group)}
                self._order(self._next, group, wave)
                self._next += len(group)
            numbers |= batch
            try:
                with self.progress.following(self.folder, batch):
                    launch.launch(where.launcher, options, self.folder, jobs)
            except launch.LaunchFailed as error:
                problem = error
        self._wait(numbers)
        several = {run for group in groups for run in group if len(group) > 1}
        for number, run in numbers.items():
            end = job.ended(self.folder, number)
            if end is not None and end.outcome == "refused":
                self.outcome.refused[run.label] = end.line
            elif end is not None and end.outcome == "died" and run not in several:
                self._died.add(run)
        self._alone |= several  # where one has no record, another may have kept it from that
        return problem

    def _order(self, number: int, runs: Sequence[Run], wave: Wave) -> None:
        """Writes what a job is to do with runs of a cell, whose numbers begin with its own."""
        asked, here, cell = self.asked, self.where.here, runs[0].cell
        assert cell.order is not None
        order = JobOrder(
            run=RunOrder(
                config=cell.order, seeds=tuple(run.seed for run in runs), overhead=wave.overhead[runs[0]],
                retry=asked.retry, home=asked.home.root, data=asked.data, track=asked.track,
            ),
            devices=self.where.devices,
            slots=wave.jobs if here else 0,
            share=wave.jobs if here else 1,
            most_threads=_threads_allowed(),
            visible={name: os.environ.get(name) for name in backends.visibility()} if here else {},
            timeout=self.where.timeout,
            last=runs[0] in self._died,
            parent=os.getpid(),
        )  # fmt: skip
        write_atomic(job.order_file(self.folder, number), order.text())

    def _wait(self, numbers: dict[int, Run]) -> None:
        """Waits until none of these runs is under way, in this sweep's processes or another's."""
        for number in numbers:
            end = job.ended(self.folder, number)
            if end is not None and end.outcome != "busy":
                continue
            key = (job.read(job.state_file(self.folder, number)) or {}).get("key")
            while key is not None and _held(self.asked.home.runs / f"{key}.lock"):
                time.sleep(WAIT_S)


def _held(path: Path) -> bool:
    """Whether a process holds a lock."""
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _threads_allowed() -> int | None:
    """The most threads a process shall have by the user's word."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) else None
