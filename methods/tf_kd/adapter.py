"""Teacher-free knowledge distillation (Yuan, Tay, Li, Wang, Feng, CVPR 2020): self training and a virtual teacher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Group, Needs, Stage
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.phases import Phased, reusable

CORRECT = 0.99
"""Probability the virtual teacher gives the right class; the others share the rest."""


def self_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 / (N C) sum q log(q / p), 0-d: kd's divergence over the number of classes.

    Args:
        student, teacher: (N, C) logits; the teacher's are constants.
    """
    return kd_loss(student, teacher, temperature) / student.shape[1]


def virtual_loss(student: Tensor, y: Tensor, temperature: float) -> Tensor:
    """1 / (N C) sum q log(q / p), 0-d, of a virtual teacher q and the student p at temperature 1.

    The temperature divides the virtual teacher's probabilities, not logits, which leaves them nearly even.

    Args:
        student: (N, C) logits.
        y: (N,) classes.
    """
    classes = student.shape[1]
    sure = torch.full_like(student.detach(), (1 - CORRECT) / (classes - 1)).scatter(1, y[:, None], CORRECT)
    targets = F.log_softmax(sure / temperature, dim=1)
    return F.kl_div(student.log_softmax(dim=1), targets, reduction="batchmean", log_target=True) / classes


class TFKD(Phased, ScoreMethod):
    """Taught by a copy of itself trained before (self), or by a virtual teacher made of the labels (reg)."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(teachers=(), teacher=frozenset(), students=2 if hp.form == "self" else 1, one_process=None)

    def teacher_losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """The plain training of the copy."""
        return {"task": self.task.loss(self.students[1](batch), batch)}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out = self.student(batch)
        if hp.form == "self":
            with torch.no_grad():
                target = self.students[1](batch)
            softened = self_loss(out.logits, target.logits, hp.temperature)
        else:
            softened = virtual_loss(out.logits, batch.y, hp.temperature)
        return {
            "task": (1 - hp.alpha) * self.task.loss(out, batch),
            hp.form: hp.alpha * hp.multiplier * softened,
        }

    def stages(self) -> Iterator[Stage]:
        if self.hp.form == "self":
            copy = self.students[1]
            groups = [Group("teacher", list(copy.parameters()))]
            first = Stage(
                "teacher", groups, losses=self.teacher_losses, epochs=self.task.epochs, ledger="teacher_train"
            )
            yield from reusable(self.task, first, copy, uses=[])
            self.hold(copy)
        groups = [Group("student", list(self.student.parameters()))]
        yield Stage("distill", groups, losses=self.losses, epochs=self.task.epochs)
