"""Nets that give a class to every pixel: a backbone of the zoo or of timm, and a decoder of its stages.

Their ``logits`` are (N, K, h, w), before they are brought to the picture's size. Semantic FPN: Kirillov et al., CVPR
2019, arXiv 1901.02446, its levels summed. PSPNet: Zhao et al., CVPR 2017, arXiv 1612.01105.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import Out
from kdbench.models.parts import InParts
from kdbench.models.pyramid import Body, Neck, TimmBody, backbone, measured, pyramid

BINS = (1, 2, 3, 6)
"""Cells of a side that PSPNet pools a map to."""
STRIDE = 8
"""Of the last map of a backbone that can be dilated, as PSPNet's is."""


class SummedLevels(nn.Module):
    """A pyramid's levels brought to the finest one's size, bilinear, summed, activated, and a 1x1 convolution of them.

    Args:
        neck: the pyramid.
        channels: of its levels.
    """

    def __init__(self, neck: Neck, channels: int, classes: int) -> None:
        super().__init__()
        self.neck = neck
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        finest, *coarser = self.neck(maps)
        for level in coarser:
            finest = finest + F.interpolate(level, finest.shape[2:], mode="bilinear")
        logits: Tensor = self.classifier(finest.relu())
        return logits


class PooledBins(nn.Module):
    """A map beside what it is pooled to, each a quarter as wide; a 3x3 and a 1x1 convolution of both.

    Args:
        inputs: channels of the map.
        channels: of the 3x3 convolution.
    """

    def __init__(self, inputs: int, channels: int, classes: int) -> None:
        super().__init__()
        share = max(1, inputs // len(BINS))
        self.bins = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), *_normed(nn.Conv2d(inputs, share, 1, bias=False)))
            for side in BINS
        )
        joined = nn.Conv2d(inputs + len(BINS) * share, channels, 3, padding=1, bias=False)
        self.joined = nn.Sequential(*_normed(joined), nn.Dropout2d(0.1))
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        (x,) = maps
        pooled = [F.interpolate(of(x), x.shape[2:], mode="bilinear") for of in self.bins]
        logits: Tensor = self.classifier(self.joined(torch.cat([x, *pooled], 1)))
        return logits


def _normed(conv: nn.Conv2d) -> tuple[nn.Module, ...]:
    return conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU()


class SemanticNet(InParts):
    """Backbone and decoder.

    Args:
        head: from the maps of some stages to logits.
        reads: these stages.
    """

    parts = ("body", "head")

    def __init__(self, body: Body | TimmBody, head: nn.Module, reads: Sequence[int]) -> None:
        super().__init__(body)
        self.head = head
        self._reads = tuple(reads)

    def encode(self, x: Tensor) -> Out:
        stages = self.body(x)
        unread = self.sparing and "logits" not in self.asked
        logits = None if unread else self.head([stages.maps[stage] for stage in self._reads])
        return Out(logits, stages.maps, stages.preact, stages.stem)


def build(
    input_shape: tuple[int, ...],
    outputs: int,
    decoder: str,
    net: str,
    channels: int | None = None,
    finest: int = 4,
    coarsest: int = 32,
) -> SemanticNet:
    """A net of semantic segmentation.

    Args:
        outputs: classes.
        decoder: ``semfpn`` or ``pspnet``.
        net: the name of the backbone; one of timm that can be dilated ends in stride 8 under a PSPNet.
        channels: of the pyramid, 128 unless given, or of PSPNet's last convolution, 512.
        finest, coarsest: strides of the pyramid's first and last level.

    Raises:
        UserError: the backbone has no such stages.
    """
    if decoder == "semfpn":
        made = pyramid(net, input_shape, channels or 128, finest, coarsest)
        return SemanticNet(made.body, SummedLevels(made.neck, channels or 128, outputs), made.reads)
    body = backbone(net, input_shape, stride=STRIDE)
    widths, _ = measured(body, net, input_shape)
    return SemanticNet(body, PooledBins(widths[-1], channels or 512, outputs), [len(widths) - 1])
