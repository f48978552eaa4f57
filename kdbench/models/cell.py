"""Small residual backbones of detectors: stages at strides 4, 8, 16 and 32 behind a stem of stride 2."""

from __future__ import annotations

from functools import partial

from torch import nn

from kdbench.models.base import GlobalPool, Staged, Trunk, conv_norm
from kdbench.models.resnet import BasicBlock, ResNet, residual_stage

STAGES = 4


class Cell(Staged):
    """A 3x3 stem of stride 2, four stages of basic blocks (widths w, 2w, 4w, 8w, each halving), pool, linear.

    Args:
        width: w, of the stem too.
        depth: blocks of each stage.
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
    """

    def __init__(self, width: int, depth: int, in_channels: int, outputs: int) -> None:
        stem = nn.Sequential(conv_norm(in_channels, width, 3, 2), nn.ReLU())
        widths = [width * 2**stage for stage in range(STAGES)]
        inputs = [width, *widths]
        stages = [residual_stage(BasicBlock, i, o, depth, 2) for i, o in zip(inputs, widths, strict=False)]
        again = partial(residual_stage, BasicBlock, widths[-1], widths[-1], depth, 1)
        super().__init__(stem, Trunk(stages, GlobalPool()), widths[-1], outputs, again)

    initialise = staticmethod(ResNet.initialise)


def build(input_shape: tuple[int, ...], outputs: int, width: int, depth: int) -> Cell:
    """A :class:`Cell` for (channels, height, width) inputs."""
    return Cell(width, depth, input_shape[0], outputs)
