"""One minus the cosine of two tensors, row by row."""

from __future__ import annotations

from torch import Tensor

from kdbench.methods.shared.matching import unit


def apart(a: Tensor, b: Tensor) -> Tensor:
    """(N,) of (N, ...) and (N, ...) of one shape, each row as one vector; a row of zeros is at 1 from any other."""
    return 1 - (unit(a.flatten(1)) * unit(b.flatten(1))).sum(dim=1)
