"""The published nets for 128 px: BigGAN-deep (Brock, Donahue, Simonyan, arXiv 1809.11096, appendix B).

Bottleneck blocks without learned shortcuts where a map narrows; noise and a shared embedding of the label together
steer every conditional norm; one attention layer at 64 px; spectral norm in both nets.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.methods.cgan_kd.networks import Condition, ConditionalNorm, doubled
from kdbench.methods.cgan_kd.residual import BASE, Attention, convolution, normed

SIDE = 128
SHARED = 128
"""Width of the label's embedding, one for all norms."""
BOTTLENECK = 4
"""How much narrower a block is inside than where it ends (discriminator) or begins (generator)."""
UP = (16, 16, 8, 4, 2, 1)
DOWN = (1, 2, 4, 8, 16, 16)
"""Widths of the maps in units of the base width; from each to the next two blocks, one of which resizes."""
ATTENTION_SIDE = 64


class DeepUp(nn.Module):
    """Conditional norms and convolutions 1x1, 3x3, 3x3, 1x1; the shortcut drops the channels that are too many."""

    def __init__(self, inputs: int, outputs: int, condition: Condition, doubles: bool) -> None:
        super().__init__()
        inside = inputs // BOTTLENECK
        self.outputs, self.doubles = outputs, doubles
        self.norms = nn.ModuleList(ConditionalNorm(width, condition) for width in (inputs, inside, inside, inside))
        plan = ((inputs, inside, 1), (inside, inside, 3), (inside, inside, 3), (inside, outputs, 1))
        self.convs = nn.ModuleList(convolution(*layer) for layer in plan)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = x
        for number, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            h = norm(h, y).relu()
            if number == 1 and self.doubles:
                h = doubled(h)
            h = conv(h)
        shortcut = x[:, : self.outputs]
        return h + (doubled(shortcut) if self.doubles else shortcut)


class DeepDown(nn.Module):
    """Convolutions 1x1, 3x3, 3x3, 1x1; the shortcut gets the channels it lacks from a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        inside = outputs // BOTTLENECK
        self.halves = halves
        plan = ((inputs, inside, 1), (inside, inside, 3), (inside, inside, 3), (inside, outputs, 1))
        self.convs = nn.ModuleList(convolution(*layer) for layer in plan)
        self.widen = convolution(inputs, outputs - inputs, 1) if outputs > inputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for number, conv in enumerate(self.convs):
            h = h.relu()
            if number == len(self.convs) - 1 and self.halves:
                h = F.avg_pool2d(h, 2)
            h = conv(h)
        if self.halves:
            x = F.avg_pool2d(x, 2)
        return h + (x if self.widen is None else torch.cat([x, self.widen(x)], dim=1))


class DeepGenerator(nn.Module):
    """Noise (N, latent) and a condition to images (N, C, 128, 128) in [-1, 1]. ``channels``: the base width."""

    def __init__(self, shape: tuple[int, ...], condition: Condition, latent: int, channels: int) -> None:
        super().__init__()
        widths = [channels * factor for factor in UP]
        told = Condition(SHARED + latent, classes=False)
        self.shared = condition.map(SHARED)
        self.linear = normed(nn.Linear(told.size, widths[0] * BASE**2))
        stages, side = [], BASE
        for inputs, outputs in pairwise(widths):
            blocks = [DeepUp(inputs, inputs, told, doubles=False), DeepUp(inputs, outputs, told, doubles=True)]
            side *= 2
            stages.append(nn.ModuleList(blocks))
            if side == ATTENTION_SIDE:
                self.attention = Attention(outputs)
        self.stages = nn.ModuleList(stages)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.image = convolution(widths[-1], shape[0], 3)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        told = torch.cat([self.shared(y), z], dim=1)
        x = self.linear(told).unflatten(1, (-1, BASE, BASE))
        for stage in self.stages:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, told)
            if x.shape[-1] == ATTENTION_SIDE:
                x = self.attention(x)
        return torch.tanh(self.image(self.norm(x).relu()))


class DeepDiscriminator(nn.Module):
    """Images (N, C, 128, 128) and a condition to scores (N,), label by projection. ``channels``: the base width."""

    def __init__(self, shape: tuple[int, ...], condition: Condition, channels: int) -> None:
        super().__init__()
        widths = [channels * factor for factor in DOWN]
        self.entry = convolution(shape[0], widths[0], 3)
        self.stages = nn.ModuleList(
            nn.Sequential(DeepDown(inputs, outputs, halves=True), DeepDown(outputs, outputs, halves=False))
            for inputs, outputs in pairwise(widths)
        )
        self.attention = Attention(widths[1])
        self.linear = normed(nn.Linear(widths[-1], 1))
        self.project = normed(condition.map(widths[-1]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = self.entry(x)
        for stage in self.stages:
            x = stage(x)
            if x.shape[-1] == ATTENTION_SIDE:
                x = self.attention(x)
        features = x.relu().sum((2, 3))
        return self.linear(features).squeeze(1) + (self.project(y) * features).sum(1)
