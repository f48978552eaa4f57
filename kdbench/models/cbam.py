"""Small convolutional nets with attention over channels and positions in every block (CBAM, Woo et al., ECCV 2018)."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from kdbench.contract import Out
from kdbench.models.base import GlobalPool, Staged, Taps, Trunk, conv_norm, scores

REDUCTION = 4
"""How many channels one hidden unit of the channels' attention stands for: small nets have few."""


class ChannelAttention(nn.Module):
    """Of each channel, from its mean and its maximum over positions through one MLP, added.

    Args:
        hidden: units of the MLP, which has no biases.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        into, out = nn.Conv2d(channels, hidden, 1, bias=False), nn.Conv2d(hidden, channels, 1, bias=False)
        self.shared_mlp = nn.Sequential(into, nn.ReLU(), out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, 1, 1) of (N, C, H, W)."""
        means, highest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        attention: Tensor = self.shared_mlp(means) + self.shared_mlp(highest)
        return attention


class SpatialAttention(nn.Module):
    """Of each position, from mean and maximum over channels through a convolution of kernel 3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) of (N, C, H, W)."""
        attention: Tensor = self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1))
        return attention


class Attend(nn.Module):
    """A map times the sigmoids of its channels' attention, then of its positions'.

    Args:
        reduction: channels to one hidden unit; there is at least one unit.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, max(1, channels // reduction))
        self.spatial = SpatialAttention()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The map (N, C, H, W), and both attentions before their sigmoids, (N, C, 1, 1) and (N, 1, H, W)."""
        channel = self.channel(x)
        x = x * channel.sigmoid()
        spatial = self.spatial(x)
        return x * spatial.sigmoid(), channel, spatial


class CbamStage(nn.Module):
    """Convolution of kernel 3, batch norm, attention, ReLU."""

    norm = None  # attention stands between it and the activation

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layer = conv_norm(inputs, outputs, 3, stride)
        self.attend = Attend(outputs, REDUCTION)

    def attended(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """The stage's map after and before its activation, and its attentions."""
        before, channel, spatial = self.attend(self.layer(x))
        return before.relu(), before, (channel, spatial)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.attended(x)[:2]


class CbamTrunk(Trunk):
    """Stages that tell their attentions."""

    def attended(self, x: Tensor) -> tuple[Taps, tuple[Tensor, ...]]:
        """What a trunk returns, and the attentions of all stages."""
        maps: list[Tensor] = []
        preact: list[Tensor] = []
        attention: list[Tensor] = []
        for stage in self.stages:
            x, before, own = cast("CbamStage", stage).attended(x)
            maps.append(x)
            preact.append(before)
            attention += own
        return Taps(tuple(maps), tuple(preact), self.head(x)), tuple(attention)

    def forward(self, x: Tensor) -> Taps:
        return self.attended(x)[0]


class CbamNet(Staged):
    """Three stages of one convolution with attention, widths w, 2w, 4w, strides 1, 2, 2; global average pool; linear.

    Input (N, in_channels, H, W), any size.

    Args:
        width: w.
        in_channels: channels of the input.
        outputs: classes, or 1 for a regression.
    """

    trunk: CbamTrunk

    def __init__(self, width: int, in_channels: int, outputs: int) -> None:
        widths = (in_channels, width, 2 * width, 4 * width)
        stages = [CbamStage(*sizes) for sizes in zip(widths, widths[1:], (1, 2, 2), strict=False)]
        again = partial(CbamStage, widths[-1], widths[-1], 1)
        super().__init__(None, CbamTrunk(stages, GlobalPool()), widths[-1], outputs, again)

    def encode(self, x: Tensor) -> Out:
        taps, attention = self.trunk.attended(x)
        return Out(scores(self.fc, taps.emb), taps.maps, taps.preact, None, taps.emb, attention=attention)


def build(input_shape: tuple[int, ...], outputs: int, width: int) -> CbamNet:
    """A :class:`CbamNet` for (channels, height, width) inputs."""
    return CbamNet(width, input_shape[0], outputs)
