"""Each method's own noise, moderated, and half-widths that hold for all pairs at once however unequal the noise is.

**Own noise.** In task j, of method i and seed s, the residual is r_ijs = x_ijs - mean_s x_ij. - b_js. The seed's common
part b_js is the mean over methods of x_ijs - mean_s x_ij., weighted by 1 / variance, so that a noisy method does not
leak into the residuals of the others (equal weights first, then twice those of the step before). With shares p_i of the
weights, s_ij^2 = sum_s r_ijs^2 / ((n_j - 1)(1 - p_i)). Beside the common parts, the mean over N tasks has the error
variance v_i = sum_j s_ij^2 / n_j / N^2 with Welch and Satterthwaite's degrees of freedom d_i.

**Moderated.** With few seeds each v_i is poor, but the variances of all methods together tell how such variances
scatter: v0 and d0 of a scaled inverse chi-squared prior, fitted by the moments of log v_i (Smyth, 2004, Statistical
Applications in Genetics and Molecular Biology 3(1), article 3; limma's empirical Bayes). With d, the degrees of freedom
of the average method, m_i = (d0 v0 + d v_i) / (d0 + d). A variance is raised by this, never lowered: max(v_i, m_i) is
what counts, with d_i + d0 degrees of freedom, so that a far noisier method is not taken for a quiet one (lowered too,
up to 15 % of simulated boards of equal methods split where one method is five times as noisy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kdbench.stats.cell import satterthwaite, t_quantile

_Floats = NDArray[np.float64]
_REWEIGHTED = 2  # a third time changes no share of split boards by more than 0.3 points


@dataclass(frozen=True)
class OwnNoise:
    """What separates a method's mean over tasks from the truth, beside what the seeds bring to all methods alike.

    Attributes:
        variance: (methods,) moderated error variance of the mean, in the square of the unit.
        df: (methods,) its degrees of freedom.
    """

    variance: _Floats
    df: _Floats

    def half_widths(self, alpha: float) -> _Floats:
        """(methods,) h_i: two methods whose means differ by more than sqrt(h_i^2 + h_j^2) are separated."""
        k = len(self.variance)
        # Rounded down to a tenth: on the safe side, and few enough values to keep.
        factors = [width_factor(k, math.floor(10 * df + 1e-6) / 10, alpha) for df in self.df]
        return np.array(factors) * np.sqrt(self.variance)


def own_noise(values: Sequence[_Floats]) -> OwnNoise:
    """Moderated noise of two or more methods; see the module's docstring.

    Args:
        values: one (methods, seeds) array a task, 2 seeds or more, with some spread beside the seeds' common parts.
    """
    k = len(values[0])
    seeds = np.array([v.shape[1] for v in values], dtype=float)
    left = [v - v.mean(axis=1, keepdims=True) for v in values]
    share = np.full(k, 1 / k)
    for again in range(_REWEIGHTED + 1):
        squares = np.stack([((r - share @ r) ** 2).sum(axis=1) for r in left], axis=1)  # (methods, tasks)
        parts = squares / (1 - share)[:, None] / (seeds - 1) / seeds / len(values) ** 2
        raw = parts.sum(axis=1)
        common_df = float(satterthwaite(parts.mean(axis=0), seeds - 1))
        prior_df, prior = fit_prior(raw, common_df)
        moderated = prior if math.isinf(prior_df) else (prior_df * prior + common_df * raw) / (prior_df + common_df)
        weight = 1 / np.broadcast_to(moderated, k)
        if again < _REWEIGHTED:
            share = weight / weight.sum()
    # All residuals together hold no more than common_df (k - 1).
    df = np.minimum(satterthwaite(parts, seeds - 1) + prior_df, common_df * (k - 1))
    return OwnNoise(np.maximum(raw, moderated), df)


def fit_prior(variances: _Floats, df: float) -> tuple[float, float]:
    """Degrees of freedom and value of the prior of (k,) variances of ``df`` degrees of freedom each.

    With e = ln v - digamma(df / 2) + ln(df / 2): trigamma(d0 / 2) = var(e) - trigamma(df / 2) and
    ln v0 = mean(e) + digamma(d0 / 2) - ln(d0 / 2).

    Returns:
        (infinity, mean of the variances) where they scatter no more than equal noise does.
    """
    from scipy.optimize import brentq  # imported late: half a second
    from scipy.special import digamma, polygamma

    # A method that repeats itself exactly has no logarithm.
    e = np.log(np.maximum(variances, 1e-5 * variances.mean())) - digamma(df / 2) + math.log(df / 2)
    beyond = float(e.var(ddof=1) - polygamma(1, df / 2))
    low, high = -7.0, 14.0
    if beyond <= float(polygamma(1, math.exp(high))):
        return math.inf, float(variances.mean())
    half = math.exp(brentq(lambda u: math.log(polygamma(1, math.exp(u)) / beyond), low, high))
    return 2 * half, math.exp(float(e.mean()) + float(digamma(half)) - math.log(half))


@lru_cache(maxsize=4096)
def width_factor(k: int, df: float, alpha: float) -> float:
    """Half-width over standard error that holds for every pair of ``k`` methods at once.

    The errors t_i of k means over their standard errors e_i are independent, Student's with ``df``. Means of equal
    methods differ by e_i t_i - e_j t_j, which is, by Cauchy and Schwarz, at most sqrt(e_i^2 + e_j^2) sqrt(a^2 + b^2),
    whatever the e are, with a = max(t, 0) and b = max(-t, 0) over all methods. The factor is the upper ``alpha``
    quantile of sqrt(a^2 + b^2); P(a <= p, b <= q) = (F(p) + F(q) - 1)^k. The residuals of two methods are one and
    the same number, and the factor is Student's: the pair is judged by the paired t-test.
    """
    if k == 2:
        return t_quantile(df, 1 - alpha)
    from scipy.optimize import brentq
    from scipy.special import gammaln, stdtr

    angles, weights = _nodes()
    log_top = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * math.log(df * math.pi)

    def beyond(c: float) -> float:
        p, q = c * np.sin(angles), c * np.cos(angles)  # dp = q d angle
        density = np.exp(log_top - (df + 1) / 2 * np.log1p(p * p / df))
        inside = k * density * (stdtr(df, p) + stdtr(df, q) - 1) ** (k - 1)
        none_above = (float(stdtr(df, c)) - 0.5) ** k
        return 1 - alpha - none_above - float((weights * q * inside).sum())

    high = 4.0
    while beyond(high) > 0:
        high *= 2
    return float(brentq(beyond, high / 4, high, xtol=1e-6))


@lru_cache(maxsize=1)
def _nodes() -> tuple[_Floats, _Floats]:
    """Gauss and Legendre's nodes and weights on 0 to pi / 2."""
    x, w = np.polynomial.legendre.leggauss(128)
    return (x + 1) * math.pi / 4, w * math.pi / 4
