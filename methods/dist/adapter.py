"""Knowledge distillation from a stronger teacher (Huang et al., NeurIPS 2022, equations 8 to 10): correlations."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Needs
from kdbench.methods.shared.logits import ScoreMethod, require_same_shape

NORM_FLOOR = 1e-8
"""Added to the product of two norms, so that a constant row correlates to 0."""


def correlation_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 minus the Pearson correlation of each row, mean over the rows, 0-d.

    Args:
        a, b: (R, K) rows.
    """
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return 1 - ((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1) + NORM_FLOOR)).mean()


def relations(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """T^2 d(p, q) of probabilities by row (inter-class) and T^2 d(p', q') by class (intra-class), each 0-d.

    d is :func:`correlation_distance`.

    Args:
        student, teacher: (N, C) logits; the teacher's are constants.
        temperature: T.

    Raises:
        ValueError: the numbers of classes differ.
    """
    require_same_shape(student, teacher)
    p_s, p_t = (F.softmax(z / temperature, dim=1) for z in (student, teacher.detach()))
    return temperature**2 * correlation_distance(p_s, p_t), temperature**2 * correlation_distance(p_s.T, p_t.T)


class DIST(ScoreMethod):
    """Cross-entropy, and correlations with the teacher within each row and within each class."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(min_batch=2, one_process=None)  # one row has no correlation within a class

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp: Any = self.hp
        out = self.student(batch)
        student, teacher = (self.task.gather(of.logits) for of in (out, self.teacher(batch)))
        inter, intra = relations(student, teacher, hp.temperature)
        return {
            "ce": hp.ce_weight * self.task.loss(out, batch),
            "inter": hp.inter_weight * inter,
            "intra": hp.intra_weight * intra,
        }
