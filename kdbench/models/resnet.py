"""Residual nets for 32x32 images, after He et al. 2016 (arXiv 1512.03385), as the distillation literature builds them.

Unlike the CIFAR nets of that paper, every shortcut that changes width or resolution is a 1x1 convolution with batch
norm, so parameter counts differ from papers that pad with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from kdbench.models.base import Blocks, GlobalPool, Staged, Trunk, conv_norm, fan_out_normal
from kdbench.models.published import KINDS, Rule, renamed


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Identity where shapes agree, else a 1x1 convolution with batch norm."""
    return nn.Identity() if stride == 1 and inputs == outputs else conv_norm(inputs, outputs, 1, stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; returns the sum before its ReLU."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = conv_norm(inputs, width, 3, stride)
        self.second = conv_norm(width, width, 3)
        self.shortcut = shortcut(inputs, width, stride)

    @property
    def norm(self) -> nn.Module:
        return self.second.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()) + self.shortcut(x)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the width, around a shortcut; returns the sum before its ReLU."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.first = conv_norm(inputs, width, 1)
        self.second = conv_norm(width, width, 3, stride)
        self.third = conv_norm(width, outputs, 1)
        self.shortcut = shortcut(inputs, outputs, stride)

    @property
    def norm(self) -> nn.Module:
        return self.third.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x).relu()).relu()) + self.shortcut(x)


Block = type[BasicBlock] | type[Bottleneck]
BLOCKS: dict[str, Block] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def residual_stage(block: Block, inputs: int, width: int, depth: int, stride: int) -> Blocks:
    """``depth`` blocks, the first from ``inputs`` channels at ``stride``."""
    others = (block(width * block.expansion, width, 1) for _ in range(depth - 1))
    return Blocks([block(inputs, width, stride), *others])


ORDINALS = ("first", "second", "third")
PUBLISHED: tuple[Rule, ...] = (
    (r"(conv|bn)1", lambda m: f"stem.0.{KINDS[m[1]]}"),
    (
        r"layer(\d)\.(\d+)\.(conv|bn)([123])",
        lambda m: f"trunk.stages.{int(m[1]) - 1}.blocks.{m[2]}.{ORDINALS[int(m[4]) - 1]}.{KINDS[m[3]]}",
    ),
    (
        r"layer(\d)\.(\d+)\.(?:downsample|shortcut)\.([01])",
        lambda m: f"trunk.stages.{int(m[1]) - 1}.blocks.{m[2]}.shortcut.{KINDS[m[3]]}",
    ),
    (r"fc|linear", "fc"),
)


class ResNet(Staged):
    """3x3 stem without pooling, stages of residual blocks, global average pool, linear.

    Maps follow the last ReLU of each stage, ``preact`` is the sum before it. :meth:`norm` describes the residual branch
    of that sum alone, as overhaul distillation uses it.

    Args:
        block: ``basic`` or ``bottleneck``.
        depths: blocks of each stage; the first stage keeps the resolution, each other halves it.
        widths: of the stem, then of each stage before expansion.
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
    """

    def __init__(
        self, block: str, depths: Sequence[int], widths: Sequence[int], in_channels: int, outputs: int
    ) -> None:
        kind = BLOCKS[block]
        stem = nn.Sequential(conv_norm(in_channels, widths[0], 3), nn.ReLU())
        inputs, stages = widths[0], []
        for number, (depth, width) in enumerate(zip(depths, widths[1:], strict=True)):
            stages.append(residual_stage(kind, inputs, width, depth, 2 if number else 1))
            inputs = width * kind.expansion
        again = partial(residual_stage, kind, inputs, widths[-1], depths[-1], 1)
        super().__init__(stem, Trunk(stages, GlobalPool()), inputs, outputs, again)

    @staticmethod
    def published_key(key: str) -> str | None:
        return renamed(key, PUBLISHED)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Convolutions by fan-out; batch norms and the classifier keep the framework's defaults."""
        if isinstance(module, nn.Conv2d):
            fan_out_normal(module.weight)


def build(
    input_shape: tuple[int, ...], outputs: int, depths: Sequence[int], widths: Sequence[int], block: str = "basic"
) -> ResNet:
    """A :class:`ResNet` for (channels, height, width) inputs."""
    return ResNet(block, depths, widths, input_shape[0], outputs)
