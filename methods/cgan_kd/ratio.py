"""Conditional density ratio of real to fake rows in a feature space (cDRE-F-SP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.methods.cgan_kd.networks import Condition

GROUPS = 8


def ratio_terms(real: Tensor, fake: Tensor, penalty: float) -> dict[str, Tensor]:
    """Softplus loss of a density ratio, and the penalty that keeps its mean over fakes at 1; both 0-d.

    Args:
        real, fake: (N, 1) ratios, at least 0.
        penalty: lambda of lambda (mean(fake) - 1)^2.
    """
    softplus = (fake.sigmoid() * fake).mean() - F.softplus(fake).mean() - real.sigmoid().mean()
    return {"softplus": softplus, "penalty": penalty * (fake.mean() - 1) ** 2}


class RatioNet(nn.Module):
    """Features (N, F) and a condition to ratios (N, 1), at least 0.

    The label part (a row of a trained K x K table, or the label's embedding as it is) stands before the features in
    the first layer's input.

    Args:
        widths: of the hidden layers, multiples of 8 well above it (group norm of 8 groups).
        dropout: after each hidden layer.
    """

    def __init__(self, condition: Condition, features: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.label_emb = nn.Embedding(condition.size, condition.size) if condition.classes else None
        layers: list[nn.Module] = []
        inputs = condition.size + features
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Dropout(dropout)]
            inputs = width
        self.main = nn.Sequential(*layers, nn.Linear(inputs, 1), nn.ReLU())

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        label = self.label_emb(condition) if self.label_emb is not None else condition
        return self.main(torch.cat([label, features], dim=1))
