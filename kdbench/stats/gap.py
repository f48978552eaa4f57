"""Gap recovered: the part of the way from plain to teacher that a method's student went. Secondary, never ranked by.

g = (S - V) / (T - V) with S the student's, V the plain student's and T the teacher's score. The teacher's seed is
fixed by the task, so T is one number and its own noise is left out. A ratio of two noisy numbers means nothing where
the lower one is small, so it is shown only past three guards (:func:`gap_recovered`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdbench.base.errors import UserError
from kdbench.stats.cell import SeedScores, finite, no_spread, satterthwaite, t_quantile
from kdbench.stats.layout import Direction, sign

MIN_GAP = 1.0
"""Least teacher - plain, in metric points."""
MIN_ERRORS = 4.0
"""Least teacher - plain, in standard errors."""


@dataclass(frozen=True)
class Gap:
    """Gap recovered, or why it is not shown.

    Attributes:
        gain: student - plain, positive is better; summed over tasks for :func:`total_gap`.
        gap: teacher - plain, likewise; None without a teacher.
        value: gain / gap (1 = the whole gap, more is legal); None where a guard holds it back.
        lo, hi: ends of Fieller's 95 % interval; None with ``value``.
        reason: which guard, else "".
    """

    gain: float
    gap: float | None
    value: float | None
    lo: float | None
    hi: float | None
    reason: str = ""

    @property
    def text(self) -> str:
        """As a table prints it: "49 %", capped "<0 %" and ">150 %", or the reason."""
        if self.value is None:
            return self.reason
        if self.value < 0:
            return "<0 %"
        return ">150 %" if self.value > 1.5 else f"{100 * self.value:.0f} %"


def gap_recovered(
    student: SeedScores, plain: SeedScores, teacher: float | None, direction: Direction, *, min_gap: float = MIN_GAP
) -> Gap:
    """One task. Seed-paired, with Fieller's interval (exact for normal scores) at n - 1 degrees of freedom.

    Shown only where the 95 % t-interval of T - V excludes 0, T - V is at least 4 of its standard errors and at least
    ``min_gap`` points; T - V is turned so that a better teacher is positive.

    Raises:
        UserError: no seed in common, or a score that is not finite.
    """
    return total_gap([(student, plain, teacher)], direction, min_gap=min_gap)


def total_gap(
    tasks: Sequence[tuple[SeedScores, SeedScores, float | None]], direction: Direction, *, min_gap: float = MIN_GAP
) -> Gap:
    """Tasks of one metric together: sum of S - V over sum of T - V, so that a small gap weighs little.

    The guards and Fieller's interval are those of :func:`gap_recovered` on the sums; ``min_gap`` holds for the mean
    gap of a task. Degrees of freedom are Satterthwaite's for the variance of sum(S - V) - g sum(T - V).

    Args:
        tasks: (student, plain, teacher) of each task, all in one unit.
        direction: of that unit.
        min_gap: least mean T - V.

    Raises:
        UserError: no task, a task without a seed in common, or a score that is not finite.
    """
    if not tasks:
        raise UserError("gap recovered: at least one task is needed")
    turn = sign(direction)
    gains, gaps = [], []
    for student, plain, teacher in tasks:
        seeds = sorted(student.keys() & plain.keys())
        if not seeds:
            raise UserError(f"gap recovered: no seed in common, {sorted(student)} and {sorted(plain)}")
        s, v = finite((student[x] for x in seeds), "student"), finite((plain[x] for x in seeds), "plain")
        gains.append(turn * (s - v))
        if teacher is not None:
            gaps.append(turn * (finite([teacher], "teacher") - v))
    gain = float(sum(a.mean() for a in gains))
    if len(gaps) < len(gains):
        return Gap(gain, None, None, None, None, "no teacher")
    gap = float(sum(b.mean() for b in gaps))
    if any(len(b) < 2 for b in gaps):
        return Gap(gain, gap, None, None, None, "1 seed")
    if all(no_spread(b, float(np.abs(b).max())) for b in gaps):
        return Gap(gain, gap, None, None, None, "no spread over seeds")

    counts = np.array([len(b) for b in gaps], dtype=float)
    var_gain = sum(float(a.var(ddof=1)) / len(a) for a in gains)
    var_gap = sum(float(b.var(ddof=1)) / len(b) for b in gaps)
    cov = sum(float(np.cov(a, b)[0, 1]) / len(a) for a, b in zip(gains, gaps, strict=True))
    error = math.sqrt(var_gap)
    own = t_quantile(float(satterthwaite(np.array([b.var(ddof=1) for b in gaps]) / counts, counts - 1)))
    if gap < min_gap * len(tasks) or gap < MIN_ERRORS * error or gap <= own * error:
        return Gap(gain, gap, None, None, None, "gap too small")
    value = gain / gap
    mixed = np.array([(a - value * b).var(ddof=1) for a, b in zip(gains, gaps, strict=True)])
    t2 = t_quantile(float(satterthwaite(mixed / counts, counts - 1))) ** 2
    # Fieller (1954): all g with (gain - g gap)^2 <= t^2 Var(gain - g gap), a quadratic in g.
    a, b, c = gap**2 - t2 * var_gap, gain * gap - t2 * cov, gain**2 - t2 * var_gain
    if a <= 0:
        return Gap(gain, gap, None, None, None, "gap too small")
    half = math.sqrt(max(b**2 - a * c, 0.0))
    return Gap(gain, gap, value, (b - half) / a, (b + half) / a)
