"""Which of many methods differ from one reference, with the share of false findings held down.

k - 1 methods are each compared with the same reference (kd, plain trained as long), and each has a p-value of its
paired t-test. By Benjamini and Hochberg's step-up rule (1995, Journal of the Royal Statistical Society B 57(1)) the m
smallest count as findings, m the largest with p_(m) <= m q / (k - 1): of the findings about q are false on average. The
differences share the reference's scores and so rise and fall together, which the rule allows (Benjamini and Yekutieli,
2001).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kdbench.stats.paired import PairedDelta
from kdbench.stats.pooled import PooledDelta

Told = Literal["better", "worse", "not separated"]
FALSE_SHARE = 0.05


def told(
    deltas: Mapping[str, PairedDelta | PooledDelta | None], *, false_share: float = FALSE_SHARE
) -> dict[str, Told]:
    """A word for each method; none for one without a difference or without a p-value."""
    known = {name: delta for name, delta in deltas.items() if delta is not None and delta.p is not None}
    ordered = sorted(known, key=lambda name: known[name].p or 0.0)
    held = [n for n, name in enumerate(ordered, 1) if (known[name].p or 0.0) <= n * false_share / len(ordered)]
    found = set(ordered[: max(held, default=0)])
    return {
        name: "not separated" if name not in found else "better" if delta.mean > 0 else "worse"
        for name, delta in known.items()
    }
