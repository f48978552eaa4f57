"""Modules that bring a student map to the shape of a teacher map: convolution, batch norm, activation.

Shapes are those of one map without the batch, (C, *size), with one to three axes of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
"""Layers by the number of axes of a map."""


class ConvBN(nn.Module):
    """A convolution, batch norm of what it gives, and an activation if there is one."""

    def __init__(self, conv: Any, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.bn = NORM[len(conv.kernel_size)](conv.out_channels)
        self.activation = activation or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn(self.conv(x)))


def sized_conv(student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    """The convolution, with bias, from a student map to a teacher map, by the size rule of RepDistiller's FitNet.

    On each axis: twice the size, kernel 3 with stride 2; half the size, a transposed kernel 4 with stride 2; equal or
    larger, kernel 1 + difference.

    Args:
        student, teacher: (C, *size), with equally many axes.

    Raises:
        ValueError: an axis where the teacher is larger but not twice as large, or axes that go both ways.
    """
    rules = [_rule(s, t) for s, t in zip(student[1:], teacher[1:], strict=True)]
    larger = any(s < t for s, t in zip(student[1:], teacher[1:], strict=True))
    shrinks = any(s > t for s, t in zip(student[1:], teacher[1:], strict=True))
    if None in rules or (larger and shrinks):
        raise ValueError(
            f"no convolution is defined from maps of {_size(student)} to maps of {_size(teacher)}; a student map must "
            "be half the teacher's size, or at least its size, on every axis"
        )
    kernel, stride, padding = zip(*(rule for rule in rules if rule is not None), strict=True)
    layer = (TRANSPOSED if larger else CONV)[len(rules)]
    conv: nn.Module = layer(student[0], teacher[0], kernel, stride, padding)
    return conv


def _rule(student: int, teacher: int) -> tuple[int, int, int] | None:
    """Kernel, stride and padding on one axis."""
    if student == 2 * teacher:
        return 3, 2, 1
    if 2 * student == teacher:
        return 4, 2, 1
    return (1 + student - teacher, 1, 0) if student >= teacher else None


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[1:]))


def regressor(student: Sequence[int], teacher: Sequence[int], activation: nn.Module | None = None) -> ConvBN:
    """:func:`sized_conv` and batch norm, then ``activation``; from (C, *size) to (C, *size)."""
    return ConvBN(sized_conv(student, teacher), activation)


def pointwise(student: int, teacher: int, axes: int = 2) -> ConvBN:
    """A size-1 convolution without bias between channel counts, and batch norm."""
    return ConvBN(CONV[axes](student, teacher, 1, bias=False))
