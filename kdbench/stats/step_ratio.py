"""The step-time ratio of a method over plain training, from paired timing blocks of several builds of both arms.

A pair is ``(plain_ms, method_ms)``: the time per step of two blocks timed back to back, so that slow drifts of the
machine divide out. A build is the pairs of one construction of both arms. Where its tensors come to lie in memory
moves an arm's speed for as long as it lives (two builds of plain differ by 0.2 % on an idle machine, 1 % on a busy
one), which no number of its pairs can tell. So builds, not pairs, are what the interval counts: of equal arms measured
with one build each, 7 of 10 bootstrap intervals over pairs held 1.

Nothing here is random, so anyone recomputes the same digits from a record's pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdbench.base.errors import UserError
from kdbench.stats.cell import t_quantile

Pairs = Sequence[tuple[float, float]]
Builds = Sequence[Pairs]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RatioEstimate:
    """A ratio of step times with its interval.

    Attributes:
        ratio: method over plain, dimensionless.
        lo, hi: ends of the 95 % t-interval of ``ratio`` over builds, taken on the log scale.
        plain_ms, method_ms: median time per step of each arm over all pairs, ms. Their quotient is close to ``ratio``,
            not equal: the ratio is taken pair by pair.
        builds: number of builds.
        n: number of pairs of all builds.
    """

    ratio: float
    lo: float
    hi: float
    plain_ms: float
    method_ms: float
    builds: int
    n: int

    @property
    def half_width(self) -> float:
        """Half the interval's width relative to the ratio: 0.01 reads "± 1 %"."""
        return (self.hi - self.lo) / (2 * self.ratio)


def _checked(pairs: Pairs, where: str) -> _Floats:
    """(n, 2) array of finite positive times with n >= 1."""
    try:
        times = np.asarray(pairs, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where}: not a list of [plain_ms, method_ms] number pairs") from None
    if times.ndim != 2 or times.shape[1:] != (2,) or len(times) < 1:
        raise UserError(f"{where}: a list of [plain_ms, method_ms] pairs is needed, got shape {times.shape}")
    bad = np.flatnonzero(~(np.isfinite(times) & (times > 0)).all(axis=1))
    if bad.size:
        raise UserError(f"{where}: pair {bad[0]} is {times[bad[0]].tolist()}; times must be finite and above 0 ms")
    return times


def _over_builds(log_ratios: list[float]) -> tuple[float, float, float]:
    """Ratio and ends of its t-interval; on the log scale naming the arms the other way round inverts both."""
    middle = float(np.mean(log_ratios))
    spread = float(np.std(log_ratios, ddof=1)) / math.sqrt(len(log_ratios))
    reach = t_quantile(len(log_ratios) - 1) * spread
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def _log_ratio(times: _Floats) -> float:
    """Median over pairs of log(method / plain)."""
    return float(np.median(np.log(times[:, 1]) - np.log(times[:, 0])))


def log_spread(pairs: Pairs) -> float:
    """Standard error of one build's log ratio, from its pairs; infinite for a single pair."""
    times = np.asarray(pairs, dtype=np.float64)
    logs = np.log(times[:, 1]) - np.log(times[:, 0])
    return float(np.std(logs, ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf


def estimate_ratio(builds: Builds) -> RatioEstimate:
    """exp of the mean over builds of the median over pairs of log(method / plain).

    Args:
        builds: two builds or more, each of one or more pairs (plain_ms, method_ms), finite and positive.

    Raises:
        UserError: too few builds or pairs, or a time that is not finite and positive; the message names the pair.
    """
    return weighted_ratio([(1, builds)])


def weighted_ratio(phases: Sequence[tuple[float, Builds]]) -> RatioEstimate:
    """One ratio for a method whose step changes over training: total method time over total plain time.

    With w_i the steps of phase i and, of one build, r_i its paired ratio and p_i its median plain step,

        ratio of the build = sum_i(w_i p_i r_i) / sum_i(w_i p_i);

    the builds' ratios are averaged on the log scale. p_i r_i stands for the method's step time: unlike the bare median
    it keeps the pairing within a phase, and drift of the machine between phases moves the weights only. One phase gives
    :func:`estimate_ratio`; equal p_i give the mean of r_i weighted by steps.

    Args:
        phases: (steps > 0, builds) of each phase; all have the same number of builds.

    Returns:
        The estimate; ``plain_ms`` and ``method_ms`` are the phases' medians averaged by steps, ``n`` counts all pairs.

    Raises:
        UserError: no phase, steps that are not finite and positive, phases with unequal numbers of builds, or builds
            :func:`estimate_ratio` refuses.
    """
    if not phases:
        raise UserError("timing phases: at least one phase is needed")
    count = len(phases[0][1])
    if count < 2:
        raise UserError(f"timing pairs: {count} build(s); an interval needs at least 2 builds of both arms")
    plain_total, method_total = np.zeros(count), np.zeros(count)
    steps_sum, plain_ms, method_ms, n = 0.0, 0.0, 0.0, 0
    for i, (steps, builds) in enumerate(phases):
        if not (math.isfinite(steps) and steps > 0):
            raise UserError(f"timing phase {i}: steps={steps}; a phase needs a finite number of steps above 0")
        if len(builds) != count:
            raise UserError(f"timing phase {i}: {len(builds)} builds, the first phase has {count}")
        times = [_checked(pairs, f"timing phase {i}, build {b}") for b, pairs in enumerate(builds)]
        for b, own in enumerate(times):
            plain = float(np.median(own[:, 0]))
            plain_total[b] += steps * plain
            method_total[b] += steps * plain * math.exp(_log_ratio(own))
        plain, method = np.median(np.concatenate(times), axis=0)
        steps_sum, n = steps_sum + steps, n + sum(map(len, times))
        plain_ms, method_ms = plain_ms + steps * plain, method_ms + steps * method
    ratio, lo, hi = _over_builds(list(np.log(method_total) - np.log(plain_total)))
    return RatioEstimate(ratio, lo, hi, float(plain_ms / steps_sum), float(method_ms / steps_sum), count, n)
