"""All suites in one table, first on the board: what each tells of the board's question, in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdbench.leaderboard.draw.numbers import NONE
from kdbench.leaderboard.model.suites import SuiteBoard
from kdbench.leaderboard.tables.table import Words
from kdbench.leaderboard.views.suite import SuiteView, most_rows
from kdbench.stats import Told

NAMED = 4
"""Methods that a line names; of more the number is told."""


@dataclass(frozen=True)
class Glance:
    """A line a suite, which leads to the suite's section; ``numeric``: columns of counts."""

    rows: tuple[tuple[Words, ...], ...]
    heads: tuple[str, ...] = (
        "Suite", "Could be the best", "Beat plain trained as long", "Beat the baseline", "Ranked", "Training rows",
    )  # fmt: skip
    numeric: tuple[int, ...] = (2, 3, 4, 5)


def glance(suites: Sequence[SuiteView]) -> Glance:
    """The table of suites, in their order."""
    return Glance(tuple(_line(view.board, view.key) for view in suites))


def _line(suite: SuiteBoard, key: str) -> tuple[Words, ...]:
    rows = most_rows(suite.all_tasks)
    beaten = _beaten(suite.told.get("baseline", {}))
    return (
        (f"{suite.suite} on {suite.place}", f"index.html#{key}"),
        _leaders(suite),
        _beaten(suite.told.get("matched", {})),
        f"{beaten}, {suite.baseline}" if beaten != NONE else NONE,
        str(len(suite.rows)),
        f"{rows:,}" if rows else NONE,
    )


def _beaten(told: Mapping[str, Told]) -> str:
    """How many of those that were set against a reference are better, e.g. ``28 of 47``."""
    return f"{sum(word == 'better' for word in told.values())} of {len(told)}" if told else NONE


def _leaders(suite: SuiteBoard) -> str:
    """Who could be the best, in the order of the ranking."""
    if suite.ties is not None and not suite.ties.split and len(suite.rows) > 1:
        return "no two are told apart"
    names = [row.method for row in suite.rows if row.best]
    if len(names) <= NAMED:
        return ", ".join(names) or NONE
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
