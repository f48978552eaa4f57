"""Logit standardization in knowledge distillation (Sun, Ren, Li, Wang, Cao, CVPR 2024, algorithm 1)."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from kdbench.contract import At, Batch, Needs
from kdbench.methods.dkd.adapter import dkd_loss
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.ramps import ramp

DEVIATION_FLOOR = 1e-7
"""Added to the standard deviation, so that equal logits become zeros."""


def standardized(logits: Tensor) -> Tensor:
    """(N, C) logits with mean 0 and standard deviation 1 in each row (C - 1 in its denominator)."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (logits.std(dim=1, keepdim=True) + DEVIATION_FLOOR)


class LSKD(ScoreMethod):
    """Cross-entropy of the logits as they are, and kd's or dkd's divergence of standardized ones."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(one_process=None)

    def setup(self) -> None:
        super().setup()
        if self.task.classes == 2:
            warnings.warn("standardized logits of two classes hold nothing but which is larger", stacklevel=2)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp: Any = self.hp
        out = self.student(batch)
        student, teacher = (standardized(z) for z in (out.logits, self.teacher(batch).logits))
        if hp.form == "dkd":
            divergence = dkd_loss(student, teacher, batch.y, hp.temperature, hp.alpha, hp.beta)
            divergence = at.by_epoch(lambda epoch: ramp("linear", epoch, hp.warmup_epochs)) * divergence
        else:
            divergence = kd_loss(student, teacher, hp.temperature)
        return {"ce": hp.ce_weight * self.task.loss(out, batch), hp.form: hp.kd_weight * divergence}
