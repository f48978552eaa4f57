"""R(2+1)D nets for clips: Tran et al. 2018, arXiv 1711.11248."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from kdbench.models.base import Blocks, ConvNorm, GlobalPool, Staged, Trunk

Triple = tuple[int, int, int]


class FactoredConv(nn.Sequential):
    """A convolution over the frame, batch norm, ReLU, a convolution over time; no bias.

    The width between is the largest at which it has no more weights than the full 3-D convolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        t, h, w = kernel
        middle = t * h * w * inputs * outputs // (h * w * inputs + t * outputs)
        frame = nn.Conv3d(inputs, middle, (1, h, w), (1, *stride[1:]), (0, h // 2, w // 2), bias=False)
        time = nn.Conv3d(middle, outputs, (t, 1, 1), (stride[0], 1, 1), (t // 2, 0, 0), bias=False)
        super().__init__(ConvNorm(frame, nn.BatchNorm3d(middle)), nn.ReLU(), time)


def factored_norm(inputs: int, outputs: int, kernel: Triple, stride: int = 1) -> ConvNorm:
    """A factored convolution of equal strides and its batch norm."""
    return ConvNorm(FactoredConv(inputs, outputs, kernel, (stride, stride, stride)), nn.BatchNorm3d(outputs))


class ClipBlock(nn.Module):
    """Two 3x3x3 factored convolutions around a shortcut; returns the sum before its ReLU.

    The shortcut is a factored 1x1x1 convolution with batch norm where the block halves the clip, else the identity.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = factored_norm(inputs, outputs, (3, 3, 3), stride)
        self.second = factored_norm(outputs, outputs, (3, 3, 3))
        self.shortcut = nn.Identity() if stride == 1 else factored_norm(inputs, outputs, (1, 1, 1), stride)

    @property
    def norm(self) -> nn.Module:
        return self.second.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()) + self.shortcut(x)


def clip_stage(inputs: int, width: int, depth: int, stride: int) -> Blocks:
    """``depth`` blocks, the first from ``inputs`` channels at ``stride``."""
    return Blocks([ClipBlock(inputs, width, stride), *(ClipBlock(width, width, 1) for _ in range(depth - 1))])


class R2Plus1d(Staged):
    """3x7x7 stem that halves the frame, four stages (each but the first halves time and frame), pool, linear.

    Input (N, in_channels, T, H, W); maps are (N, C, T, H, W).

    Args:
        depths: blocks of each stage.
        width: channels of the stem and of the first stage; each further stage doubles them.
        in_channels: channels of a frame.
        outputs: classes, or 1 for a regression.
    """

    def __init__(self, depths: Sequence[int], width: int, in_channels: int, outputs: int) -> None:
        stem = nn.Sequential(
            ConvNorm(FactoredConv(in_channels, width, (3, 7, 7), (1, 2, 2)), nn.BatchNorm3d(width)), nn.ReLU()
        )
        inputs, stages = width, []
        for number, depth in enumerate(depths):
            stages.append(clip_stage(inputs, width << number, depth, 2 if number else 1))
            inputs = width << number
        again = partial(clip_stage, inputs, inputs, depths[-1], 1)
        super().__init__(stem, Trunk(stages, GlobalPool()), inputs, outputs, again)


def build(input_shape: tuple[int, ...], outputs: int, depths: Sequence[int], width: int) -> R2Plus1d:
    """An :class:`R2Plus1d` for (channels, frames, height, width) inputs."""
    return R2Plus1d(depths, width, input_shape[0], outputs)
