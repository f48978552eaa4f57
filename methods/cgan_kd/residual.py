"""The published nets for 32 px (BigGAN without attention) and 64 px (SAGAN with one attention layer).

Brock, Donahue, Simonyan, arXiv 1809.11096; Zhang et al., arXiv 1805.08318. Spectral norm in both nets.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from kdbench.contract import NotApplicable
from kdbench.methods.cgan_kd.networks import Condition, ConditionalNorm, doubled

BASE = 4


@dataclass(frozen=True)
class Plan:
    """Widths in units of the base width.

    Attributes:
        up: of the generator's maps, from 4x4 on; down: of the discriminator's blocks.
        halved: how many of those blocks halve the map.
        attention: after which block there is attention, in the generator and in the discriminator; None without.
        pooled: whether the discriminator sums over positions before its linear layer.
    """

    up: tuple[int, ...]
    down: tuple[int, ...]
    halved: int
    attention: tuple[int, int] | None
    pooled: bool


PLANS = {
    32: Plan(up=(4, 4, 4, 4), down=(4, 4, 4, 4), halved=2, attention=None, pooled=True),
    64: Plan(up=(16, 8, 4, 2, 1), down=(1, 2, 4, 8, 16), halved=4, attention=(2, 0), pooled=False),
}


def plan(side: int) -> Plan:
    """The plan for images of a side length.

    Raises:
        NotApplicable: none is published.
    """
    if side not in PLANS:
        raise NotApplicable(
            f"its published nets make images of 32, 64 or 128 px, these have {side}; set method.nets=small"
        )
    return PLANS[side]


def normed(module: nn.Module) -> nn.Module:
    """The module with an orthogonal start, under spectral norm."""
    nn.init.orthogonal_(module.weight)  # type: ignore[arg-type]
    return spectral_norm(module)


def convolution(inputs: int, outputs: int, kernel: int) -> nn.Module:
    """One under spectral norm that keeps the size of its map."""
    return normed(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


class Attention(nn.Module):
    """Self-attention over positions, added with a gain that starts at 0; keys and values on a halved map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key = (convolution(channels, channels // 8, 1) for _ in range(2))
        self.value, self.out = convolution(channels, channels // 2, 1), convolution(channels // 2, channels, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).transpose(1, 2)
        key, value = (F.max_pool2d(m(x), 2).flatten(2) for m in (self.key, self.value))
        shares = (query @ key).softmax(dim=-1)
        mixed = (value @ shares.transpose(1, 2)).unflatten(2, x.shape[-2:])
        return x + self.gain * self.out(mixed)


class UpBlock(nn.Module):
    """Two conditional norms and 3x3 convolutions around a doubling, beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, condition: Condition) -> None:
        super().__init__()
        self.norm1, self.norm2 = ConditionalNorm(inputs, condition), ConditionalNorm(outputs, condition)
        self.conv1, self.conv2 = convolution(inputs, outputs, 3), convolution(outputs, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.conv1(doubled(self.norm1(x, y).relu()))
        h = self.conv2(self.norm2(h, y).relu())
        return h + doubled(self.shortcut(x))


class DownBlock(nn.Module):
    """Two 3x3 convolutions, then averages of 2x2 if it halves, beside a shortcut.

    Args:
        first: it reads the image, so there is no activation before the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, first: bool, halves: bool) -> None:
        super().__init__()
        self.first, self.halves = first, halves
        self.conv1, self.conv2 = convolution(inputs, outputs, 3), convolution(outputs, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1) if halves or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.conv1(x if self.first else x.relu()).relu())
        total = h + self.shortcut(x)
        return F.avg_pool2d(total, 2) if self.halves else total


class ResidualGenerator(nn.Module):
    """Noise (N, latent) and a condition to images (N, C, H, H) in [-1, 1]. ``channels``: the base width."""

    def __init__(self, shape: tuple[int, ...], condition: Condition, latent: int, channels: int) -> None:
        super().__init__()
        chosen = plan(shape[-1])
        widths = [channels * factor for factor in chosen.up]
        self.latent = latent
        self.linear = normed(nn.Linear(latent, widths[0] * BASE**2))
        self.blocks = nn.ModuleList(UpBlock(i, o, condition) for i, o in pairwise(widths))
        self.attends = chosen.attention[0] if chosen.attention else None
        self.attention = Attention(widths[self.attends + 1]) if self.attends is not None else None
        self.norm = nn.BatchNorm2d(widths[-1])
        self.image = convolution(widths[-1], shape[0], 3)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = self.linear(z).unflatten(1, (-1, BASE, BASE))
        for number, block in enumerate(self.blocks):
            x = block(x, y)
            if self.attention is not None and number == self.attends:
                x = self.attention(x)
        return torch.tanh(self.image(self.norm(x).relu()))


class ResidualDiscriminator(nn.Module):
    """Images (N, C, H, H) and a condition to scores (N,), label by projection. ``channels``: the base width."""

    def __init__(self, shape: tuple[int, ...], condition: Condition, channels: int) -> None:
        super().__init__()
        chosen = plan(shape[-1])
        widths = [shape[0], *(channels * factor for factor in chosen.down)]
        self.blocks = nn.ModuleList(
            DownBlock(inputs, outputs, number == 0, number < chosen.halved)
            for number, (inputs, outputs) in enumerate(pairwise(widths))
        )
        self.attends = chosen.attention[1] if chosen.attention else None
        self.attention = Attention(widths[self.attends + 1]) if self.attends is not None else None
        self.pooled = chosen.pooled
        features = widths[-1] * (1 if chosen.pooled else (shape[-1] >> chosen.halved) ** 2)
        self.linear = normed(nn.Linear(features, 1))
        self.project = normed(condition.map(features))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x)
            if self.attention is not None and number == self.attends:
                x = self.attention(x)
        features = x.relu().sum((2, 3)) if self.pooled else x.relu().flatten(1)
        return self.linear(features).squeeze(1) + (self.project(y) * features).sum(1)
