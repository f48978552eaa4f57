"""What ``kdbench sweep`` prints: the plan, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.markup import escape

from kdbench.base.home import Home
from kdbench.specs import registry
from kdbench.sweep.plan import PlannedCell, is_matched
from kdbench.sweep.rounds import Outcome, Sweep
from kdbench.terminal import tables

GUESS = "~"
"""Before hours that go by other tasks."""


def dry_run(sweep: Sweep) -> list[Any]:
    """What a sweep would run and leave out, and about how long it would take."""
    first = sweep.first()
    cells = first + [_later(cell, first, sweep) for cell in sweep.matched()]
    made = tables.table("plan", "method", "task", "runs seeds", ">hours a run", "left out")
    for cell in cells:
        runs = ranges(cell.seeds) or "–"
        left = "; ".join(f"{ranges(skip.seeds)}: {skip.why}" for skip in cell.skipped)
        hours = GUESS * _is_guess(cell) + _hours(cell.hours) if cell.seeds else "–"
        made.add_row(escape(cell.method), escape(cell.task), runs, hours, escape(left))
    return [made, *_sums(cells, sweep)]


def _later(cell: PlannedCell, first: Sequence[PlannedCell], sweep: Sweep) -> PlannedCell:
    """A compute-matched cell as it will be when the sweep has measured its method."""
    match = registry.method(cell.method).match
    measures = sweep.asked.overhead != "off" and any(
        one.method == match and one.task == cell.task and one.seeds and one.applies and not one.measured
        for one in first
    )
    if cell.spec_hash or not measures:
        return cell
    (skip,) = cell.skipped
    return PlannedCell(cell.method, cell.task, seeds=skip.seeds, waits_for=match)


def _sums(cells: Sequence[PlannedCell], sweep: Sweep) -> Iterable[str]:
    runs = sum(len(cell.seeds) for cell in cells)
    left = sum(len(skip.seeds) for cell in cells for skip in cell.skipped)
    known = [cell for cell in cells if cell.hours is not None]
    hours = sum(len(cell.seeds) * (cell.hours or 0.0) for cell in known)
    unknown = runs - sum(len(cell.seeds) for cell in known)
    most = sweep.asked.together
    at_once = f"{sweep.where.jobs} at once" if most == 1 else f"{sweep.where.jobs} x {most} seeds of a cell at once"
    yield f"{runs} run{'s' * (runs != 1)}, {left} left out, {at_once} with {sweep.where.launcher}"
    if runs:
        spread = f"{_hours(hours)} h of training, {_hours(hours / sweep.where.jobs)} h with {sweep.where.jobs} at once"
        about = f"about {spread}" if hours or not unknown else "hours unknown: nothing measured here yet"
        yield about + (f"; {unknown} runs not counted, of unknown length" if hours and unknown else "")
    if any(map(_is_guess, cells)):
        yield f"{GUESS} goes by other tasks: what the method costs beside plain there, times plain here"
    if hours:
        yield "training of teachers that are not there yet and the measuring of costs come on top"
    if any(cell.waits_for for cell in cells):
        yield "compute-matched runs start when the cost of their method is measured"


def _is_guess(cell: PlannedCell) -> bool:
    return bool(cell.seeds and cell.guessed and cell.hours)


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else f"{hours:.2g}" if hours < 10 else f"{hours:,.0f}"


def ranges(seeds: Sequence[int]) -> str:
    """Seeds as people type them: ``0-2,5``."""
    found: list[list[int]] = []
    for seed in seeds:
        if found and found[-1][-1] == seed - 1:
            found[-1].append(seed)
        else:
            found.append([seed])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in found)


def ended(outcome: Outcome, home: Home) -> list[str]:
    """How a sweep ended, in a few lines."""
    lines = []
    counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in sorted(outcome.statuses.items()))
    left = sum(len(skip.seeds) for cell in outcome.skipped for skip in cell.skipped)
    lines.append(
        f"{outcome.statuses.total()} runs{': ' * bool(counts)}{counts}; {left} left out; records in {home.records}"
    )
    reasons: dict[str, int] = {}
    for cell in outcome.skipped:
        for skip in cell.skipped:
            why = f"{cell.method} on {cell.task}: {skip.why}" if skip.failed or is_matched(cell.method) else skip.why
            reasons[why] = reasons.get(why, 0) + len(skip.seeds)
    lines += [f"left out {count}: {why}" for why, count in reasons.items()]
    lines += [f"{label} has no record: {why}" for label, why in outcome.refused.items()]
    lines += [f"{label} has no record after all rounds; the same command tries again" for label in outcome.left]
    if outcome.logs is not None:
        lines.append(f"logs in {outcome.logs}")
    return [escape(line) for line in lines]
