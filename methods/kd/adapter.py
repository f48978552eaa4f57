"""Knowledge distillation (Hinton, Vinyals, Dean 2015, section 2)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Method


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), 0-d, mean over the batch.

    Args:
        student, teacher: (N, C) logits; the teacher's are constants.

    Raises:
        ValueError: the numbers of classes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student logits {tuple(student.shape)} and teacher logits {tuple(teacher.shape)} differ")
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher.detach() / temperature, dim=1)
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True) * temperature**2


class KD(Method):
    """Cross-entropy with the labels and the softened divergence from the teacher."""

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp: Any = self.hp
        out = self.student(batch)
        divergence = kd_loss(out.logits, self.teacher(batch).logits, hp.temperature)
        return {"ce": hp.ce_weight * self.task.loss(out, batch.y), "kd": hp.kd_weight * divergence}
