"""``kdbench compare A B``: two methods, seed by seed, quality and cost, with a verdict in words."""

from __future__ import annotations

from dataclasses import dataclass

from kdbench.registry import PLAIN
from kdbench.stats import PairedDelta, paired_delta, verdict
from kdbench.summary import Row


@dataclass(frozen=True)
class Pairing:
    """Two methods on one task and device class.

    Attributes:
        delta: second minus first, turned so that positive is better; None without a seed in common.
        cost: step time of the second over that of the first; None unless both were measured.
        words: what follows from both.
    """

    first: Row
    second: Row
    delta: PairedDelta | None
    cost: float | None
    words: str


def pairings(rows: list[Row], first: str, second: str) -> list[Pairing]:
    """Every task and device class on which both methods have a cell that is neither custom nor smoke."""
    cells = {(r.method, r.task, r.version, r.device_class): r for r in rows if r.score is not None and not r.marks}
    found = []
    for (method, *place), row in cells.items():
        other = cells.get((second, *place))  # type: ignore[arg-type]
        if method == first and other is not None:
            found.append(_pairing(row, other))
    return found


def _pairing(a: Row, b: Row) -> Pairing:
    delta = None
    if set(a.scores) & set(b.scores):
        delta = paired_delta(b.scores, a.scores, "max" if a.higher_is_better else "min")
    where = f"{a.task}, {a.device_class}"
    quality = (
        verdict(b.method, a.method, where, delta, a.unit)
        if delta is not None
        else f"{a.method} and {b.method} have no seed in common on {where}"
    )
    cost = _cost(a, b)
    if cost is None:
        return Pairing(a, b, delta, None, f"{quality}; their costs were not both measured")
    if cost >= 1:
        said = f"{b.method} costs {cost:.2g} times a step of {a.method}"
    else:
        said = f"{a.method} costs {1 / cost:.2g} times a step of {b.method}"
    return Pairing(a, b, delta, cost, f"{quality}; {said}")


def _cost(a: Row, b: Row) -> float | None:
    """Ratio of the two step times, each taken over plain in its own measurement."""
    ratios = [1.0 if row.method == PLAIN else (row.cost or {}).get("step_ratio") for row in (a, b)]
    return None if None in ratios else ratios[1] / ratios[0]  # type: ignore[operator]
