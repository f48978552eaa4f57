"""Nets for stored feature vectors, (N, D)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from kdbench.contract import Network, Out
from kdbench.models.base import scores


class Mlp(Network):
    """Linear layers with a ReLU between; ``emb`` is what the last of them reads. No maps.

    Args:
        widths: D, then the width of each hidden layer; none makes a linear probe, whose ``emb`` is its input.
        outputs: classes, or 1 for a regression.
    """

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, width in pairwise(widths):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.fc = nn.Linear(widths[-1], outputs)

    def encode(self, x: Tensor) -> Out:
        emb = self.hidden(x)
        return Out(scores(self.fc, emb), emb=emb)

    @property
    def classifier(self) -> nn.Linear:
        return self.fc


def build(input_shape: tuple[int, ...], outputs: int, width: int | None = None) -> Mlp:
    """An :class:`Mlp` of one hidden layer, or a linear probe where ``width`` is None."""
    return Mlp(input_shape if width is None else (*input_shape, width), outputs)
