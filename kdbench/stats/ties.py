"""Tie groups: which methods of a suite are separated, and the ranks each could hold.

Studentized range (Tukey, 1953) on the seed-paired layout. In task j with seeds s and methods i,

    r_ijs = x_ijs - mean_s x_ij. - mean_i x_.js + mean x_.j.

is what is left of a score once the method's mean and the seed's common part are taken out. With k methods, N tasks,
n_j seeds: v_j = sum r^2 / ((n_j - 1)(k - 1)); the mean over tasks of a method has variance V = sum_j (v_j / n_j) / N^2
beside the common part; two methods are separated when their means differ by more than q(.95; k, df) sqrt(V). df is
Welch and Satterthwaite's for V, rounded down: N (n - 1)(k - 1) where tasks are equally noisy, less where one task's
noise dominates (with the undiminished df up to 7.6 % of simulated boards of equal methods split, instead of 5).
Over all pairs at once, 95 % of boards of equal methods stay whole.

It takes one residual variance for all methods. Cochran's C (1941) looks for a method far noisier than the rest; where
it finds one, every pair gets its own t statistic, with Holm's correction (1979) over pairs, and the note says so.
Simulated, equal methods, 12 methods, 2 tasks, 5 seeds, one method 2, 3, 5, 10 times as noisy: 5, 4, 2, 2 % of boards
split (range rule alone: 9, 15, 21, 23 %). With 3 seeds 3 times the noise often goes unnoticed: 8 to 9 % split with 2
tasks, 12 to 16 % with one (6 to 34 methods). The fallback separates little with few seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdbench.stats.cell import no_spread, satterthwaite
from kdbench.stats.layout import Layout

Rule = Literal["studentized range", "per-pair t, Holm", "none"]
_Floats = NDArray[np.float64]


@lru_cache(maxsize=512)
def range_quantile(k: int, df: float, alpha: float) -> float:
    """Upper ``alpha`` quantile of the studentized range of ``k`` means; ``df`` may be infinite."""
    from scipy.stats import studentized_range  # imported late: half a second

    return float(studentized_range.ppf(1 - alpha, k, df))


@dataclass(frozen=True)
class TieGroups:
    """Methods ordered by mean, best first, with what is separated.

    Attributes:
        methods: names, best first.
        means: mean over tasks of the seed means, turned so that more is better.
        ranks: (first, last) rank each method could hold: 1 + the methods separated above it, and the number of
            methods less those separated below it.
        groups: longest runs of methods of which no two are separated; they may overlap.
        better: separated pairs, (better, worse).
        rule: which rule spoke.
        margin: difference that separates, in the unit; None unless the studentized range spoke.
        residual_sd: own noise of a score of one seed, pooled over methods and tasks; None without 2 seeds.
        df: degrees of freedom of ``margin``.
        noisiest: the method with the largest residual variance; None where it could not be told.
        variance_p: Bonferroni p-value of Cochran's C, that ``noisiest`` is as quiet as the rest.
        note: one sentence for the reader.
    """

    methods: tuple[str, ...]
    means: tuple[float, ...]
    ranks: tuple[tuple[int, int], ...]
    groups: tuple[tuple[str, ...], ...]
    better: frozenset[tuple[str, str]]
    rule: Rule
    margin: float | None
    residual_sd: float | None
    df: int | None
    noisiest: str | None
    variance_p: float | None
    note: str

    @property
    def split(self) -> bool:
        """Whether any two methods are separated."""
        return bool(self.better)

    @property
    def labels(self) -> tuple[str, ...]:
        """Ranks as printed: "1-4", or "5" where only one is possible."""
        return tuple(str(first) if first == last else f"{first}-{last}" for first, last in self.ranks)

    def separated(self, a: str, b: str) -> bool:
        """Whether two methods are told apart, either way round."""
        return (a, b) in self.better or (b, a) in self.better


def holm(p: _Floats, alpha: float = 0.05) -> NDArray[np.bool_]:
    """Hypotheses rejected by Holm's step-down rule: (m,) p-values to (m,) bool."""
    order = np.argsort(p, kind="stable")
    fails = np.flatnonzero(p[order] > alpha / np.arange(len(p), 0, -1))
    rejected = np.zeros(len(p), dtype=bool)
    rejected[order[: fails[0] if fails.size else len(p)]] = True
    return rejected


