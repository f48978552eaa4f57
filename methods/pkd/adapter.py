"""Pearson imitation (Cao et al., NeurIPS 2022): pyramid levels are compared standardised, whatever their magnitudes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Out
from kdbench.methods.shared.pyramids import ACROSS_ROWS, PYRAMIDS, Pairs, PyramidMethod, level_pairs, same_channels

EPS = 1e-6
"""Added to a standard deviation."""


def standardised(x: Tensor) -> Tensor:
    """(N, C, h, w) with mean 0 and deviation 1 (divisor n - 1) of each channel over pictures and cells together."""
    deviation, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True)
    return (x - mean) / (deviation + EPS)


def pearson_loss(student: Tensor, teacher: Tensor, resize_student: bool = True) -> Tensor:
    """Half the mean squared difference of standardised maps, 0-d: 1 minus their correlation but for (n - 1) / n.

    Args:
        student, teacher: (N, C, h, w); the teacher's is a constant. Of other sizes one is resized, bilinear.
        resize_student: the student's is; otherwise the teacher's.
    """
    if student.shape[2:] != teacher.shape[2:]:
        if resize_student:
            student = F.interpolate(student, teacher.shape[2:], mode="bilinear")
        else:
            teacher = F.interpolate(teacher, student.shape[2:], mode="bilinear")
    return F.mse_loss(standardised(student), standardised(teacher.detach())) / 2


class PKD(PyramidMethod):
    """The detector's loss, and the Pearson loss of the finest levels, summed."""

    kinds = PYRAMIDS
    one_process = ACROSS_ROWS

    def build(self, pairs: Pairs) -> None:
        same_channels(pairs)

    def pairs(self, out: Out, target: Out) -> Pairs:
        own, theirs = out.dense.fpn, target.dense.fpn
        alike = len(own) == len(theirs)  # then in the order of levels, of which other sizes are resized
        found = list(zip(own, theirs, strict=True)) if alike else level_pairs(own, theirs)
        return found[: self.hp.levels]

    def imitation(self, pairs: Pairs, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        losses = [pearson_loss(s, t, hp.resize == "student") for s, t in pairs]
        return {"pearson": hp.pearson_weight * torch.stack(losses).sum()}
