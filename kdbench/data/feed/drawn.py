"""Which rows a batch holds, and which of finitely many pictures was made of each: what a row's answer is known by."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HELD = 8
"""Batches that are known at a time; a step of several draws asks about them all."""
Told = TypeVar("Told")


class ByTensor(Generic[Told]):
    """What is known of some tensors, each known by itself, and only until anybody changes its values.

    Args:
        most: tensors that are known at a time, the last ones; None for all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._held: deque[tuple[weakref.ref[Tensor], int, Told]] = deque(maxlen=most)

    def note(self, x: Tensor, told: Told) -> None:
        """Something is known of a tensor's values as they are."""
        self._held.append((weakref.ref(x), x._version, told))

    def of(self, x: Any) -> Told | None:
        """What is known of a tensor; None of values that are others, such as mixed or cut out ones."""
        for held, version, told in reversed(self._held):
            if held() is x and isinstance(x, Tensor):
                return told if x._version == version and not x.requires_grad else None
        return None


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
    """What the inputs of the last batches hold.

    Args:
        rows: training rows of the source.
        numbers: of each row that is drawn from the number among these; None where they are all.
    """

    def __init__(self, rows: int, numbers: NDArray[np.int64] | None = None) -> None:
        self._rows, self._numbers = rows, numbers
        self._held: ByTensor[tuple[Tensor, Choice, int]] = ByTensor(HELD)

    def note(self, x: Tensor, index: Tensor, choice: Choice, batch: int) -> None:
        """A batch was drawn.

        Args:
            x: (N, ...) values of an input, as networks see them.
            index: (N,) row numbers.
            batch: rows of a whole batch.
        """
        self._held.note(x, (index, choice, batch))

    def of(self, x: Any) -> Drawn | None:
        """What an input holds; None of values that no batch came with, such as mixed or cut out ones."""
        told = self._held.of(x)
        return None if told is None else self._drawn(*told)

    def _drawn(self, index: Tensor, choice: Choice, batch: int) -> Drawn:
        if choice.number is None:
            rows = index.cpu().numpy()
            return Drawn(rows if self._numbers is None else self._numbers[rows], self._rows, batch)
        rows, pictures = torch.stack([index, choice.number]).cpu().numpy()  # one wait
        rows = rows if self._numbers is None else self._numbers[rows]
        return Drawn(rows * choice.of + pictures, self._rows * choice.of, batch)
