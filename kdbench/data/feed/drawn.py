"""Which rows a batch holds, and which of finitely many pictures was made of each: what a row's answer is known by."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HELD = 8
"""Batches that are known at a time; a step of several draws asks about them all."""


class Choice:
    """Which of all pictures that an augmentation can make was made of each row.

    Attributes:
        number: (N,) int64, None as long as nothing was chosen.
        of: how many pictures there are.
    """

    def __init__(self) -> None:
        self.number: Tensor | None = None
        self.of = 1

    def add(self, number: Tensor, of: int) -> None:
        """One more operation made picture ``number``, (N,) int64, of so many."""
        self.number = number if self.number is None else self.number * of + number
        self.of *= of


@dataclass(frozen=True)
class Drawn:
    """What one input of a batch holds.

    Attributes:
        numbers: (N,) int64 on the CPU, below ``of``: row and picture of each.
        of: pictures of all rows together.
        batch: rows of a whole batch of the stage; the last of an epoch may hold fewer.
    """

    numbers: NDArray[np.int64]
    of: int
    batch: int


class Draws:
    """Inputs of the last batches, each known by its own tensor, and only until anybody changes its values.

    Args:
        rows: training rows of the source.
        numbers: of each row that is drawn from the number among these; None where they are all.
    """

    def __init__(self, rows: int, numbers: NDArray[np.int64] | None = None) -> None:
        self._rows, self._numbers = rows, numbers
        self._held: deque[tuple[weakref.ref[Tensor], int, Tensor, Choice, int]] = deque(maxlen=HELD)

    def note(self, x: Tensor, index: Tensor, choice: Choice, batch: int) -> None:
        """A batch was drawn.

        Args:
            x: (N, ...) values of an input, as networks see them.
            index: (N,) row numbers.
            batch: rows of a whole batch.
        """
        self._held.append((weakref.ref(x), x._version, index, choice, batch))

    def of(self, x: Any) -> Drawn | None:
        """What an input holds; None of values that no batch came with, such as mixed or cut out ones."""
        for held, version, index, choice, batch in reversed(self._held):
            if held() is x and isinstance(x, Tensor):
                return self._drawn(index, choice, batch) if x._version == version and not x.requires_grad else None
        return None

    def _drawn(self, index: Tensor, choice: Choice, batch: int) -> Drawn:
        if choice.number is None:
            rows = index.cpu().numpy()
            return Drawn(rows if self._numbers is None else self._numbers[rows], self._rows, batch)
        rows, pictures = torch.stack([index, choice.number]).cpu().numpy()  # one wait
        rows = rows if self._numbers is None else self._numbers[rows]
        return Drawn(rows * choice.of + pictures, self._rows * choice.of, batch)
