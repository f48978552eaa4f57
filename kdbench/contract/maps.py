"""Targets of pictures that have a class at every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORED = 255
"""In a map: neither target nor error."""


@dataclass(frozen=True, eq=False)
class Maps:
    """The classes of N pictures' pixels.

    Attributes:
        labels: (N, H, W) uint8 classes 0 to C - 1, C at most 255, or ``IGNORED``.
    """

    labels: Tensor

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or self.labels.dtype is not torch.uint8:
            raise ValueError(f"maps are (N, H, W) uint8, not {tuple(self.labels.shape)} {self.labels.dtype}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Maps:
        return Maps(self.labels[index])

    def to(self, device: torch.device) -> Maps:
        return Maps(self.labels.to(device))

    def repeat(self, times: int) -> Maps:
        return Maps(self.labels.repeat(times, 1, 1))

    def tensors(self) -> dict[str, Tensor]:
        return {"labels": self.labels}

    def tolist(self) -> list[Any]:
        return self.labels.tolist()

    def join(self, other: Maps) -> Maps:
        return Maps(torch.cat([self.labels, other.labels]))

    # Moves, see :class:`kdbench.contract.targets.Placed`

    def mirrored(self, which: Tensor, axis: int, side: int) -> Maps:
        return Maps(torch.where(which[:, None, None], self.labels.flip(1 + axis), self.labels))

    def transposed(self, which: Tensor) -> Maps:
        return Maps(torch.where(which[:, None, None], self.labels.transpose(1, 2), self.labels))

    def shown(self, corners: Tensor, size: tuple[int, int]) -> Tensor:
        """Every window has its classes."""
        return torch.ones(corners.shape[:2], dtype=torch.bool, device=corners.device)

    def window(self, corners: Tensor, size: tuple[int, int]) -> Maps:
        return Maps(cut(self.labels[:, None], corners, size)[:, 0])


def cut(pixels: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """The window of each picture, (N, C, *size).

    Args:
        pixels: (N, C, H, W).
        corners: (N, 2) top and left.
    """
    (top, left), device = corners.unbind(1), pixels.device
    rows = (top[:, None] + torch.arange(size[0], device=device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(size[1], device=device))[:, None, None, :]
    pictures = torch.arange(len(pixels), device=device)[:, None, None, None]
    channels = torch.arange(pixels.shape[1], device=device)[None, :, None, None]
    return pixels[pictures, channels, rows, columns]
