"""The one-dimensional form of :mod:`kdbench.models.convnet`, for profiles, sensor traces and sound."""

from __future__ import annotations

from torch import nn

from kdbench.models.convnet import ConvNet


class ConvNet1d(ConvNet):
    """:class:`ConvNet` for (N, in_channels, length) inputs. Width 4 on 2 channels has 758 parameters for 10 classes."""

    conv = nn.Conv1d
    norm_layer = nn.BatchNorm1d


def build(input_shape: tuple[int, ...], outputs: int, width: int) -> ConvNet1d:
    """A :class:`ConvNet1d` for (channels, length) inputs."""
    return ConvNet1d(width, input_shape[0], outputs)
