"""Which methods could be the best: multiple comparisons with the best (Hsu, 1981, Annals of Statistics 9(5)).

Of k methods with means y and moderated error variances v (:mod:`kdbench.stats.moderated`) let s_ij = sqrt(v_i + v_j)
and d_i the 1 - alpha quantile of max_j (e_j - e_i) / s_ij over the other methods, where e_i is Student's with its
method's degrees of freedom, times sqrt(v_i). With the chance 1 - alpha, for all methods at once, mu_i - max_j mu_j lies
between the limits

- upper: max(0, min_j (y_i - y_j + d_i s_ij)); method i could be the best, is in G, where it is above 0;
- lower: 0 for the only member of G, else min(0, min_{j in G} (y_i - y_j - d_j s_ij)).

That is k - 1 questions a method and not k (k - 1) / 2 a board, so it tells more than ranks do. Two methods are judged
by the paired t-test, one-sided.

Simulated boards (6 methods on one task with 3 and 5 seeds, 12 on two with 5; 100 to 150 of each; the noise equal, one
method 3 or 10 times or a fifth of them 10 times as noisy, sd log-uniform over 1 to 10). Of equal methods each is left
out of G on 3 to 6 % of boards with 5 seeds, on 5 to 7 % with 3. One that is 1.5 or 3 of its own sd ahead is left out on
at most 5 %, and some lower limit lies above the truth on 2 to 7 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdbench.stats.cell import no_spread, t_quantile
from kdbench.stats.layout import Layout
from kdbench.stats.moderated import OwnNoise, own_noise

Word = Literal["best", "≈ best", "undecided", ""]
DRAWS = 8192
"""Of errors for the quantiles, from one fixed seed."""
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WithBest:
    """What may be said of each method and the best of the others, turned so that more is better.

    Attributes:
        limits: method to (lower, upper) of its mean less that of the best other one, cut at 0 as above.
        margin: a difference that nobody would mind, in the unit.
    """

    limits: dict[str, tuple[float, float]]
    margin: float

    @property
    def candidates(self) -> tuple[str, ...]:
        """Methods that could be the best."""
        return tuple(name for name, (_, upper) in self.limits.items() if upper > 0)

    def word(self, method: str) -> Word:
        """``best`` for the only one that could be, ``≈ best`` within the margin of the best, or ``undecided``."""
        if method not in self.candidates or len(self.limits) < 2:
            return ""
        lower = self.limits[method][0]
        return "best" if len(self.candidates) == 1 else "≈ best" if lower >= -self.margin else "undecided"


def with_best(layout: Layout, margin: float, *, alpha: float = 0.05) -> WithBest | None:
    """Compares every method with the best of the others; None where a task has one seed or nothing spreads.

    Args:
        layout: :func:`kdbench.stats.common_set`'s.
        margin: of :class:`WithBest`.
        alpha: chance that any statement is wrong.
    """
    values = list(layout.values)
    own = [v - v.mean(axis=1, keepdims=True) - v.mean(axis=0, keepdims=True) + v.mean() for v in values]
    flat = min(v.shape[1] for v in values) < 2 or len(layout.methods) < 2
    if flat or no_spread(np.concatenate([r.ravel() for r in own]), max(float(np.abs(v).max()) for v in values)):
        return None
    noise = own_noise(values)
    factor = _factors(noise, alpha)
    means = layout.means.mean(axis=1)
    ahead = means[:, None] - means[None, :]
    apart = np.sqrt(noise.variance[:, None] + noise.variance[None, :])
    others = ~np.eye(len(means), dtype=bool)
    upper = np.where(others, ahead + factor[:, None] * apart, np.inf).min(axis=1).clip(min=0)
    in_front = upper > 0
    below = np.where(others & in_front[None, :], ahead - factor[None, :] * apart, np.inf).min(axis=1)
    lower = np.where(np.isinf(below), 0.0, below.clip(max=0))
    return WithBest(
        {name: (float(lo), float(hi)) for name, lo, hi in zip(layout.methods, lower, upper, strict=True)}, margin
    )


def _factors(noise: OwnNoise, alpha: float) -> _Floats:
    """(k,) the d_i above."""
    k = len(noise.variance)
    if k == 2:  # the residuals of two methods are one and the same number
        return np.array([t_quantile(float(df), 1 - 2 * alpha) for df in noise.df])
    rng = np.random.default_rng(0)
    error = rng.standard_normal((DRAWS, k)) / np.sqrt(rng.chisquare(noise.df, (DRAWS, k)) / noise.df)
    error *= np.sqrt(noise.variance)
    found = np.empty(k)
    for i in range(k):
        apart = np.sqrt(noise.variance[i] + noise.variance)
        found[i] = np.quantile(np.delete((error - error[:, [i]]) / apart, i, axis=1).max(axis=1), 1 - alpha)
    return found
