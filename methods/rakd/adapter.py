"""Resolution-aware distillation (Feng, Lai, Xie, TIP 2021), reconstructed from its abstract: see the card.

Shapes: N rows, D the width of the teacher's embedding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kdbench.contract import At, Batch, Group, Needs
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.matching import unit

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Squared widths of the mixture of kernels, as multiples of the median squared distance."""
HIDDEN = 128
"""Units of the discriminator's hidden layer."""
SMALLEST = 1e-12


def pairs_apart(student: Tensor, teacher: Tensor) -> Tensor:
    """mean_ij (cos(s_i, s_j) - cos(t_i, t_j))^2 of (N, D) embeddings, 0-d; the teacher's are constants."""
    own, theirs = unit(student), unit(teacher.detach())
    return (own @ own.T - theirs @ theirs.T).square().mean()


def mmd(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of (N, D) embeddings, biased, 0-d; the teacher's are constants.

    The kernel is the mean of exp(-|a - b|^2 / (2 s)) over s in :data:`WIDTHS` times the median of the squared distances
    of all rows of both together, those of a row to itself among them; the median is a constant.
    """
    both = torch.cat([student, teacher.detach()])
    square = both.square().sum(dim=1)
    distance = (square[:, None] + square - 2 * both @ both.T).clamp_min(0)
    n = len(student)
    median = distance.detach().flatten().sort().values[distance.numel() // 2].clamp_min(SMALLEST)
    kernel = torch.stack([(-distance / (2 * width * median)).exp() for width in WIDTHS]).mean(dim=0)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def told_apart(of_teacher: Tensor, of_student: Tensor) -> Tensor:
    """The discriminator's loss, -mean log D(t) - mean log(1 - D(s)) of (N, 1) logits each, 0-d."""
    return F.softplus(-of_teacher).mean() + F.softplus(of_student).mean()


class RAKD(ScoreMethod):
    """Task loss, a discriminator to deceive, and a cross-resolution loss of three parts.

    L = L_task + adversarial_weight (-mean log D(e_s)) + kd_weight T^2 KL(teacher || student) + pair_weight
    :func:`pairs_apart` + mmd_weight :func:`mmd`, with e_s the student's embedding through a linear layer and e_t the
    teacher's. The discriminator D, of an optimiser of its own, minimises :func:`told_apart` in the same step.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        reads = frozenset({"logits", "emb"})
        return Needs(inputs="same", student=reads, teacher=reads, min_batch=2, one_process=None)

    def setup(self) -> None:
        super().setup()
        own, theirs = (self.task.probe(net).emb.shape[1] for net in (self.student, self.teacher))
        self.projection = nn.Linear(own, theirs)
        self.discriminator = nn.Sequential(nn.Linear(theirs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, task = self.hp, self.task
        out, target = self.student(batch), self.teacher(batch)
        student, teacher = self.projection(out.emb), target.emb.detach()
        fixed = {name: value.detach() for name, value in self.discriminator.named_parameters()}
        deceived = F.softplus(-functional_call(self.discriminator, fixed, (student,))).mean()
        rows, rows_of_teacher = task.gather(student), task.gather(teacher)
        return {
            "task": task.loss(out, batch),
            "adversarial": hp.adversarial_weight * deceived,
            "kd": hp.kd_weight * kd_loss(out.logits, target.logits, hp.temperature),
            "pairs": hp.pair_weight * pairs_apart(rows, rows_of_teacher),
            "mmd": hp.mmd_weight * mmd(rows, rows_of_teacher),
            "discriminator": told_apart(self.discriminator(teacher), self.discriminator(student.detach())),
        }

    def groups(self) -> list[Group]:
        student = [*self.student.parameters(), *self.projection.parameters()]
        own = {"name": "adam", "lr": self.hp.discriminator_lr}
        judge = Group("discriminator", list(self.discriminator.parameters()), optimizer=own, schedule="constant")
        return [Group("student", student), judge]
