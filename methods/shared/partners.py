"""Second rows for the rows of a batch, drawn on the CPU when an epoch is ordered (``Stage.partners``)."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.contract import NotApplicable


class SameClass:
    """Draws for each row one of its class, uniformly; it may be the row itself.

    Args:
        labels: (n,) class of each training row.

    Raises:
        NotApplicable: a class has one row.
    """

    def __init__(self, labels: Tensor) -> None:
        self._labels = labels.cpu()
        self._size = self._labels.bincount()
        if len(lone := (self._size == 1).nonzero()):
            raise NotApplicable(f"it pairs rows of one class, and class {int(lone[0])} has one training row")
        self._by_class = self._labels.argsort(stable=True)
        self._start = self._size.cumsum(0) - self._size

    def __call__(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """(N,) row numbers.

        Args:
            rows: (N,) row numbers, on the CPU.
            rng: on the CPU.
        """
        y = self._labels[rows]
        place = torch.rand(len(rows), generator=rng, dtype=torch.float64) * self._size[y]
        return self._by_class[self._start[y] + place.long()]
