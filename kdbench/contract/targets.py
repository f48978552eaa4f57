"""Targets that are no tensor of one entry a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor


class Targets(Protocol):
    """Targets that are no tensor of one entry a row; the engine asks no more of them than this."""

    def __len__(self) -> int:
        """Rows."""

    def __getitem__(self, index: Tensor | slice) -> Self:
        """The targets of some rows, in the order of ``index``."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""

    def repeat(self, times: int) -> Self:
        """Those of all rows, ``times`` one after the other: view-major, as inputs are."""

    def tensors(self) -> Mapping[str, Tensor]:
        """All that they hold, by name: what a digest covers, and what is copied."""

    def tolist(self) -> list[Any]:
        """One entry a row, as plain values."""

    def join(self, other: Self) -> Self:
        """The rows of ``other`` behind these."""


@runtime_checkable
class Kept(Protocol):
    """A part of targets that stays where it is kept, on disk, and is read when rows are drawn."""

    @property
    def digest(self) -> str:
        """Identifies the content."""

    def __len__(self) -> int:
        """Rows."""

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Those of some rows, on the CPU."""

    def select(self, index: Tensor) -> Self:
        """Some rows, not read yet."""


@runtime_checkable
class Placed(Targets, Protocol):
    """Targets that are places in their pictures and move with them; N pictures of H x W pixels."""

    def mirrored(self, which: Tensor, axis: int, side: int) -> Self:
        """Those of some pictures, (N,) bool, mirrored left to right (``axis`` 1) or top to bottom (0).

        Args:
            side: pixels of the pictures along the axis.
        """

    def transposed(self, which: Tensor) -> Self:
        """Those of some square pictures, (N,) bool, with their axes exchanged."""

    def shown(self, corners: Tensor, size: tuple[int, int]) -> Tensor:
        """(T, N) bool, whether windows of ``size`` (height, width) at (T, N, 2) top and left show any target."""

    def window(self, corners: Tensor, size: tuple[int, int]) -> Self:
        """What windows of ``size`` (height, width) at (N, 2) top and left show of them."""


def picked(counts: Tensor, index: Tensor | slice) -> tuple[Tensor, Tensor]:
    """Of packed values, ``counts`` a row, where those of some rows lie, and how many each of these has."""
    rows = torch.arange(len(counts), device=counts.device)[index]
    chosen = counts[rows]
    begins = (counts.cumsum(0) - counts)[rows]
    ahead = (chosen.cumsum(0) - chosen).repeat_interleave(chosen)
    within = torch.arange(int(chosen.sum()), device=rows.device) - ahead
    return begins.repeat_interleave(chosen) + within, chosen


@dataclass(frozen=True, eq=False)
class Ragged:
    """Targets of which each row has its own number, such as the words of a sentence; a row may have none.

    Attributes:
        values: (M, ...) of all rows, one row after the other.
        counts: (N,) int64, how many each row has; M is their sum.
    """

    values: Tensor
    counts: Tensor

    def __post_init__(self) -> None:
        if int(self.counts.sum()) != len(self.values):
            raise ValueError(f"counts sum to {int(self.counts.sum())}, there are {len(self.values)} values")

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], dtype: torch.dtype) -> Ragged:
        """From one list a row."""
        flat = [value for row in rows for value in row]
        return cls(torch.tensor(flat, dtype=dtype), torch.tensor([len(row) for row in rows], dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor | slice) -> Ragged:
        places, counts = picked(self.counts, index)
        return Ragged(self.values[places], counts)

    @property
    def row(self) -> Tensor:
        """(M,) the row each value belongs to."""
        return torch.arange(len(self), device=self.counts.device).repeat_interleave(self.counts)

    def to(self, device: torch.device) -> Ragged:
        return Ragged(self.values.to(device), self.counts.to(device))

    def repeat(self, times: int) -> Ragged:
        return Ragged(self.values.repeat(times, *[1] * (self.values.ndim - 1)), self.counts.repeat(times))

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.values, "counts": self.counts}

    def tolist(self) -> list[Any]:
        return [part.tolist() for part in self.values.split(self.counts.tolist())]

    def join(self, other: Ragged) -> Ragged:
        return Ragged(torch.cat([self.values, other.values]), torch.cat([self.counts, other.counts]))
