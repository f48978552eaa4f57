"""Costs as multiples of plain's, and which of them may be set against one another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from kdbench.base.fields import SEARCH
from kdbench.leaderboard.model.entries import Entry
from kdbench.specs.registry import PLAIN

Ratio = tuple[float, float, float]
LAUNCHED = 4
"""From so many times more operations than time on, both over plain's, a step's time is that of launching kernels."""


def step_ratio(row: Entry) -> Ratio | None:
    """Step-time ratio with its interval; plain is 1 by definition."""
    if row.method == PLAIN:
        return (1.0, 1.0, 1.0)
    return (row.result.cost["step_ratio"], row.result.cost["lo"], row.result.cost["hi"]) if row.result.cost else None


def over_plain(row: Entry, field: str) -> float | None:
    """A measured quantity over plain's of the same measurement."""
    own, plain = (row.result.cost[name] if row.result.cost else None for name in (field, f"plain_{field}"))
    return own / plain if own and plain else None


def launched(rows: Iterable[Entry]) -> tuple[Entry, float, float] | None:
    """The row whose operations grow most beyond its time, over plain's both; None where none does by :data:`LAUNCHED`.

    There a step is as long as its kernels take to be launched, and no ratio of times is one of larger nets.
    """
    found = []
    for row in rows:
        step, work = step_ratio(row), over_plain(row, "flops_fwd_bwd")
        if row.method != PLAIN and step is not None and work is not None and work >= LAUNCHED * step[0]:
            found.append((row, work, step[0]))
    own = [one for one in found if one[0].is_baseline]
    return max(own or found, key=lambda one: one[1] / one[2], default=None)


def loose(row: Entry) -> bool:
    """Whether the measurement of its cost did not converge."""
    return row.result.cost is not None and row.method != PLAIN and not row.result.cost["converged"]


def recipe_ratio(row: Entry) -> Ratio | None:
    """Recipe cost over plain's; a recipe of one stage has the interval of its step time, others have none."""
    value, step = row.recipe_ratio, step_ratio(row)
    if not value:
        return None
    if step is None or sum(line.ledger != SEARCH for line in row.result.stages) > 1:
        return (value, value, value)
    return (value, value * step[1] / step[0], value * step[2] / step[0])


def geometric(ratios: Sequence[Ratio | None]) -> Ratio | None:
    """Geometric mean of ratios with independent intervals combined on the log scale; None where one is missing."""
    known = [ratio for ratio in ratios if ratio is not None]
    if not known or len(known) < len(ratios):
        return None
    centre = sum(math.log(value) for value, _, _ in known) / len(known)
    below = math.sqrt(sum(math.log(value / lo) ** 2 for value, lo, _ in known)) / len(known)
    above = math.sqrt(sum(math.log(hi / value) ** 2 for value, _, hi in known)) / len(known)
    return math.exp(centre), math.exp(centre - below), math.exp(centre + above)


def most(values: Iterable[Any]) -> Any:
    """The value that most have, of equals the first in order; None of none."""
    votes = Counter(values)
    return max(sorted(votes), key=lambda value: votes[value]) if votes else None


def usual_processor(rows: Iterable[Entry]) -> str | None:
    """The processor that most rows' costs were measured on, beside plain's, of which ratios are made; None of none."""
    name: str | None = most(row.processor for row in rows if row.result.cost is not None and row.method != PLAIN)
    return name
