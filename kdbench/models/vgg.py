"""VGG with batch norm for 32x32 images: Simonyan & Zisserman 2015, arXiv 1409.1556, with one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.models.base import ConvNorm, GlobalPool, Staged, Trunk, conv_norm, fan_out_normal
from kdbench.models.published import KINDS, Rule, renamed

WIDTHS = (64, 128, 256, 512, 512)


class LargeMapPool(nn.Module):
    """2x2 max-pool of maps 8 high, as 64x64 images have them at the last block; other maps pass."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if x.shape[2] == 8 else x


class VggStage(nn.Module):
    """A pool, then 3x3 convolutions (with bias), each with batch norm and ReLU."""

    def __init__(self, pool: nn.Module, layers: Sequence[ConvNorm]) -> None:
        super().__init__()
        self.pool = pool
        self.layers = nn.ModuleList(layers)

    @property
    def norm(self) -> nn.Module:
        return self.layers[-1].norm  # type: ignore[return-value]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = before = self.pool(x)
        for layer in self.layers:
            before = layer(x)
            x = before.relu()
        return x, before


def vgg_stage(pool: nn.Module, inputs: int, width: int, depth: int) -> VggStage:
    """``depth`` convolutions after a pool, the first from ``inputs`` channels."""
    return VggStage(pool, [conv_norm(width if place else inputs, width, 3, bias=True) for place in range(depth)])


def _layer(block: int, place: int) -> str:
    """Our name of the published block's part at a place: convolution, batch norm and ReLU in turn."""
    layer, kind = place // 3, KINDS[str(place % 3)]
    return f"trunk.stages.{block - 1}.layers.{layer}.{kind}" if block else f"stem.{2 * layer}.{kind}"


PUBLISHED: tuple[Rule, ...] = (
    (r"block(\d)\.(\d+)", lambda m: _layer(int(m[1]), int(m[2]))),
    (r"classifier", "fc"),
)


class Vgg(Staged):
    """Five blocks of 3x3 convolutions, global average pool, linear. The first block is the stem, the others stages.

    Maps precede the max-pool that follows their block; the last two are of one size for 32x32 images.

    Args:
        depths: convolutions of each block.
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
    """

    def __init__(self, depths: Sequence[int], in_channels: int, outputs: int) -> None:
        pools = (nn.Identity(), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2), LargeMapPool())
        first, *stages = map(vgg_stage, pools, (in_channels, *WIDTHS), WIDTHS, depths)
        stem = nn.Sequential(*(part for layer in first.layers for part in (layer, nn.ReLU())))
        again = partial(vgg_stage, nn.Identity(), WIDTHS[-1], WIDTHS[-1], depths[-1])
        super().__init__(stem, Trunk(stages, GlobalPool()), WIDTHS[-1], outputs, again)

    @staticmethod
    def published_key(key: str) -> str | None:
        return renamed(key, PUBLISHED)

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """Convolutions by fan-out, classifier from N(0, 0.01 squared), biases 0."""
        if isinstance(module, nn.Conv2d):
            fan_out_normal(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)


def build(input_shape: tuple[int, ...], outputs: int, depths: Sequence[int]) -> Vgg:
    """A :class:`Vgg` for (channels, height, width) inputs."""
    return Vgg(depths, input_shape[0], outputs)
