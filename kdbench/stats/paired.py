"""A method against its task's baseline, seed by seed: the headline statistic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdbench.base.errors import UserError
from kdbench.stats.cell import SeedScores, describe, finite, no_spread, p_value
from kdbench.stats.layout import Direction, sign


@dataclass(frozen=True)
class PairedDelta:
    """Seed-paired difference, turned so that positive is better, in the task's unit.

    Attributes:
        n: pairs.
        mean, sd, lo, hi: of the differences; None where :class:`kdbench.stats.CellStat` has None.
        correlation: of the two arms over seeds; None below 3 pairs or without spread. At 0 or below, pairing
            brought nothing.
        seeds: the seeds paired.
        unpaired: seeds only one arm holds; they are left out.
        note: why there is no interval, else "".
        p: two-sided p-value of the paired t-test against 0, None without an interval.
    """

    n: int
    mean: float
    sd: float | None
    lo: float | None
    hi: float | None
    correlation: float | None
    seeds: tuple[int, ...]
    unpaired: tuple[int, ...]
    note: str
    p: float | None = None

    @property
    def separated(self) -> bool:
        """Whether the interval excludes 0."""
        return self.lo is not None and self.hi is not None and (self.lo > 0 or self.hi < 0)

    @property
    def pairing_helped(self) -> bool | None:
        """Whether the arms rise and fall together; None where that cannot be said."""
        return None if self.correlation is None else self.correlation > 0


def paired_delta(
    method: SeedScores, baseline: SeedScores, direction: Direction, *, confidence: float = 0.95
) -> PairedDelta:
    """Mean over shared seeds of method - baseline (reversed where less is better), with its t-interval.

    The caller pairs only runs of the same task version, teacher, device class, dtype and engine version.

    Raises:
        UserError: no seed in common, or a score that is not finite.
    """
    seeds = tuple(sorted(method.keys() & baseline.keys()))
    if not seeds:
        raise UserError(f"no seed in common: {sorted(method)} and {sorted(baseline)}; run the same seeds of both")
    ours = finite((method[s] for s in seeds), "method")
    theirs = finite((baseline[s] for s in seeds), "baseline")
    size = float(max(np.abs(ours).max(), np.abs(theirs).max()))
    stat = describe(sign(direction) * (ours - theirs), size, confidence)
    level = len(seeds) < 3 or no_spread(ours, size) or no_spread(theirs, size)
    correlation = None if level else float(np.corrcoef(ours, theirs)[0, 1])
    unpaired = tuple(sorted(method.keys() ^ baseline.keys()))
    p = None if stat.sd is None or stat.lo is None else p_value(stat.mean, stat.sd / math.sqrt(stat.n), stat.n - 1)
    return PairedDelta(stat.n, stat.mean, stat.sd, stat.lo, stat.hi, correlation, seeds, unpaired, stat.note, p)


def verdict(method: str, baseline: str, task: str, delta: PairedDelta, unit: str) -> str:
    """The comparison in words, e.g. ``kd and reviewkd are not separated on digits/few-shot, n = 5``.

    Args:
        method, baseline, task: names.
        delta: :func:`paired_delta` of the two.
        unit: the score's unit; differences of percentages are called points.
    """
    if not delta.separated or delta.lo is None or delta.hi is None:
        why = f" ({delta.note})" if delta.note else ""
        return f"{baseline} and {method} are not separated on {task}, n = {delta.n}{why}"
    word, turn = ("better", 1.0) if delta.mean > 0 else ("worse", -1.0)
    lo, hi = sorted((turn * delta.lo, turn * delta.hi))
    points = "points" if unit == "%" else unit
    return (
        f"{method} is {word} than {baseline} on {task} by {turn * delta.mean:.2f} {points} "
        f"(95 % interval {lo:.2f} to {hi:.2f}), n = {delta.n}"
    )
