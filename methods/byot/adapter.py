"""Be your own teacher (Zhang et al., ICCV 2019): exits on the shallower stages learn from the deepest one.

Settings and exits are those of an unofficial repository; the paper's own code is not public.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Needs, NotApplicable
from kdbench.methods.shared.connectors import CONV, ConvBN
from kdbench.methods.shared.logits import ScoreMethod


class Exit(nn.Module):
    """A bottleneck that brings a stage map to the shape of the deepest one, and a classifier on top.

    Args:
        stage, deepest: (C, *size) of the two maps; the sizes of the first are multiples of the other's.
        classes: outputs.
    """

    def __init__(self, stage: Sequence[int], deepest: Sequence[int], classes: int) -> None:
        super().__init__()
        conv = CONV[len(deepest) - 1]
        steps = [s // d for s, d in zip(stage[1:], deepest[1:], strict=True)]
        middle = max(1, deepest[0] // 4)
        self.branch = nn.Sequential(
            ConvBN(conv(stage[0], middle, 1), nn.ReLU()),
            ConvBN(conv(middle, middle, steps, steps), nn.ReLU()),
            ConvBN(conv(middle, deepest[0], 1), nn.ReLU()),
        )
        self.classifier = nn.Linear(deepest[0], classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the deepest map's shape, and (N, C) logits."""
        features = self.branch(x)
        return features, self.classifier(features.flatten(2).mean(2))


def soft_loss(logits: Sequence[Tensor], deepest: Tensor, temperature: float) -> Tensor:
    """-T^2 sum_k mean_n sum_c q log p_k, 0-d, of each exit k and the deepest one q, all at T.

    Args:
        logits: (N, C) of each exit.
        deepest: (N, C), constants.
    """
    targets = (deepest.detach() / temperature).softmax(dim=1)
    return temperature**2 * torch.stack([F.cross_entropy(z / temperature, targets) for z in logits]).sum()


def feature_loss(features: Sequence[Tensor], deepest: Tensor) -> Tensor:
    """sum_k sum (f_k - f)^2 where f_k or the deepest features f are positive, over everything, 0-d.

    Args:
        features: of each exit, in the deepest's shape.
        deepest: constants.
    """
    deepest = deepest.detach()
    return torch.stack([((f - deepest).square() * ((f > 0) | (deepest > 0))).sum() for f in features]).sum()


class BYOT(ScoreMethod):
    """Every exit learns the labels; the shallower ones also the deepest one's probabilities and features."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        fields = frozenset({"logits", "maps"})
        least = 2  # batch norm of 1x1 maps
        return Needs(teachers=(), teacher=frozenset(), student=fields, min_batch=least, one_process=None)

    def setup(self) -> None:
        super().setup()
        task = self.task
        *shallow, deepest = [m.shape[1:] for m in task.probe(self.student).maps]
        for shape in shallow:
            if any(s % d for s, d in zip(shape[1:], deepest[1:], strict=True)):
                sizes = ["x".join(map(str, s[1:])) for s in (shape, deepest)]
                raise NotApplicable(f"a stage of {sizes[0]} cannot be strided to the deepest one's {sizes[1]}")
        self.exits = nn.ModuleList(Exit(shape, deepest, task.classes) for shape in shallow)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out = self.student(batch)
        features, logits = zip(*(leave(m) for leave, m in zip(self.exits, out.maps[:-1], strict=True)), strict=True)
        joined = len(self.task.gather(batch.y)) / len(batch)  # a sum over rows is not a mean, by which processes share
        early = torch.stack([F.cross_entropy(z, batch.y) for z in logits]).sum()
        return {
            "task": (1 - hp.alpha) * self.task.loss(out, batch),
            "exits": (1 - hp.alpha) * early,
            "soft": hp.alpha * soft_loss(logits, out.logits, hp.temperature),
            "feature": hp.feature_weight * joined * feature_loss(features, out.maps[-1]),
        }
