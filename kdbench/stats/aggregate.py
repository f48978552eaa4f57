"""Secondary statistics across the tasks of one suite: ranks, win rates, IQM, probability of improvement, CD diagram.

All take a complete :class:`kdbench.stats.Layout` (or, for ranks with failures, a :class:`kdbench.stats.Suite`), never
a table with holes. Bootstrap intervals resample seeds within each task and never pool tasks; with 3 to 5 seeds and
few tasks they cover less than they claim (85 to 89 % of nominal 95 %), which :data:`BOOTSTRAP_WARNING` says. The
random stream is ``numpy.random.RandomState``, which NumPy keeps frozen, so that anyone recomputes the same digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdbench.base.errors import UserError
from kdbench.stats.layout import Layout, Suite
from kdbench.stats.missing import Missing
from kdbench.stats.ties import tie_runs

BOOTSTRAP_WARNING = "bootstrap over few seeds: intervals are too narrow, secondary to the paired t-interval"

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % stratified percentile bootstrap interval; no interval where a task has 1 seed."""

    value: float
    lo: float | None
    hi: float | None


@dataclass(frozen=True)
class Friedman:
    """Friedman's omnibus test over the ranks of ``methods`` methods on ``tasks`` tasks."""

    statistic: float
    p: float
    methods: int
    tasks: int


@dataclass(frozen=True)
class CriticalDifference:
    """What a critical-difference diagram draws.

    Attributes:
        methods: best mean rank first.
        ranks: their mean ranks.
        cd: Nemenyi's critical difference; methods further apart in mean rank are separated.
        bars: longest runs of two or more methods that are not separated.
        tasks: number of tasks, to be printed with the diagram.
    """

    methods: tuple[str, ...]
    ranks: tuple[float, ...]
    cd: float
    bars: tuple[tuple[str, ...], ...]
    tasks: int


def _ranks(scores: _Floats) -> _Floats:
    """(methods, tasks) scores, more is better, to mid-ranks within each task, 1 = best."""
    from scipy.stats import rankdata  # imported late: half a second

    # Rounded, so that the order of summing seeds does not break a tie.
    return np.asarray(rankdata(-np.round(scores, 9), method="average", axis=0), dtype=np.float64)


def _by_name(methods: Iterable[str], values: _Floats) -> dict[str, float]:
    return {m: float(x) for m, x in zip(methods, values, strict=True)}


def mean_ranks(layout: Layout) -> dict[str, float]:
    """Method to the average over tasks of the mid-rank of its seed mean, 1 = best."""
    return _by_name(layout.methods, _ranks(layout.means).mean(axis=1))


def mean_ranks_with_failures(suite: Suite, methods: Iterable[str] | None = None) -> dict[str, float]:
    """Mean ranks in which a failed cell is last of its task (failed cells share the last mid-rank).

    Over the tasks where every method is complete or failed, at least one of them complete. A cell not run, not
    applicable or withdrawn leaves its task out: it is not a failure.

    Raises:
        UserError: an unknown method, or no such task.
    """
    names, columns = suite.chosen(methods), []
    for task in suite.tasks:
        states = [suite.state(m, task) for m in names]
        if set(states) <= {None, Missing.FAILED} and None in states:
            column = [-math.inf if s else suite.oriented(m, task).mean() for m, s in zip(names, states, strict=True)]
            columns.append(column)
    if not columns:
        raise UserError(f"suite {suite.name!r}: no task on which every method ran; choose fewer methods")
    return _by_name(names, _ranks(np.array(columns).T).mean(axis=1))


def win_rates(layout: Layout) -> dict[str, float]:
    """Method to the share of (opponent, task) it beats by seed mean, ties one half. Depends on who is listed.

    Raises:
        UserError: fewer than 2 methods.
    """
    k = _at_least(layout, methods=2)
    return _by_name(layout.methods, ((k - _ranks(layout.means)) / (k - 1)).mean(axis=1))


def _at_least(layout: Layout, methods: int = 1, tasks: int = 1) -> int:
    if len(layout.methods) < methods or len(layout.tasks) < tasks:
        raise UserError(
            f"needs {methods} or more methods and {tasks} or more tasks, "
            f"got {len(layout.methods)} and {len(layout.tasks)}"
        )
    return len(layout.methods)


