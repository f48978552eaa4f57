"""Scores beside a cell's own, of each class or on each test set from elsewhere, on the terminal and as JSON data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from kdbench.terminal.tables import difference, interval, table

if TYPE_CHECKING:
    from kdbench.results.beside import Beside
    from kdbench.results.cells import ResultRow

Found = Sequence[tuple["ResultRow", "list[Beside]"]]


def results(found: Found, what: str, where: str) -> list[Table]:
    """A table a task, device class and ruleset, a line a method and score.

    Args:
        what: has the scores, such as ``class``.
        where: they hold, for the title, such as ``of each class``.
    """
    made: dict[tuple[str, int, str, str], Table] = {}
    for row, own in found:
        key = (row.task, row.version, row.device_class, row.ruleset)
        if key not in made:
            head = f"{row.task}@v{row.version} on {row.device_class}: {row.metric} {where}, {row.unit}"
            made[key] = table(escape(head), "method", what, f">{row.metric}", ">n", f">Δ {row.baseline}")
        for one in own:
            made[key].add_row(
                escape(row.label), escape(one.name), interval(one.stat.mean, one.stat.lo, one.stat.hi),
                str(one.stat.n), difference(one.to_baseline),
            )  # fmt: skip
    return list(made.values())


def as_json(found: Found, what: str) -> list[dict[str, Any]]:
    """An object a method and score, which ``what`` names."""
    made = []
    for row, own in found:
        cell = {
            "method": row.method, "task": row.task, "task_version": row.version, "device_class": row.device_class,
            "ruleset": row.ruleset, "overrides": dict(row.overrides), "metric": row.metric, "unit": row.unit,
        }  # fmt: skip
        for one in own:
            sides = {what: one.name, "n": one.stat.n, "mean": one.stat.mean, "lo": one.stat.lo, "hi": one.stat.hi}
            delta = one.to_baseline
            gap = None if delta is None else {"n": delta.n, "mean": delta.mean, "lo": delta.lo, "hi": delta.hi}
            made.append({**cell, **sides, "to_baseline": gap})
    return made
