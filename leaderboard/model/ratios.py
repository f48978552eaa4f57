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


def step_ratio(row: Entry) -> Ratio | None:
    """Step-time ratio with its interval; plain is 1 by definition."""
    if row.method == PLAIN:
        return (1.0, 1.0, 1.0)
    return (row.result.cost["step_ratio"], row.result.cost["lo"], row.result.cost["hi"]) if row.result.cost else None


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
