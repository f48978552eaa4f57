"""What a sweep runs, what it leaves out and why, and in which order."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.data import status
from kdbench.specs import registry, tuned
from kdbench.specs.config import Match, run_config
from kdbench.specs.order import ConfigOrder, Mode
from kdbench.specs.registry import MethodRef
from kdbench.specs.task import TaskSpec
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.sweep.known import Known, Recorded
from kdbench.sweep.stale import Stale

RECORDED = "recorded"


@dataclass(frozen=True)
class Change:
    """Overrides that make cells of their own.

    Attributes:
        called: what lines call these cells, beside method and task.
    """

    overrides: tuple[str, ...] = ()
    called: str = ""


UNCHANGED = Change()


@dataclass(frozen=True)
class Asked:
    """What a sweep is asked for.

    Attributes:
        seeds: the task's own when None.
        overrides: of all runs; ``changes`` are further ones, each of a run of every method and task.
        retry: run again what failed before.
        track: names of the trackers that are told of each run.
        ruleset: by which values of hyper-parameters (:mod:`kdbench.specs.tuned`).
        together: seeds of a cell that take turns in one process.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    home: Home
    seeds: tuple[int, ...] | None = None
    overrides: tuple[str, ...] = ()
    changes: tuple[Change, ...] = (UNCHANGED,)
    smoke: bool = False
    overhead: Mode = "off"
    retry: bool = False
    data: Path | None = None
    track: tuple[str, ...] = ()
    ruleset: str = AS_PUBLISHED
    together: int = 1

    @functools.cached_property
    def stale(self) -> Stale:
        """Asked which records no longer answer."""
        return Stale(self.home, self.data)


@dataclass(frozen=True)
class Skip:
    """Seeds that are left out; ``failed`` tells that they have a record without a result."""

    seeds: tuple[int, ...]
    why: str
    failed: bool = False


@dataclass(frozen=True)
class PlannedCell:
    """One method on one task.

    Attributes:
        called: of its change (:class:`Change`).
        seeds: those to run.
        hours: of one run, None where nothing is known of it; ``guessed``: by other tasks.
        measured: its overhead is known already.
        applies: whether the method can run on the task, as far as that is known.
        order: what gives its configuration in another process, None where nothing runs.
        waits_for: the method whose cost must be measured first, for a compute-matched variant.
        stale: run ids of records that no longer answer for its runs.
    """

    method: str
    task: str
    spec_hash: str = ""
    seeds: tuple[int, ...] = ()
    skipped: tuple[Skip, ...] = ()
    hours: float | None = None
    guessed: bool = False
    measured: bool = False
    applies: bool = True
    order: ConfigOrder | None = None
    waits_for: str | None = None
    stale: frozenset[str] = frozenset()
    called: str = ""

    @property
    def told_apart(self) -> str:
        """The method, and what it is called beside it."""
        return ", ".join(filter(None, (self.method, self.called)))


@dataclass(frozen=True)
class Run:
    """One run of a sweep."""

    cell: PlannedCell
    seed: int

    @property
    def label(self) -> str:
        """What lines call it."""
        return f"{self.cell.told_apart} on {self.cell.task}, seed {self.seed}"

    def record(self, known: Known, before: frozenset[str] = frozenset()) -> Recorded | None:
        """What tells how it went: its own record, or one of its cell which says that the method does not apply.

        Args:
            before: run ids that do not count.
        """
        found = known.runs.get((self.cell.spec_hash, self.seed), [])
        out = before | self.cell.stale
        own = [entry for entry in found if entry.run_id not in out]
        better = [entry for entry in own if entry.status == "ok"]
        others = [entry for entry in known.inapplicable.get(self.cell.spec_hash, []) if entry.run_id not in out]
        return next(iter(better or own or others), None)


@dataclass(frozen=True)
class Wave:
    """Runs that may take place at the same time, ``jobs`` at once."""

    runs: tuple[Run, ...]
    overhead: dict[Run, Mode]
    jobs: int


def is_matched(method: str) -> bool:
    """Whether a method is a compute-matched variant, which is planned when the cost of its method is known."""
    return registry.method(method).match is not None


def plan(asked: Asked, known: Known, methods: Sequence[str]) -> list[PlannedCell]:
    """The cells of some of the methods on all tasks of a sweep; of no compute-matched variant.

    Raises:
        UserError: an override that does not fit a method or a task.
    """
    absent = {task: _absent(asked, task) for task in asked.tasks}
    return [
        _cell(asked, known, method, task, absent[task], change=change)
        for method in methods
        for task in asked.tasks
        for change in asked.changes
    ]


def matched_cell(asked: Asked, known: Known, method: str, task: str, match: Match) -> PlannedCell:
    """The cell of a compute-matched variant whose method's cost is known."""
    return _cell(asked, known, method, task, _absent(asked, task), match)


def left_out(asked: Asked, method: str, task: str, why: str) -> PlannedCell:
    """A cell of which nothing runs."""
    seeds = registry.task(task).seeds if asked.seeds is None else asked.seeds
    return PlannedCell(method, task, skipped=(Skip(tuple(seeds), why),))


