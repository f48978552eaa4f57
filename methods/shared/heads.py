"""Heads on the stages of a network that predict class and rotation together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import Network
from kdbench.methods.shared.views import ROTATIONS


class JointHeads(nn.Module):
    """One head on each stage, scoring every pair of class and rotation (HSAKD).

    A head repeats what follows its stage in the network, at fresh weights; the last one has a stage more.

    Args:
        net: the network; its weights are not used.
        stages: its stages.
        classes: C; a head has 4 C outputs, those of class c being 4 c to 4 c + 3.
    """

    def __init__(self, net: Network, stages: int, classes: int) -> None:
        super().__init__()
        tails: list[Any] = [*(net.tail(stage) for stage in range(stages - 1)), net.extra_tail()]
        for tail in tails:
            tail.classifier = nn.Linear(tail.classifier.in_features, ROTATIONS * classes)
        self.tails = nn.ModuleList(tails)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """(R, 4 C) scores of each head, from the stage maps, shallow to deep."""
        return [tail(m).logits for tail, m in zip(self.tails, maps, strict=True)]


def joint_labels(y: Tensor) -> Tensor:
    """(4, N) joint labels 4 y + r of (N,) classes, r being the rotation."""
    return ROTATIONS * y + torch.arange(ROTATIONS, device=y.device)[:, None]
