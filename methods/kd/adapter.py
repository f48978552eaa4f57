"""Knowledge distillation (Hinton, Vinyals, Dean 2015, section 2)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.contract import At, Batch, Needs
from kdbench.methods.shared.logits import ScoreMethod, row_divergence


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), 0-d, mean over the batch.

    Args:
        student, teacher: (N, C) logits, or (N, C, h, w) of cells, over which the mean is taken too; the teacher's are
            constants.

    Raises:
        ValueError: the numbers of classes, or of cells, differ.
    """
    return row_divergence(student, teacher, temperature).mean()


class KD(ScoreMethod):
    """Cross-entropy with the labels and the softened divergence from the teacher."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=frozenset({"classification", "segmentation"}), one_process=None)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp: Any = self.hp
        out = self.student(batch)
        divergence = kd_loss(out.logits, self.teacher(batch).logits, hp.temperature)
        return {"ce": hp.ce_weight * self.task.loss(out, batch), "kd": hp.kd_weight * divergence}
