"""The networks FFSD trains beside its students and drops after: fusion, the leader's expansion, guides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Squeeze(nn.Module):
    """Depthwise 3x3 and 1x1 convolution, each with batch norm and ReLU: from (N, inputs, H, W) to ``outputs``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pwconv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        for conv in (self.dwconv, self.pwconv):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.pwconv(self.bn1(self.dwconv(x)).relu())).relu()


class Fusion(Squeeze):
    """The commons' concatenated last maps squeezed into one, with a classifier of its own."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__(inputs, outputs)
        self.fc = nn.Linear(outputs, classes)

    def classify(self, fused: Tensor) -> Tensor:
        """(N, K) logits of the fused map."""
        return self.fc(fused.mean(dim=(2, 3)))


class GuideBlock(nn.Module):
    """Transposed convolution to twice the size, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.deconv(x)).relu()


class Guide(nn.Module):
    """Predicts the shallow stages of a network from its last map (the self-distillation module).

    Args:
        channels: of the stages, shallow to deep.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GuideBlock(*pair) for pair in pairwise(reversed(channels)))

    def forward(self, last: Tensor) -> list[Tensor]:
        """Maps of the stages but the last, shallow to deep."""
        maps: list[Tensor] = []
        for block in self.blocks:
            last = block(last)
            maps.insert(0, last)
        return maps

    @torch.no_grad()
    def targets(self, last: Tensor) -> list[Tensor]:
        """:meth:`forward` with running statistics, which it leaves as they are; constants."""
        mode = self.training
        self.eval()
        maps = self(last)
        self.train(mode)
        return maps
