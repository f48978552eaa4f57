"""ShuffleNet for 32x32 images: V1 (Zhang et al. 2018, arXiv 1707.01083) with 3 groups, V2 (Ma et al. 2018, arXiv
1807.11164) at width 1. Weights start from the framework's defaults; no stage ends in a batch norm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.base import Blocks, GlobalPool, Staged, Trunk, conv_norm
from kdbench.models.published import KINDS, Rule, renamed

STEM = 24
GROUPS = 3
DEPTHS = (4, 8, 4)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleaves the channels of ``groups`` equal parts."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def stem(in_channels: int) -> nn.Module:
    """1x1 convolution to 24 channels at full resolution."""
    return nn.Sequential(conv_norm(in_channels, STEM, 1), nn.ReLU())


class GroupedUnit(nn.Module):
    """Unit of V1, before its ReLU: the branch is added to the input, or at stride 2 put before the pooled input.

    Args:
        relu: one behind the depthwise convolution too.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        own = outputs - inputs if stride == 2 else outputs
        middle = own // 4
        self.groups = 1 if inputs == STEM else GROUPS
        self.stride = stride
        self.first = conv_norm(inputs, middle, 1, groups=self.groups)
        self.depthwise = conv_norm(middle, middle, 3, stride, groups=middle)
        self.last = conv_norm(middle, own, 1, groups=GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        middle = self.depthwise(shuffle(self.first(x).relu(), self.groups))
        branch = self.last(middle.relu() if self.relu else middle)
        if self.stride == 1:
            return branch + x
        return torch.cat([branch, F.avg_pool2d(x, 3, 2, padding=1)], 1)


def grouped_stage(inputs: int, width: int, depth: int, stride: int = 2, relu: bool = False) -> Blocks:
    """``depth`` units of V1, the first from ``inputs`` channels at ``stride``."""
    others = (GroupedUnit(width, width, 1, relu) for _ in range(depth - 1))
    return Blocks([GroupedUnit(inputs, width, stride, relu), *others])


def _published(kinds: Sequence[str], first: Sequence[str], units: str) -> tuple[Rule, ...]:
    """Rules by the names of a unit's convolutions in the literature's order, those of a stage's first unit apart."""

    def part(m: re.Match[str]) -> str:
        name = (kinds if int(m[2]) else first)[int(m[4]) - 1]
        return f"trunk.stages.{int(m[1]) - 1}.{units}.{m[2]}.{name}.{KINDS[m[3]]}"

    return (
        (r"(conv|bn)1", lambda m: f"stem.0.{KINDS[m[1]]}"),
        (rf"layer(\d)\.(0)\.(conv|bn)([1-{len(first)}])", part),
        (rf"layer(\d)\.(\d+)\.(conv|bn)([1-{len(kinds)}])", part),
        (r"(conv|bn)2", lambda m: f"trunk.head.0.{KINDS[m[1]]}"),
        (r"linear", "fc"),
    )


UNIT = ("first", "depthwise", "last")
PUBLISHED_V1 = _published(UNIT, UNIT, "blocks")
PUBLISHED_V2 = _published(UNIT, ("left_depthwise", "left_last", *UNIT), "units")


class ShuffleNetV1(Staged):
    """1x1 stem, three stages of 240, 480 and 960 channels, global average pool, linear.

    Args:
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
        relu: behind the depthwise convolutions too, as the literature's code has it and the paper has not.
    """

    def __init__(self, in_channels: int, outputs: int, relu: bool = False) -> None:
        widths = (STEM, 240, 480, 960)
        stage = partial(grouped_stage, relu=relu)
        stages = map(stage, widths, widths[1:], DEPTHS)
        again = partial(stage, widths[-1], widths[-1], DEPTHS[-1], 1)
        super().__init__(stem(in_channels), Trunk(stages, GlobalPool()), widths[-1], outputs, again)
        if not relu:
            self.unlike_published = "its units have, as in the paper, no ReLU behind the depthwise convolution; " + (
                "those weights' net has it: name the net shufflenetv1_relu"
            )

    @staticmethod
    def published_key(key: str) -> str | None:
        return renamed(key, PUBLISHED_V1)


class SplitUnit(nn.Module):
    """Basic unit of V2: the first half of the channels passes, the second goes through the branch.

    Returns both halves, the second before its ReLU.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.first = conv_norm(half, half, 1)
        self.depthwise = conv_norm(half, half, 3, groups=half)
        self.last = conv_norm(half, half, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = x.chunk(2, 1)
        return left, self.last(self.depthwise(self.first(right).relu()))


class DownUnit(nn.Module):
    """First unit of a stage of V2: two branches of half the new width. Returns both, the second before its ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left_depthwise = conv_norm(inputs, inputs, 3, stride, groups=inputs)
        self.left_last = conv_norm(inputs, half, 1)
        self.first = conv_norm(inputs, half, 1)
        self.depthwise = conv_norm(half, half, 3, stride, groups=half)
        self.last = conv_norm(half, half, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left = self.left_last(self.left_depthwise(x)).relu()
        return left, self.last(self.depthwise(self.first(x).relu()))


class SplitStage(nn.Module):
    """Units of V2 at one resolution. The map is shuffled; before the activation it is not: their channels differ."""

    norm = None

    def __init__(self, units: Iterable[nn.Module]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for unit in self.units:
            left, right = unit(x)
            x = shuffle(torch.cat([left, right.relu()], 1), 2)
        return x, torch.cat([left, right], 1)


def split_stage(inputs: int, width: int, depth: int, stride: int = 2) -> SplitStage:
    """``depth`` units of V2, the first from ``inputs`` channels at ``stride``."""
    return SplitStage([DownUnit(inputs, width, stride), *(SplitUnit(width) for _ in range(depth - 1))])


class ShuffleNetV2(Staged):
    """1x1 stem, three stages of 116, 232 and 464 channels, 1x1 convolution to 1024, global average pool, linear.

    Args:
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
    """

    def __init__(self, in_channels: int, outputs: int) -> None:
        widths = (STEM, 116, 232, 464)
        stages = map(split_stage, widths, widths[1:], DEPTHS)
        again = partial(split_stage, widths[-1], widths[-1], DEPTHS[-1], 1)
        head = nn.Sequential(conv_norm(widths[-1], 1024, 1), nn.ReLU(), GlobalPool())
        super().__init__(stem(in_channels), Trunk(stages, head), 1024, outputs, again)

    @staticmethod
    def published_key(key: str) -> str | None:
        return renamed(key, PUBLISHED_V2)


VERSIONS = {1: ShuffleNetV1, 2: ShuffleNetV2}


def build(input_shape: tuple[int, ...], outputs: int, version: int, **settings: Any) -> Staged:
    """A :class:`ShuffleNetV1` or :class:`ShuffleNetV2` for (channels, height, width) inputs."""
    return VERSIONS[version](input_shape[0], outputs, **settings)
