"""Normalised knowledge distillation (Yang et al., ICCV 2023, equation 6)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Needs
from kdbench.methods.shared.logits import ScoreMethod, others, require_same_shape


def target_loss(student: Tensor, teacher: Tensor, y: Tensor) -> Tensor:
    """-mean_n q_y log p_y, 0-d: cross-entropy of each row weighted by the teacher's probability of its class.

    Args:
        student, teacher: (N, C) logits, at temperature 1; the teacher's are constants.
        y: (N,) classes.

    Raises:
        ValueError: the numbers of classes differ.
    """
    require_same_shape(student, teacher)
    confidence = teacher.detach().softmax(dim=1).gather(1, y[:, None]).squeeze(1)
    return (confidence * F.cross_entropy(student, y, reduction="none")).mean()


def others_loss(student: Tensor, teacher: Tensor, y: Tensor, temperature: float) -> Tensor:
    """-T^2 mean_n sum_c q_c log p_c, 0-d, over the classes other than the target, normalised among themselves.

    Not a divergence: the teacher's entropy stays in the value. Args: as in :func:`target_loss`.
    """
    require_same_shape(student, teacher)
    targets = F.softmax(others(teacher.detach(), y) / temperature, dim=1)
    return temperature**2 * F.cross_entropy(others(student, y) / temperature, targets)


class NKD(ScoreMethod):
    """Cross-entropy, the same weighted by the teacher's confidence, and the normalised non-target term."""

    min_classes = 3  # of two, one other class is left and has nothing to be normalised with

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(one_process=None)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp: Any = self.hp
        out, target = self.student(batch), self.teacher(batch)
        return {
            "ce": hp.ce_weight * self.task.loss(out, batch),
            "target": hp.target_weight * target_loss(out.logits, target.logits, batch.y),
            "others": hp.others_weight * others_loss(out.logits, target.logits, batch.y, hp.temperature),
        }