def tie_runs(separated: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Longest runs [first, last] of an ordered list in which no two members are separated; (k, k) matrix in."""
    runs: list[tuple[int, int]] = []
    for first in range(len(separated)):
        last = first
        while last + 1 < len(separated) and not separated[first : last + 1, last + 1].any():
            last += 1
        if not runs or last > runs[-1][1]:
            runs.append((first, last))
    return runs


def _pairwise(values: list[_Floats], alpha: float) -> NDArray[np.bool_]:
    """Separation matrix of the fallback: paired t of every pair, df by Satterthwaite over tasks, Holm over pairs."""
    from scipy.special import stdtr

    k, tasks = len(values[0]), len(values)
    i, j = np.triu_indices(k, 1)
    gaps = [v[i] - v[j] for v in values]
    parts = np.stack([d.var(axis=1, ddof=1) / d.shape[1] / tasks**2 for d in gaps], axis=1)
    mean = np.stack([d.mean(axis=1) for d in gaps], axis=1).mean(axis=1)
    size = max(float(np.abs(v).max()) for v in values)
    error = np.sqrt(parts.sum(axis=1))
    spread = error > 1e-9 * size  # a pair without spread estimates nothing and is left together
    df = satterthwaite(parts, np.array([d.shape[1] - 1.0 for d in gaps]))
    p = np.where(spread, 2 * stdtr(df, -np.abs(mean) / np.where(spread, error, 1.0)), 1.0)
    matrix = np.zeros((k, k), dtype=bool)
    matrix[i, j] = holm(p, alpha)
    return matrix | matrix.T


def _cochran(shares: _Floats, df: float) -> float:
    """Bonferroni p-value that the largest of k variance shares, each of ``df`` degrees of freedom, is no outlier."""
    from scipy.special import fdtrc

    k, largest = len(shares), float(shares.max() / shares.sum())
    if largest >= 1:
        return 0.0
    return min(1.0, k * float(fdtrc(df, (k - 1) * df, (k - 1) * largest / (1 - largest))))


def _whole(layout: Layout, means: _Floats, order: NDArray[np.intp], note: str) -> TieGroups:
    names = tuple(layout.methods[i] for i in order)
    ranks = ((1, len(names)),) * len(names)
    ordered = tuple(float(means[i]) for i in order)
    return TieGroups(names, ordered, ranks, (names,), frozenset(), "none", None, None, None, None, None, note)


def tie_groups(layout: Layout, *, alpha: float = 0.05, variance_alpha: float = 0.05) -> TieGroups:
    """Separate the methods of a complete seed-paired table; see the module's docstring for the rule.

    Args:
        layout: :func:`kdbench.stats.common_set`'s layout.
        alpha: share of boards of equal methods that may split.
        variance_alpha: level of the check for a far noisier method.

    Returns:
        All methods as one group with rule "none" and its reason, where nothing can be separated: one method, a task
        with one seed, or no spread at all.
    """
    k, tasks = len(layout.methods), len(layout.tasks)
    means = layout.means.mean(axis=1)
    order = np.argsort(-np.round(means, 9), kind="stable")
    values = [v[order] for v in layout.values]
    seeds = np.array([v.shape[1] for v in values], dtype=float)
    if k == 1:
        return _whole(layout, means, order, "one method: there is nothing to separate")
    if seeds.min() < 2:
        return _whole(layout, means, order, "fewer than 2 seeds: nothing can be separated")

    left = [v - v.mean(1, keepdims=True) - v.mean(0, keepdims=True) + v.mean() for v in values]
    squares = np.stack([(r**2).sum(axis=1) for r in left], axis=1)  # (methods, tasks)
    dfs = (seeds - 1) * (k - 1)
    variance = squares.sum(axis=0) / dfs
    if no_spread(np.concatenate([r.ravel() for r in left]), max(float(np.abs(v).max()) for v in values)):
        return _whole(layout, means, order, "no spread over seeds beside what the methods share: nothing to measure by")

    parts = variance / seeds / tasks**2
    df = math.floor(float(satterthwaite(parts, dfs)) + 1e-9)
    noisy = variance > 0
    shares = (squares[:, noisy] / variance[noisy]).sum(axis=1)
    # With two methods both residuals are one and the same number, so that no check is possible or needed.
    p = _cochran(shares, float((dfs[noisy] / k).sum())) if k > 2 else None
    noisiest = layout.methods[order[int(shares.argmax())]] if k > 2 else None

    n = f"n = {int(seeds.min())}" if seeds.min() == seeds.max() else f"n = {int(seeds.min())} to {int(seeds.max())}"
    over = f"{tasks} task{'s' if tasks > 1 else ''}"
    margin: float | None = None
    rule: Rule
    ordered = means[order]
    if p is not None and p < variance_alpha:
        rule = "per-pair t, Holm"
        apart = _pairwise(values, alpha)
        note = (
            f"{noisiest} is far noisier than the rest, so each pair is judged by its own t interval with Holm's "
            f"correction ({over}, {n}); few seeds separate little this way"
        )
    else:
        rule = "studentized range"
        margin = range_quantile(k, df, alpha) * math.sqrt(float(parts.sum()))
        apart = np.abs(ordered[:, None] - ordered[None, :]) > margin
        unit = "points" if layout.unit == "%" else layout.unit
        note = f"methods {margin:.2g} {unit} or less apart share ranks (studentized range, {over}, {n})"
    names = tuple(layout.methods[i] for i in order)
    above = np.triu(apart, 1)
    first, last = 1 + above.sum(axis=0), k - above.sum(axis=1)
    return TieGroups(
        methods=names,
        means=tuple(map(float, ordered)),
        ranks=tuple((int(a), int(b)) for a, b in zip(first, last, strict=True)),
        groups=tuple(names[a : b + 1] for a, b in tie_runs(apart)),
        better=frozenset((names[i], names[j]) for i, j in zip(*np.nonzero(above), strict=True)),
        rule=rule,
        margin=margin,
        residual_sd=math.sqrt(float(variance.mean())),
        df=df if rule == "studentized range" else None,
        noisiest=noisiest,
        variance_p=p,
        note=note,
    )
