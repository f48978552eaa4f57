"""Heads whose boxes are distributions over bins: their divergence, cell by cell.

Shapes: N pictures, Q cells of a level, E distributions of a box, B bins of each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.contract import Dense, NotApplicable
from kdbench.methods.shared.boxes import same_cells


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(...,) T^2 / B * KL(softmax(teacher / T) || softmax(student / T)) of (..., B) logits: the mean over bins.

    The teacher's are constants.
    """
    own, target = ((x / temperature).log_softmax(-1) for x in (student, teacher.detach()))
    return temperature**2 * (target.exp() * (target - own)).mean(-1)


def parted(box: Tensor, bins: tuple[tuple[float, ...], ...]) -> list[Tensor]:
    """The (..., B) logits of each distribution, of (..., E B) ones."""
    return list(box.split([len(places) for places in bins], -1))


def edge_divergence(
    student: Tensor, teacher: Tensor, bins: tuple[tuple[float, ...], ...], temperature: float
) -> Tensor:
    """(...,) divergences of a box's distributions, summed."""
    pairs = zip(parted(student, bins), parted(teacher, bins), strict=True)
    return torch.stack([divergence(s, t, temperature) for s, t in pairs]).sum(0)


def same_bins(student: Dense, teacher: Dense) -> None:
    """Raises :class:`NotApplicable` where two heads do not answer with the same bins at equal cells."""
    same_cells(student, teacher)
    if student.bins != teacher.bins:
        told: list[Any] = [[len(places) for places in one.bins] for one in (student, teacher)]
        raise NotApplicable(
            f"distributions are compared bin by bin; the student's are {told[0]}, the teacher's {told[1]}"
        )
