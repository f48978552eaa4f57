"""Dual knowledge distillation for translation (CSL 2024), a reconstruction: its part for pairs of sentences."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.contract import At, Batch
from kdbench.methods.knn_kd.adapter import KNNKD, divergence
from kdbench.methods.rdrop.adapter import disagreement, require_dropout


class DKDNMT(KNNKD):
    """L = (CE_1 + CE_2) / 2 + kd_weight KL(p_kNN || p_1) + weight [KL(p_1 || p_2) + KL(p_2 || p_1)] / 2, means over
    symbols, of two passes under other dropout.
    """

    def setup(self) -> None:
        super().setup()
        require_dropout(self.student)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp: Any = self.hp
        one, other = self.student(batch), self.student(batch)
        return {
            "task": (self.task.loss(one, batch) + self.task.loss(other, batch)) / 2,
            "knn": hp.kd_weight * divergence(self.chances(batch), one.logits).mean(),
            "agree": hp.weight * disagreement(one.logits, other.logits).mean(),
        }
