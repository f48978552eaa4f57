"""Several networks read as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from kdbench.contract import Batch, Network, Out


class Mean(Network):
    """A network whose logits are the mean of others', so their geometric mean as probabilities at any temperature.

    It offers nothing else: maps and embeddings of different nets have no mean. Each keeps its precision.

    Args:
        nets: at least one; all read the same input.
    """

    def __init__(self, nets: Sequence[Network]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.input = nets[0].input
        self.train(nets[0].training)

    def forward(self, batch: Batch) -> Out:
        """(N, C) logits, or (N,) predictions."""
        return Out(torch.stack([net(batch).logits for net in self.nets]).mean(0))
