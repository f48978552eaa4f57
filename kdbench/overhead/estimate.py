"""The step-time ratio of a method over plain training, from paired timing blocks. NumPy only.

A pair is ``(plain_ms, method_ms)``: the time per step of two blocks timed back to back, so that slow drifts of the
machine divide out.. The random stream is ``numpy.random.RandomState``, the one
NumPy keeps frozen, so that anyone recomputes the same digits from a record's pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdbench.errors import UserError

ESTIMATE_VERSION = 1
"""Bumped whenever the same pairs would give other digits."""

Pairs = Sequence[tuple[float, float]]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RatioEstimate:
    """A ratio of step times with its interval.

    Attributes:
        ratio: method over plain, dimensionless.
        lo, hi: ends of the 95 % percentile bootstrap interval of ``ratio``.
        plain_ms, method_ms: time per step of each arm, ms. Their quotient is close to ``ratio``, not equal: the ratio
            is taken pair by pair.
        n: number of pairs.
    """

    ratio: float
    lo: float
    hi: float
    plain_ms: float
    method_ms: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the interval's width relative to the ratio: 0.01 reads "± 1 %"."""
        return (self.hi - self.lo) / (2 * self.ratio)


def _checked(pairs: Pairs, where: str) -> _Floats:
    """(n, 2) array of finite positive times with n >= 2."""
    try:
        times = np.asarray(pairs, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{where}: not a list of [plain_ms, method_ms] number pairs") from None
    if times.ndim != 2 or times.shape[1:] != (2,) or len(times) < 2:
        raise UserError(f"{where}: at least 2 [plain_ms, method_ms] pairs are needed, got shape {times.shape}")
    bad = np.flatnonzero(~(np.isfinite(times) & (times > 0)).all(axis=1))
    if bad.size:
        raise UserError(f"{where}: pair {bad[0]} is {times[bad[0]].tolist()}; times must be finite and above 0 ms")
    return times


def _check_resamples(resamples: int) -> None:
    if resamples < 100:
        raise UserError(f"resamples={resamples}: at least 100 are needed for the ends of a 95 % interval")


def _interval(log_draws: _Floats) -> tuple[float, float]:
    """Percentiles on the log scale, so that naming the arms the other way round inverts the interval."""
    lo, hi = np.exp(np.percentile(log_draws, [2.5, 97.5]))
    return float(lo), float(hi)


def estimate_ratio(pairs: Pairs, *, resamples: int = 2000, seed: int = 0) -> RatioEstimate:
    """exp of the median over pairs of log(method / plain), with a percentile bootstrap over whole pairs.

    Args:
        pairs: n >= 2 pairs (plain_ms, method_ms), finite and positive.
        resamples: bootstrap resamples.
        seed: seed of the bootstrap.

    Raises:
        UserError: too few pairs, or a time that is not finite and positive; the message names the pair.
    """
    _check_resamples(resamples)
    times = _checked(pairs, "timing pairs")
    log_ratio = np.log(times[:, 1]) - np.log(times[:, 0])
    n = len(log_ratio)
    pick = np.random.RandomState(seed).randint(0, n, size=(resamples, n))
    lo, hi = _interval(np.median(log_ratio[pick], axis=1))
    plain, method = np.median(times, axis=0)
    return RatioEstimate(float(np.exp(np.median(log_ratio))), lo, hi, float(plain), float(method), n)


def weighted_ratio(phases: Sequence[tuple[float, Pairs]], *, resamples: int = 2000, seed: int = 0) -> RatioEstimate:
    """One ratio for a method whose step changes over training: total method time over total plain time.

    With w_i the steps of phase i, r_i its paired ratio (:func:`estimate_ratio`) and p_i its median plain step,

        ratio = sum_i(w_i p_i r_i) / sum_i(w_i p_i).

    p_i r_i stands for the method's step time: unlike the bare median it keeps the pairing within a phase, and drift
    of the machine between phases moves the weights only. One phase gives :func:`estimate_ratio` (to rounding);
    equal p_i give the mean of r_i weighted by steps. Each resample draws the pairs of every phase anew, independently.

    Args:
        phases: (steps > 0, pairs) of each phase.
        resamples: bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The estimate; ``plain_ms`` and ``method_ms`` are the phases' medians averaged by steps, ``n`` counts all pairs.

    Raises:
        UserError: no phase, steps that are not finite and positive, or pairs :func:`estimate_ratio` refuses.
    """
    _check_resamples(resamples)
    if not phases:
        raise UserError("timing phases: at least one phase is needed")
    rng = np.random.RandomState(seed)
    total_plain, total_method = 0.0, 0.0
    drawn_plain, drawn_method = np.zeros(resamples), np.zeros(resamples)
    steps_sum, plain_ms, method_ms, count = 0.0, 0.0, 0.0, 0
    for i, (steps, pairs) in enumerate(phases):
        if not (math.isfinite(steps) and steps > 0):
            raise UserError(f"timing phase {i}: steps={steps}; a phase needs a finite number of steps above 0")
        times = _checked(pairs, f"timing phase {i}")
        log_ratio = np.log(times[:, 1]) - np.log(times[:, 0])
        plain, method = np.median(times, axis=0)
        pick = rng.randint(0, len(times), size=(resamples, len(times)))
        resampled_plain = steps * np.median(times[pick, 0], axis=1)
        drawn_plain += resampled_plain
        drawn_method += resampled_plain * np.exp(np.median(log_ratio[pick], axis=1))
        total_plain += steps * plain
        total_method += steps * plain * np.exp(np.median(log_ratio))
        steps_sum, count = steps_sum + steps, count + len(times)
        plain_ms, method_ms = plain_ms + steps * plain, method_ms + steps * method
    lo, hi = _interval(np.log(drawn_method) - np.log(drawn_plain))
    ratio = float(total_method / total_plain)
    return RatioEstimate(ratio, lo, hi, float(plain_ms / steps_sum), float(method_ms / steps_sum), count)
