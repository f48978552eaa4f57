"""Decoupled knowledge distillation (Zhao, Cui, Song, Qiu, Liang, CVPR 2022, equations 4 to 8).

Shapes: N rows, C classes. A temperature is one number for all rows, or an (N, 1) column of one for each.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Needs, TaskInfo
from kdbench.methods.shared.logits import ScoreMethod, others, require_same_shape, row_divergence
from kdbench.methods.shared.ramps import ramp


def target_divergence(student: Tensor, teacher: Tensor, y: Tensor, temperature: float | Tensor) -> Tensor:
    """TCKD, 0-d: T^2 mean_n [q log(q / p) + (1 - q) log((1 - q) / (1 - p))], q and p being the target's probabilities.

    Args:
        student, teacher: (N, C) logits; the teacher's are constants.
        y: (N,) classes.
        temperature: T.
    """
    require_same_shape(student, teacher)
    log_s, log_t = (_two_classes(z / temperature, y) for z in (student, teacher.detach()))
    divergence = F.kl_div(log_s, log_t, reduction="none", log_target=True) * temperature**2
    return divergence.sum(dim=1).mean()


def others_divergence(student: Tensor, teacher: Tensor, y: Tensor, temperature: float | Tensor) -> Tensor:
    """NCKD, 0-d: T^2 times the KL among the classes other than the target, mean over the rows; 0 for two classes.

    Args: as in :func:`target_divergence`.
    """
    require_same_shape(student, teacher)
    return row_divergence(others(student, y), others(teacher, y), temperature).mean()


def dkd_loss(
    student: Tensor, teacher: Tensor, y: Tensor, temperature: float | Tensor, alpha: float, beta: float
) -> Tensor:
    """``alpha`` TCKD + ``beta`` NCKD, 0-d. Args: as in :func:`target_divergence`."""
    target = target_divergence(student, teacher, y, temperature)
    return alpha * target + beta * others_divergence(student, teacher, y, temperature)


def warn_of_two_classes(task: TaskInfo) -> None:
    """With two classes, one is left beside the target, and :func:`others_divergence` has nothing to compare."""
    if task.classes == 2:
        warnings.warn("with two classes dkd's non-target part is 0 and has no gradient", stacklevel=3)


def _two_classes(logits: Tensor, y: Tensor) -> Tensor:
    """(N, 2) logarithms of the target's probability and of the rest's, finite however far the logits lie apart."""
    margin = logits.gather(1, y[:, None]) - others(logits, y).logsumexp(dim=1, keepdim=True)
    return F.logsigmoid(torch.cat([margin, -margin], dim=1))


class DKD(ScoreMethod):
    """Cross-entropy, and the softened divergence split at the target class, each part with a weight of its own."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(one_process=None)

    def setup(self) -> None:
        super().setup()
        warn_of_two_classes(self.task)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        divergence = dkd_loss(out.logits, target.logits, batch.y, hp.temperature, hp.alpha, hp.beta)
        return {
            "ce": hp.ce_weight * self.task.loss(out, batch),
            "dkd": at.by_epoch(lambda epoch: ramp("linear", epoch, hp.warmup_epochs)) * divergence,
        }
