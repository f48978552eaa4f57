"""Which parameters of a network a loss can move, where it reads less than the whole output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kdbench.contract import Batch, Network, Out


def reached(net: Network, batch: Batch, read: Callable[[Out], Tensor]) -> list[nn.Parameter]:
    """The trainable parameters that a field of the output depends on, in the network's order.

    Args:
        batch: any rows; the network is in eval mode for them.
        read: the field.
    """
    own, mode = [p for p in net.parameters() if p.requires_grad], net.training
    net.eval()
    with torch.enable_grad():
        value = read(net(batch)).sum()
    net.train(mode)
    if not own or not value.requires_grad:
        return []
    slopes = torch.autograd.grad(value, own, allow_unused=True)
    return [p for p, slope in zip(own, slopes, strict=True) if slope is not None]
