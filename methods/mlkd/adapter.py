"""Multi-level logit distillation (Jin, Wang, Lin, CVPR 2023): rows, classes and batches at several temperatures.

Shapes: N rows, C classes. Every row is seen weakly augmented (the task's augmentation) and strongly (RandAugment too).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Needs, Stage
from kdbench.methods.lskd.adapter import standardized
from kdbench.methods.shared.logits import ScoreMethod, require_same_shape, row_divergence
from kdbench.methods.shared.views import weak_and_strong

CODE_STRONG = 3
"""Temperatures that the published code applies to the strong view; the rest of that sum repeats the weak one."""


def masks(teacher: Tensor, official_code: bool) -> tuple[Tensor, Tensor]:
    """Weights of rows (N,) and of classes (C,): 1 where the teacher is at most as sure as the median, else 0.

    Args:
        teacher: (N, C) logits of the weak view.
        official_code: all weights are the share of ones instead, because that code averages before it masks.
    """
    p = teacher.detach().softmax(dim=1)
    found = [(sure <= sure.median()).to(p) for sure in (p.amax(dim=1), p.sum(dim=0))]
    rows, classes = [mask.mean().expand_as(mask) if official_code else mask for mask in found]
    return rows, classes


def prediction_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    temperatures: Sequence[float],
    rows: Tensor,
    official_code: bool = False,
) -> Tensor:
    """Divergences summed over the temperatures, 0-d: of the weak view with row weights, of the strong one without.

    Args:
        student, teacher: (N, C) logits of the weak and of the strong view.
        rows: (N,) weights.
        official_code: after :data:`CODE_STRONG` temperatures the second sum is of weak logits, as in that code.
    """
    total = [(rows * row_divergence(student[0], teacher[0], t)).mean() for t in temperatures]
    for place, t in enumerate(temperatures):
        view = 0 if official_code and place >= CODE_STRONG else 1
        total.append(row_divergence(student[view], teacher[view], t).mean())
    return torch.stack(total).sum()


def correlation_losses(
    student: Tensor, teacher: Tensor, temperatures: Sequence[float], rows: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Class-level and batch-level loss, each 0-d: squared differences of P^T P over C and of P P^T over N, summed.

    Args:
        student, teacher: (N, C) logits of the weak view; the teacher's are constants.
        rows, classes: (N,) and (C,) weights.
    """
    require_same_shape(student, teacher)
    by_class, by_row = [], []
    for t in temperatures:
        p_s, p_t = (F.softmax(z / t, dim=1) for z in (student, teacher.detach()))
        by_class.append(((p_t.T @ p_t - p_s.T @ p_s).square().sum(dim=1) * classes).mean())
        by_row.append(((p_t @ p_t.T - p_s @ p_s.T).square().sum(dim=1) * rows).mean())
    return torch.stack(by_class).sum(), torch.stack(by_row).sum()


class MLKD(ScoreMethod):
    """Cross-entropy on both views, and three levels of agreement with the teacher."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(inputs="same", views=2, min_batch=2, one_process=None)

    def setup(self) -> None:
        super().setup()
        self.views = weak_and_strong(self.task, self.student, *self.teachers.values())

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        views = [batch.view(v) for v in range(batch.views)]
        outs = [self.student(view) for view in views]  # apart: batch norm sees one view at a time
        gather = self.task.gather
        student = [gather(out.logits) for out in outs]
        teacher = [gather(logits) for logits in batch.unview(self.teacher(batch).logits)]
        temperatures = (hp.temperature, *hp.more_temperatures)
        rows, classes = masks(teacher[0], hp.official_code)
        by_class, by_row = correlation_losses(student[0], teacher[0], temperatures, rows, classes)
        if hp.standardize:
            student, teacher = ([standardized(z) for z in side] for side in (student, teacher))
        ce = torch.stack([self.task.loss(out, view) for out, view in zip(outs, views, strict=True)]).sum()
        return {
            "ce": hp.ce_weight * ce,
            "kd": hp.kd_weight * prediction_loss(student, teacher, temperatures, rows, hp.official_code),
            "class": hp.kd_weight * by_class,
            "batch": hp.kd_weight * by_row,
        }

    def stages(self) -> Iterator[Stage]:
        for stage in super().stages():
            yield replace(stage, views=self.views)
