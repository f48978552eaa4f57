"""McNemar's test of two classifiers on the same items, exact: only the items that tell them apart count."""

from __future__ import annotations

from scipy.stats import binomtest


def mcnemar(first_alone: int, second_alone: int) -> float:
    """Two-sided p-value of equal error rates: items right in one alone fall on either side like a fair coin.

    Args:
        first_alone, second_alone: items that the one classifies rightly and the other does not.

    Returns:
        1 where no item tells them apart.
    """
    total = first_alone + second_alone
    return float(binomtest(first_alone, total).pvalue) if total else 1.0