def _resampled(values: list[_Floats], resamples: int, seed: int) -> list[_Floats]:
    """(rows, seeds) arrays to (resamples, rows, seeds): seeds drawn anew within each task, together for all rows."""
    rng = np.random.RandomState(seed)
    drawn = []
    for v in values:
        pick = rng.randint(0, v.shape[1], size=(resamples, v.shape[1]))
        drawn.append(np.moveaxis(v[:, pick], 0, 1))
    return drawn


def _estimate(value: float, draws: _Floats, values: list[_Floats]) -> Estimate:
    if min(v.shape[1] for v in values) < 2:
        return Estimate(value, None, None)
    lo, hi = np.percentile(draws, [2.5, 97.5])
    return Estimate(value, float(lo), float(hi))


def _middle_mean(pooled: _Floats) -> _Floats:
    """Mean of the last axis without its lowest and highest quarter (rounded down)."""
    n = pooled.shape[-1]
    cut = n // 4
    return np.asarray(np.sort(pooled, axis=-1)[..., cut : n - cut].mean(axis=-1), dtype=np.float64)


def iqm(layout: Layout, *, resamples: int = 2000, seed: int = 0) -> dict[str, Estimate]:
    """Method to the interquartile mean of all its (task, seed) scores, with a stratified bootstrap interval.

    Tasks must be on one scale: pass ``layout.against(baseline)``, whose values are points over the baseline.
    """
    result = {}
    for row, method in enumerate(layout.methods):
        values = [v[row : row + 1] for v in layout.values]
        draws = _middle_mean(np.concatenate(_resampled(values, resamples, seed), axis=2)[:, 0])
        result[method] = _estimate(float(_middle_mean(np.concatenate(values, axis=1)[0])), draws, values)
    return result


def probability_of_improvement(
    layout: Layout, method: str, over: str, *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Mean over tasks of P(x > y) + P(x = y) / 2 over all pairs of seeds (Mann-Whitney U / n^2), with its interval.

    Seeds are resampled together for both methods, as they share them.

    Raises:
        UserError: a method that is not compared.
    """
    rows = [layout.index(method), layout.index(over)]
    values = [v[rows] for v in layout.values]

    def share(v: _Floats) -> _Floats:
        gap = np.round(v[..., 0, :, None] - v[..., 1, None, :], 9)
        return np.asarray((np.sign(gap) + 1).mean(axis=(-2, -1)) / 2, dtype=np.float64)

    draws = np.mean([share(v) for v in _resampled(values, resamples, seed)], axis=0)
    return _estimate(float(np.mean([share(v) for v in values])), draws, values)


def friedman(layout: Layout) -> Friedman:
    """Friedman's chi-square on the seed means, corrected for ties; an omnibus answer, it separates no pair.

    Raises:
        UserError: fewer than 3 methods or 2 tasks.
    """
    from scipy.stats import friedmanchisquare  # imported late: half a second

    k = _at_least(layout, methods=3, tasks=2)
    ranks = _ranks(layout.means)
    if (ranks == ranks[:1]).all():  # every task ties every method: scipy divides 0 by 0
        return Friedman(0.0, 1.0, k, len(layout.tasks))
    found = friedmanchisquare(*ranks)
    return Friedman(float(found.statistic), float(found.pvalue), k, len(layout.tasks))


def nemenyi_cd(methods: int, tasks: int, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks: q(alpha; k, inf) / sqrt(2) * sqrt(k (k + 1) / (6 N)).

    Raises:
        UserError: fewer than 2 methods or no task.
    """
    if methods < 2 or tasks < 1:
        raise UserError(f"a critical difference needs 2 or more methods and a task, got {methods} and {tasks}")
    from scipy.stats import studentized_range  # imported late: half a second

    quantile = float(studentized_range.ppf(1 - alpha, methods, math.inf))
    return quantile / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * tasks))


def critical_difference(layout: Layout, alpha: float = 0.05) -> CriticalDifference:
    """Data of the critical-difference diagram.

    Raises:
        UserError: fewer than 2 methods.
    """
    k = _at_least(layout, methods=2)
    ranks = _ranks(layout.means).mean(axis=1)
    order = np.argsort(ranks, kind="stable")
    names, ordered = tuple(layout.methods[i] for i in order), ranks[order]
    cd = nemenyi_cd(k, len(layout.tasks), alpha)
    runs = tie_runs(np.abs(ordered[:, None] - ordered[None, :]) > cd)
    bars = tuple(names[a : b + 1] for a, b in runs if b > a)
    return CriticalDifference(names, tuple(map(float, ordered)), cd, bars, len(layout.tasks))