def _cell(
    asked: Asked,
    known: Known,
    method: str,
    task: str,
    absent: str | None,
    match: Match | None = None,
    change: Change = UNCHANGED,
) -> PlannedCell:
    if absent is not None:
        return left_out(asked, method, task, absent)
    overrides = (*asked.overrides, *change.overrides)
    config = run_config(method, task, overrides, smoke=asked.smoke, match=match)
    try:
        found = tuned.find(config, asked.ruleset, asked.home)
    except UserError as error:
        return left_out(asked, method, task, str(error))
    if found is not None:
        config = run_config(method, task, overrides, smoke=asked.smoke, tuned=found)
    seeds = tuple(config.task.seeds) if asked.seeds is None else asked.seeds
    config.require_unseen(seeds)
    spec_hash, stale = config.spec_hash, asked.stale.of(config)
    cell = PlannedCell(
        method, task, spec_hash,
        hours=None if tuned.self_made(overrides) else known.hours_of(method, task),
        guessed=known.guessed(method, task),
        measured=asked.overhead != "off"
        and any(known.is_measured(one, asked.overhead, stale) for one in (spec_hash, config.step_hash)),
        order=ConfigOrder.of(config),
        stale=stale,
        called=change.called,
    )  # fmt: skip
    wanted: list[int] = []
    skipped: dict[tuple[str, bool], list[int]] = {}
    for seed in seeds:
        record = Run(cell, seed).record(known)
        if record is None or (asked.retry and _failed(record)):
            wanted.append(seed)
        else:
            skipped.setdefault((_told(record), _failed(record)), []).append(seed)
    reason = inapplicable(config.method.ref, config.task)
    if wanted and reason is not None:
        skipped.setdefault((f"does not apply: {reason}; one seed records that", False), []).extend(wanted[1:])
        del wanted[1:]
    if not wanted and reason is None and asked.overhead != "off" and not cell.measured:
        skipped = {
            (f"{why}, its cost unknown: one more seed measures it" if why == RECORDED else why, failed): found
            for (why, failed), found in skipped.items()
        }
    made = tuple(Skip(tuple(found), why, failed) for (why, failed), found in skipped.items() if found)
    hours = cell.hours if reason is None else 0.0  # nothing is trained
    return dataclasses.replace(cell, seeds=tuple(wanted), skipped=made, applies=reason is None, hours=hours)


def _failed(record: Recorded) -> bool:
    return record.status not in ("ok", "not_applicable")


def _told(record: Recorded) -> str:
    if record.status == "ok":
        return RECORDED
    if record.status == "not_applicable":
        return f"does not apply: {(record.error or '').removeprefix('NotApplicable: ')}"
    return f"recorded as {record.status}; --retry-failed runs it again"


def _absent(asked: Asked, task: str) -> str | None:
    found = status.status(registry.task(task), asked.data, asked.home.data)
    return f"no data: {found.about}" if found.state == "absent" else None


def inapplicable(method: MethodRef, task: TaskSpec) -> str | None:
    """Why a method cannot run on a task, as far as card, variant and task tell; the engine knows the rest."""
    if (reason := kinds.refusal(method.kinds, task.kind)) is not None:
        return reason
    if "teacher" in method.needs and not task.pair.teachers:
        return "it needs a teacher, the task has none"
    return None


def grouped(runs: Sequence[Run], together: int, alone: Collection[Run] = ()) -> list[tuple[Run, ...]]:
    """Runs by the process that does them, in order of the first of each: up to ``together`` of a cell.

    Args:
        alone: runs that have a process of their own.
    """
    found: list[list[Run]] = []
    open_groups: dict[PlannedCell, list[Run]] = {}
    for run in runs:
        group = open_groups.get(run.cell, [])
        if run in alone or not 0 < len(group) < together:
            found.append(group := [])
            if run not in alone:
                open_groups[run.cell] = group
        group.append(run)
    return list(map(tuple, found))


def waves(cells: Sequence[PlannedCell], overhead: Mode, jobs: int, alone: int) -> list[Wave]:
    """Runs in order: seeds first, then methods, then tasks, so that neighbours ask for different teachers.

    With several jobs at once, a cell's overhead is measured by its first seed when all the others are done.

    Args:
        alone: how many runs that measure may take place at once.
    """
    longest = max((len(cell.seeds) for cell in cells), default=0)
    runs = [Run(cell, cell.seeds[place]) for place in range(longest) for cell in cells if place < len(cell.seeds)]
    if overhead == "off" or jobs == 1:
        return [Wave(tuple(runs), dict.fromkeys(runs, overhead), jobs)] if runs else []
    measuring = [run for run in runs if not run.cell.measured and run.seed == run.cell.seeds[0]]
    others = [run for run in runs if run not in set(measuring)]
    modes: dict[Run, Mode] = {run: overhead if run.cell.measured else "off" for run in others}
    found = [Wave(tuple(others), modes, jobs), Wave(tuple(measuring), dict.fromkeys(measuring, overhead), alone)]
    return [wave for wave in found if wave.runs]
