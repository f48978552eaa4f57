"""Wide residual nets for 32x32 images: Zagoruyko & Komodakis 2016, arXiv 1605.07146; no dropout."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from kdbench.models.base import GlobalPool, Staged, Taps, Trunk, conv_norm, fan_out_normal
from kdbench.models.published import Rule, renamed


class WideBlock(nn.Module):
    """Pre-activation block: (batch norm, ReLU, 3x3) twice, around a shortcut.

    The caller applies ``norm``, so that a stage's first norm is computed once and can be tapped. A shortcut that
    changes width starts from the activated input, the identity from the raw one.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.first = conv_norm(inputs, outputs, 3, stride)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        active = normed.relu()
        branch = self.second(self.first(active).relu())
        return branch + (x if self.shortcut is None else self.shortcut(active))


class WideStage(nn.Module):
    """Blocks at one resolution. ``norm`` is the norm the first one starts with, applied by the caller."""

    def __init__(self, blocks: Iterable[WideBlock]) -> None:
        super().__init__()
        self.blocks: Any = nn.ModuleList(blocks)

    @property
    def norm(self) -> Any:
        return self.blocks[0].norm

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        for place, block in enumerate(self.blocks):
            x = block(x, block.norm(x) if place else normed)
        return x


def wide_stage(inputs: int, width: int, stride: int, blocks: int) -> WideStage:
    """``blocks`` blocks, the first from ``inputs`` channels at ``stride``."""
    return WideStage([WideBlock(inputs, width, stride), *(WideBlock(width, width, 1) for _ in range(blocks - 1))])


class WideHead(nn.Module):
    """Final norm (applied by the caller), ReLU, global average pool."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.pool = GlobalPool()

    def forward(self, normed: Tensor) -> Tensor:
        return self.pool(normed.relu())


class WideTrunk(Trunk):
    """A stage's map is the raw residual stream; before the activation it is what the next norm makes of it."""

    def forward(self, x: Tensor) -> Taps:
        maps, preact = [], []
        steps = [*self.stages, self.head]
        normed = steps[0].norm(x)
        for stage, following in pairwise(steps):
            x = stage(x, normed)
            normed = following.norm(x)
            maps.append(x)
            preact.append(normed)
        return Taps(tuple(maps), tuple(preact), self.head(normed))

    def norm(self, stage: int) -> Any:
        return [*self.stages[1:], self.head][stage].norm


PARTS = {"bn1": "norm", "conv1": "first.conv", "bn2": "first.norm", "conv2": "second", "convShortcut": "shortcut"}
PUBLISHED: tuple[Rule, ...] = (
    (r"conv1", "stem"),
    (
        rf"block(\d)\.layer\.(\d+)\.({'|'.join(PARTS)})",
        lambda m: f"trunk.stages.{int(m[1]) - 1}.blocks.{m[2]}.{PARTS[m[3]]}",
    ),
    (r"bn1", "trunk.head.norm"),
    (r"fc", "fc"),
)


class WideResNet(Staged):
    """3x3 stem convolution, three stages, batch norm, ReLU, global average pool, linear.

    Stem and maps are raw sums, with negative values; ``preact`` is the following batch norm of each map, and ``emb`` is
    pooled after the last of them and its ReLU.

    Args:
        depth: 6 n + 4 for n blocks a stage.
        widen: stages have 16, 32 and 64 times this many channels.
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
    """

    def __init__(self, depth: int, widen: int, in_channels: int, outputs: int) -> None:
        blocks = (depth - 4) // 6
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        stages = [
            wide_stage(inputs, width, stride, blocks)
            for inputs, width, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        ]
        again = partial(wide_stage, widths[-1], widths[-1], 1, blocks)
        stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        super().__init__(stem, WideTrunk(stages, WideHead(widths[-1])), widths[-1], outputs, again)

    @staticmethod
    def published_key(key: str) -> str | None:
        return renamed(key, PUBLISHED)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Convolutions by fan-out, classifier bias 0; the rest keeps the framework's defaults."""
        if isinstance(module, nn.Conv2d):
            fan_out_normal(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def build(input_shape: tuple[int, ...], outputs: int, depth: int, widen: int) -> WideResNet:
    """A :class:`WideResNet` for (channels, height, width) inputs."""
    return WideResNet(depth, widen, input_shape[0], outputs)
