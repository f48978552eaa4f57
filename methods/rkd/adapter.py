"""Relational knowledge distillation (Park et al., CVPR 2019): distances and angles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import Out
from kdbench.methods.shared.matching import unit
from kdbench.methods.shared.objective import Imitation

FLOOR = 1e-12
"""Smallest squared distance of two rows; at it, the distance has no gradient."""


def differences(x: Tensor) -> Tensor:
    """(N, N, D) with ``x[j] - x[i]`` at (i, j), for (N, D) embeddings."""
    return x - x.unsqueeze(1)


def distances(pairs: Tensor) -> Tensor:
    """(N, N) lengths of (N, N, D) differences over the mean length of different rows; 0 on the diagonal."""
    n = len(pairs)
    lengths = pairs.square().sum(dim=2).clamp_min(FLOOR).sqrt()
    lengths = lengths.masked_fill(torch.eye(n, dtype=torch.bool, device=pairs.device), 0.0)
    return lengths / (lengths.sum() / (n * (n - 1)))


def angles(pairs: Tensor) -> Tensor:
    """(N, N, N) cosines at row i between the directions to rows j and k; 0 where one of them coincides with row i."""
    directions = unit(pairs)
    return directions @ directions.mT


def relational_losses(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Smooth L1 (threshold 1) of distances and of angles, each 0-d, means over all pairs and all triples.

    Two equal student rows give finite values; the gradient that would part them is taken as 0.

    Args:
        student, teacher: (N, D) embeddings of the same rows, the widths may differ; the teacher's are constants.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(student) < 2:
        raise ValueError(f"relations need at least 2 rows, the batch has {len(student)}")
    s, t = differences(student), differences(teacher.detach())
    return F.smooth_l1_loss(distances(s), distances(t)), F.smooth_l1_loss(angles(s), angles(t))


class RKD(Imitation):
    """Distances and angles among the pooled features of a batch are the teacher's."""

    reads = frozenset({"emb"})
    min_batch = 3  # two rows have one distance, 1 after scaling, and no angle
    one_process = None

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        distance, angle = relational_losses(self.task.gather(out.emb), self.task.gather(target.emb))
        return {"distance": self.hp.distance_weight * distance, "angle": self.hp.angle_weight * angle}
