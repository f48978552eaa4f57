"""Tie groups: which methods of a suite are separated, and the ranks each could hold.

Every method has a half-width h_i, by its own noise (:mod:`kdbench.stats.moderated`); two methods are separated when
their means over tasks differ by more than sqrt(h_i^2 + h_j^2). That holds for all pairs at once: of boards whose
methods are in truth equal about 95 in 100 stay whole, equally noisy or not. Two methods alone are judged by the paired
t-test.

Simulated boards of equal methods (3 to 46 methods, 1 to 3 tasks, 3, 5 and 10 seeds, 2,000 boards each; the noise equal,
one method 2 to 10 times or half of them 3 times as noisy, sd log-uniform over 1 to 10 or 1 to 100, inverse-gamma, 10 or
30 % ten times as noisy): at most 5.5 % split, 2 to 4 % where the noise is equal, and with the noise of the published
boards 3 to 5 %. One task of 3 seeds tells the noise poorly: up to 6.5 % with 34 or 46 methods, 7.4 % with 12, 8.5 %
with 6; with 2 seeds up to 18 %. A method noisy on one of its tasks alone: 5 % with 5 seeds, 9 % with 3. Tukey's
studentized range on one pooled variance splits up to 63 % of such boards, and Cochran's C, as a check before it,
overlooks gradually unequal noise. It is the sharper rule only where all methods are equally noisy: there it separates 7
to 13 % more pairs with 5 seeds, and up to 30 % more with 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdbench.stats.cell import no_spread
from kdbench.stats.layout import Layout
from kdbench.stats.moderated import own_noise

Rule = Literal["moderated half-widths", "none"]
_Floats = NDArray[np.float64]


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
        half_widths: h of each method, in the unit; empty for rule "none".
        rule: which rule spoke.
        note: one sentence for the reader.
    """

    methods: tuple[str, ...]
    means: tuple[float, ...]
    ranks: tuple[tuple[int, int], ...]
    groups: tuple[tuple[str, ...], ...]
    better: frozenset[tuple[str, str]]
    half_widths: tuple[float, ...]
    rule: Rule
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


def _whole(layout: Layout, means: _Floats, order: NDArray[np.intp], note: str) -> TieGroups:
    names = tuple(layout.methods[i] for i in order)
    ranks = ((1, len(names)),) * len(names)
    ordered = tuple(float(means[i]) for i in order)
    return TieGroups(names, ordered, ranks, (names,), frozenset(), (), "none", note)


def tie_groups(layout: Layout, *, alpha: float = 0.05) -> TieGroups:
    """Separate the methods of a complete seed-paired table; see the module's docstring for the rule.

    Args:
        layout: :func:`kdbench.stats.common_set`'s layout.
        alpha: share of boards of equal methods that may split.

    Returns:
        All methods as one group with rule "none" and its reason, where nothing can be separated: one method, a task
        with one seed, or no spread at all.
    """
    k = len(layout.methods)
    means = layout.means.mean(axis=1)
    order = np.argsort(-np.round(means, 9), kind="stable")
    values = [v[order] for v in layout.values]
    seeds = [v.shape[1] for v in values]
    if k == 1:
        return _whole(layout, means, order, "one method: there is nothing to separate")
    if min(seeds) < 2:
        return _whole(layout, means, order, "fewer than 2 seeds: nothing can be separated")
    own = [v - v.mean(axis=1, keepdims=True) - v.mean(axis=0, keepdims=True) + v.mean() for v in values]
    if no_spread(np.concatenate([r.ravel() for r in own]), max(float(np.abs(v).max()) for v in values)):
        return _whole(layout, means, order, "no spread over seeds beside what the methods share: nothing to measure by")

    ordered, half = means[order], own_noise(values).half_widths(alpha)
    apart = np.abs(ordered[:, None] - ordered[None, :]) > np.hypot(half[:, None], half[None, :])
    names = tuple(layout.methods[i] for i in order)
    above = np.triu(apart, 1)
    first, last = 1 + above.sum(axis=0), k - above.sum(axis=1)
    return TieGroups(
        methods=names,
        means=tuple(map(float, ordered)),
        ranks=tuple((int(a), int(b)) for a, b in zip(first, last, strict=True)),
        groups=tuple(names[a : b + 1] for a, b in tie_runs(apart)),
        better=frozenset((names[i], names[j]) for i, j in zip(*np.nonzero(above), strict=True)),
        half_widths=tuple(map(float, half)),
        rule="moderated half-widths",
        note=_note(half, "points" if layout.unit == "%" else layout.unit, seeds),
    )


def _note(half: _Floats, unit: str, seeds: list[int]) -> str:
    n = f"n = {min(seeds)}" if min(seeds) == max(seeds) else f"n = {min(seeds)} to {max(seeds)}"
    over = f"{len(seeds)} task{'s' if len(seeds) > 1 else ''}, {n}"
    if len(half) == 2:
        return f"methods {math.sqrt(2) * half[0]:.2g} {unit} or less apart share ranks (paired t-test, {over})"
    return (
        f"methods share ranks unless their means differ by more than √(h₁² + h₂²), where h, the half-width of each, is "
        f"{half.min():.2g} to {half.max():.2g} {unit} (moderated variances, {over})"
    )
