"""One cell: the seeds of one method on one task. Mean, spread, t-interval, and the noise of the test set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kdbench.base.errors import UserError

TOO_SMALL = "n too small"
"""Note of a cell whose interval would hold every value that there is."""
SeedScores = Mapping[int, float]
"""Seed to the last-epoch score, in the task's unit."""


@lru_cache(maxsize=256)
def t_quantile(df: float, confidence: float = 0.95) -> float:
    """Two-sided Student quantile: t with P(|T| <= t) = ``confidence`` at ``df`` degrees of freedom."""
    from scipy.special import stdtrit  # imported late: scipy costs more than this package

    return float(stdtrit(df, 0.5 + confidence / 2))


def p_value(mean: float, error: float, df: float) -> float:
    """Two-sided, of Student's t = ``mean`` / ``error``."""
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(mean) / error))


@dataclass(frozen=True)
class CellStat:
    """Summary of one cell.

    Attributes:
        n: number of seeds.
        mean: mean over seeds, in the task's unit.
        sd: standard deviation over seeds (n - 1 in the denominator); None for one seed.
        lo, hi: ends of the t-interval of the mean; None for one seed, and where all seeds agree exactly, since a
            spread of zero estimates nothing.
        note: why there is no interval, else "".
    """

    n: int
    mean: float
    sd: float | None
    lo: float | None
    hi: float | None
    note: str = ""


def finite(values: Iterable[float], where: str) -> NDArray[np.float64]:
    """The values as an array.

    Raises:
        UserError: there is none, or one is NaN or infinite: such a run belongs among the failed.
    """
    array = np.asarray(list(values), dtype=np.float64)
    if array.size == 0:
        raise UserError(f"{where}: no score")
    if not np.isfinite(array).all():
        raise UserError(f"{where}: a score is not finite; give the run as failed, not as a number")
    return array


def no_spread(values: NDArray[np.float64], scale: float) -> bool:
    """Whether the values differ by no more than rounding of numbers of size ``scale``."""
    return bool(np.ptp(values) <= 1e-9 * max(scale, 1e-300))


def satterthwaite(parts: NDArray[np.float64], dfs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees of freedom of a sum of independent variance estimates, (sum p)^2 / sum(p^2 / df), over the last axis.

    Args:
        parts: (..., m) estimates.
        dfs: (m,) degrees of freedom of each.

    Returns:
        (...) values between the least of ``dfs`` and their sum; the least where every estimate is 0.
    """
    below = np.maximum((parts**2 / dfs).sum(axis=-1), np.finfo(float).tiny)
    return np.maximum(parts.sum(axis=-1) ** 2 / below, dfs.min())


def summarise(scores: SeedScores, *, confidence: float = 0.95) -> CellStat:
    """Mean ± t(n-1) sd / sqrt(n) over seeds.

    A t-interval because a percentile bootstrap of 3 to 5 seeds covers 75 to 85 %, not 95 %. It answers "this recipe
    on this test set": neither the test set's noise nor the teacher's seed is in it.

    Raises:
        UserError: no score, or one that is not finite.
    """
    x = finite(scores.values(), "cell")
    return describe(x, float(np.abs(x).max()), confidence)


class Interval(Protocol):
    """A mean with its interval, a dataclass."""

    @property
    def lo(self) -> float | None: ...
    @property
    def hi(self) -> float | None: ...


_Interval = TypeVar("_Interval", bound=Interval)


def clipped(stat: _Interval, low: float | None, high: float | None) -> _Interval:
    """The interval cut to values that there are; one that leaves them on both sides says nothing and is left out."""
    if stat.lo is None or stat.hi is None:
        return stat
    below, above = low is not None and stat.lo < low, high is not None and stat.hi > high
    if below and above:
        return replace(stat, lo=None, hi=None, note=TOO_SMALL)  # type: ignore[type-var]
    return replace(stat, lo=low if below else stat.lo, hi=high if above else stat.hi)  # type: ignore[type-var]


def clipped_difference(stat: _Interval, low: float | None, high: float | None) -> _Interval:
    """:func:`clipped` for a difference of two values between ``low`` and ``high``."""
    span = None if low is None or high is None else high - low
    return stat if span is None else clipped(stat, -span, span)


def describe(x: NDArray[np.float64], scale: float, confidence: float) -> CellStat:
    """Summary of (n,) finite values that carry the rounding of numbers of size ``scale``."""
    n, mean = len(x), float(x.mean())
    if n == 1:
        return CellStat(1, mean, None, None, None, "1 seed")
    if no_spread(x, scale):
        return CellStat(n, mean, 0.0, None, None, "no spread over seeds")
    sd = float(x.std(ddof=1))
    half = t_quantile(n - 1, confidence) * sd / math.sqrt(n)
    return CellStat(n, mean, sd, mean - half, mean + half)


def item_noise(percent: float, items: int) -> float:
    """Test-set noise: the binomial standard deviation of an accuracy measured on ``items`` test items, in points.

    sqrt(p (100 - p) / N) with p in percent, e.g. 1.2 points at 87 % of 797 images.

    Raises:
        UserError: ``percent`` outside 0 to 100, or no item.
    """
    if not 0 <= percent <= 100 or items < 1:
        raise UserError(f"test-set noise needs an accuracy of 0 to 100 % and 1 item or more, got {percent} of {items}")
    return math.sqrt(percent * (100 - percent) / items)
