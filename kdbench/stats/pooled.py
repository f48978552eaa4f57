"""The mean over tasks of paired differences: how far a method of a suite lies from the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdbench.base.errors import UserError
from kdbench.stats.cell import p_value, satterthwaite, t_quantile
from kdbench.stats.paired import PairedDelta


@dataclass(frozen=True)
class PooledDelta:
    """Mean over ``tasks`` tasks of the mean difference, in the suite's unit; no interval where a task has none.

    Attributes:
        p: two-sided p-value against 0, None without an interval.
    """

    mean: float
    lo: float | None
    hi: float | None
    tasks: int
    p: float | None = None

    @property
    def separated(self) -> bool:
        """Whether the interval excludes 0."""
        return self.lo is not None and self.hi is not None and (self.lo > 0 or self.hi < 0)


def pooled_delta(deltas: Sequence[PairedDelta], *, confidence: float = 0.95) -> PooledDelta:
    """sum(d_j) / N with variance sum(sd_j^2 / n_j) / N^2; degrees of freedom by Welch and Satterthwaite.

    Tasks weigh the same and are taken as independent. One task gives its own interval.

    Raises:
        UserError: no task.
    """
    if not deltas:
        raise UserError("a pooled difference needs at least one task")
    count, mean = len(deltas), float(np.mean([d.mean for d in deltas]))
    if any(d.sd is None or d.lo is None for d in deltas):
        return PooledDelta(mean, None, None, count)
    parts = np.array([(d.sd or 0.0) ** 2 / d.n for d in deltas])
    df = float(satterthwaite(parts, np.array([d.n - 1.0 for d in deltas])))
    error = math.sqrt(float(parts.sum())) / count
    half = t_quantile(df, confidence) * error
    return PooledDelta(mean, mean - half, mean + half, count, p_value(mean, error, df))
