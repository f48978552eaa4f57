"""MobileNetV2 at half width for 32x32 images: Sandler et al. 2018, arXiv 1801.04381, with ReLU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from kdbench.models.base import GlobalPool, Staged, Trunk, conv_norm, fan_out_normal
from kdbench.models.published import KINDS, Rule, renamed

GROUPS = ((1, 8, 1, 1), (6, 12, 2, 1), (6, 16, 3, 2), (6, 32, 4, 2), (6, 48, 3, 1), (6, 80, 3, 2), (6, 160, 1, 1))
"""Expansion, channels, blocks and first stride of each group of inverted residuals; channels are halved already."""

STEM, HEAD = 16, 1280

STAGE_ENDS = (2, 3, 5, 7)
"""Stages end after these groups, counted from 1."""


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution, 1x1 linear projection; input added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expand = conv_norm(inputs, middle, 1)
        self.depthwise = conv_norm(middle, middle, 3, stride, groups=middle)
        self.project = conv_norm(middle, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    @property
    def norm(self) -> nn.Module:
        return self.project.norm

    def forward(self, x: Tensor) -> Tensor:
        branch = self.project(self.depthwise(self.expand(x).relu()).relu())
        return x + branch if self.residual else branch


class LinearStage(nn.Module):
    """Blocks that end without an activation: the map before and after it is one tensor."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    @property
    def norm(self) -> Any:
        return self.blocks[-1].norm

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(x)
        return x, x


Group = tuple[int, int, int, int]


def linear_stage(inputs: int, groups: Sequence[Group], strides: bool = True) -> LinearStage:
    """The blocks of some groups, the first from ``inputs`` channels; at stride 1 throughout unless ``strides``."""
    blocks = []
    for expansion, width, count, stride in groups:
        for place in range(count):
            blocks.append(InvertedResidual(inputs, width, expansion, stride if strides and not place else 1))
            inputs = width
    return LinearStage(blocks)


PARTS = ("expand.conv", "expand.norm", "", "depthwise.conv", "depthwise.norm", "", "project.conv", "project.norm")


def _block(group: int, place: int) -> str:
    """Our name of the published group's block at a place."""
    stage = next((number for number, end in enumerate(STAGE_ENDS) if group < end), len(STAGE_ENDS))
    before = sum(count for _, _, count, _ in GROUPS[(0, *STAGE_ENDS)[stage] : group])
    return f"trunk.stages.{stage}.blocks.{before + place}"


PUBLISHED: tuple[Rule, ...] = (
    (r"conv1\.([01])", lambda m: f"stem.0.{KINDS[m[1]]}"),
    (r"blocks\.(\d+)\.(\d+)\.conv\.([0-7])", lambda m: f"{_block(int(m[1]), int(m[2]))}.{PARTS[int(m[3])]}"),
    (r"conv2\.([01])", lambda m: f"trunk.head.0.{KINDS[m[1]]}"),
    (r"classifier\.0", "fc"),
)


class MobileNetV2(Staged):
    """3x3 stem, inverted residuals in four stages, 1x1 convolution to 1280, global average pool, linear.

    Maps are linear bottlenecks, with negative values; ``preact`` holds the same tensors.

    Args:
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
        stem_stride: 2; some papers use 1, which doubles every resolution at the same parameter count.
    """

    def __init__(self, in_channels: int, outputs: int, stem_stride: int = 2) -> None:
        stem = nn.Sequential(conv_norm(in_channels, STEM, 3, stem_stride), nn.ReLU())
        parts = [GROUPS[start:end] for start, end in pairwise((0, *STAGE_ENDS))]
        widths = [part[-1][1] for part in parts]
        stages = [linear_stage(inputs, part) for inputs, part in zip((STEM, *widths), parts, strict=False)]
        head = nn.Sequential(conv_norm(widths[-1], HEAD, 1), nn.ReLU(), GlobalPool())
        again = partial(linear_stage, widths[-1], parts[-1], strides=False)
        super().__init__(stem, Trunk(stages, head), HEAD, outputs, again)

    @staticmethod
    def published_key(key: str) -> str | None:
        return renamed(key, PUBLISHED)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Convolutions by fan-out, classifier from N(0, 0.01 squared) with bias 0."""
        if isinstance(module, nn.Conv2d):
            fan_out_normal(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)


def build(input_shape: tuple[int, ...], outputs: int, stem_stride: int = 2) -> MobileNetV2:
    """A :class:`MobileNetV2` for (channels, height, width) inputs."""
    return MobileNetV2(input_shape[0], outputs, stem_stride)
