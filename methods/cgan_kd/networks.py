"""Small conditional generator and discriminator for images of 8 to 64 pixels.

Up to 16 px the generator starts from a 2x2 map, from 32 px on from 4x4; every further doubling adds a block.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from kdbench.contract import NotApplicable

SMALLEST, LARGEST_BASE = 8, 8


class Condition(NamedTuple):
    """What the nets are told of a label.

    Attributes:
        size: number of classes, or width of a label vector.
        classes: whether it is a class number (N,) or a vector (N, size).
    """

    size: int
    classes: bool

    def map(self, width: int) -> nn.Embedding | nn.Linear:
        """From the condition to (N, width)."""
        return nn.Embedding(self.size, width) if self.classes else nn.Linear(self.size, width, bias=False)


def halvings(side: int) -> tuple[int, int]:
    """Side length of the coarsest map of an image, and the number of doublings from there.

    Raises:
        NotApplicable: the side is too short, or does not halve to a small map.
    """
    smallest, base, count = (4 if side >= 32 else 2), side, 0
    while base > smallest and base % 2 == 0:
        base, count = base // 2, count + 1
    if side < SMALLEST or base > LARGEST_BASE:
        raise NotApplicable(f"its nets make images of at least {SMALLEST} px that halve to a few; these have {side}")
    return base, count


def doubled(x: Tensor) -> Tensor:
    """Every pixel of (N, C, H, W) twice in height and width; unlike interpolation deterministic on every device."""
    n, c, h, w = x.shape
    return x[:, :, :, None, :, None].expand(n, c, h, 2, w, 2).reshape(n, c, 2 * h, 2 * w)


class ConditionalNorm(nn.Module):
    """Batch norm whose scale 1 + g and shift come from the label."""

    def __init__(self, channels: int, condition: Condition) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = condition.map(2 * channels)
        nn.init.normal_(self.affine.weight, 0.0, 0.02)  # starts close to a plain batch norm

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scale, shift = self.affine(y)[..., None, None].chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift


class Up(nn.Module):
    """Conditional norm, ReLU, doubling by nearest neighbour, 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, condition: Condition) -> None:
        super().__init__()
        self.norm = ConditionalNorm(inputs, condition)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(doubled(self.norm(x, y).relu()))


class SmallGenerator(nn.Module):
    """Noise (N, latent) and a condition to images (N, C, H, H) in [-1, 1].

    Args:
        shape: (C, H, H) of an image.
        condition: what tells the label.
        latent: width of the noise.
        channels: width of the last block; earlier ones have twice as many each, at most four times.
    """

    def __init__(self, shape: tuple[int, ...], condition: Condition, latent: int, channels: int) -> None:
        super().__init__()
        self.base, count = halvings(shape[-1])
        widths = [channels * min(4, 2 ** max(0, count - 1 - i)) for i in range(count + 1)]
        self.latent = latent
        self.linear = nn.Linear(latent, widths[0] * self.base**2)
        self.blocks = nn.ModuleList(Up(i, o, condition) for i, o in pairwise(widths))
        self.image = nn.Conv2d(widths[-1], shape[0], 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = self.linear(z).unflatten(1, (-1, self.base, self.base))
        for block in self.blocks:
            x = block(x, y)
        return torch.tanh(self.image(x.relu()))


class SmallDiscriminator(nn.Module):
    """Images (N, C, H, H) and a condition to scores (N,): spectral norm everywhere, label by projection.

    Args:
        shape: (C, H, H) of an image.
        condition: what tells the label.
        channels: width of the first convolution; later ones have twice as many each, at most four times.
    """

    def __init__(self, shape: tuple[int, ...], condition: Condition, channels: int) -> None:
        super().__init__()
        base, count = halvings(shape[-1])
        widths = [channels * min(4, 2 ** min(i, count - 1)) for i in range(count + 1)]
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(shape[0], widths[0], 3, padding=1)), nn.LeakyReLU(0.1)]
        for inputs, outputs in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(0.1)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        features = widths[-1] * base**2
        self.linear = spectral_norm(nn.Linear(features, 1))
        self.project = spectral_norm(condition.map(features))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        features = self.trunk(x)
        return self.linear(features).squeeze(1) + (self.project(y) * features).sum(1)
