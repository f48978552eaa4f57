"""Weights in the type that autocast computes in, beside the weights: cast once where they never change.

Autocast keeps what it cast of weights that are trained, within a forward; those of frozen networks it casts at every
call. A layer with held weights has equal outputs, bit for bit, and is what it was outside of autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HeldLinear(nn.Linear):
    """Linear, with held weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *_weights(self, x))


class HeldConv1d(nn.Conv1d):
    """1-D convolution, with held weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *_weights(self, x))


class HeldConv2d(nn.Conv2d):
    """2-D convolution, with held weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *_weights(self, x))


class HeldConv3d(nn.Conv3d):
    """3-D convolution, with held weights."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *_weights(self, x))


HOLDING: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: HeldLinear,
    nn.Conv1d: HeldConv1d,
    nn.Conv2d: HeldConv2d,
    nn.Conv3d: HeldConv3d,
}
"""Layers that autocast computes in the lower type; classes derived from them may use their weights in other ways."""


def hold_weights(net: nn.Module, dtype: torch.dtype) -> int:
    """Gives the layers of a network whose weights stay as they are copies of these in autocast's type, in place.

    Returns:
        How many layers hold theirs.
    """
    held = 0
    for layer in net.modules():
        if (kind := HOLDING.get(type(layer))) is None:
            continue
        for name in ("weight", "bias"):
            value = getattr(layer, name)
            copied = None if value is None else value.detach().to(dtype)
            layer.register_buffer(f"held_{name}", copied, persistent=False)
        layer.__class__ = kind  # in its place: others hold this module, and hooks hang on it
        held += 1
    return held


def _weights(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight and bias for an input: the held ones where autocast would cast to their type."""
    where, held = x.device.type, layer.held_weight
    assert isinstance(held, Tensor)
    names = ("weight", "bias")
    if torch.is_autocast_enabled(where) and torch.get_autocast_dtype(where) is held.dtype:
        names = ("held_weight", "held_bias")
    weight, bias = (getattr(layer, name) for name in names)
    return weight, bias
