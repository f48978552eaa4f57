"""How far two quantities rise and fall together, by their ranks alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation, Pearson's of midranks (1904, The American Journal of Psychology 15).

    Returns:
        A number from -1 to 1; None of fewer than three pairs, or where one side is constant.
    """
    if len(x) < 3 or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    return float(np.corrcoef(_midranks(x), _midranks(y))[0, 1])


def _midranks(values: Sequence[float]) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    below = (found[None, :] < found[:, None]).sum(axis=1)
    equal = (found[None, :] == found[:, None]).sum(axis=1)
    return below + (equal + 1) / 2
