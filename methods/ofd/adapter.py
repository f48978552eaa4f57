"""A comprehensive overhaul of feature distillation (Heo et al., ICCV 2019, equations 1 to 5).

Maps are taken before their activation, (N, C, *size), shallow to deep; n stages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import Needs, Out
from kdbench.methods.shared.connectors import ConvBN, pointwise
from kdbench.methods.shared.matching import match
from kdbench.methods.shared.objective import StageWise

RARE = 1e-3
"""Below this probability of a negative value the margin is taken as three standard deviations below 0."""


def margins(scale: Tensor, shift: Tensor) -> Tensor:
    """(C,) mean of the negative values of a channel that a batch norm makes normal(shift, scale^2).

    shift - |scale| phi(shift / scale) / Phi(-shift / |scale|), with density phi and distribution Phi of a normal.

    Args:
        scale, shift: (C,) of the batch norm; a channel of scale 0 holds its shift, whose negative part is the margin.
    """
    spread = scale.detach().abs().clamp_min(torch.finfo(scale.dtype).tiny ** 0.5)
    ratio = shift.detach() / spread
    negative = torch.special.ndtr(-ratio)
    density = (-(ratio**2) / 2).exp() / math.sqrt(2 * math.pi)
    return torch.where(negative > RARE, shift.detach() - spread * density / negative, -3 * spread)


def partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """sum (s - max(t, m))^2 of a stage, 0-d: squared distance to the teacher's values raised to the margin m.

    Where the teacher is negative and the student below that target already, nothing counts.

    Args:
        student, teacher: (N, C, *size) of one shape, before the activation; the teacher's is a constant.
        margin: (C,).
    """
    teacher = teacher.detach()
    target = torch.maximum(teacher, margin.view(-1, *[1] * (teacher.ndim - 2)))
    counts = (student > target) | (teacher > 0)
    return ((student - target).square() * counts).sum()


def overhaul_loss(distances: Sequence[Tensor], rows: int) -> Tensor:
    """Stage distances over the rows of the batch, 0-d, each stage weighing half of the next deeper one."""
    last = len(distances) - 1
    return torch.stack([distance / 2 ** (last - i) for i, distance in enumerate(distances)]).sum() / rows


def connector(student: int, teacher: int, axes: int = 2) -> ConvBN:
    """A size-1 convolution, started from normal(0, 2 / teacher channels), and batch norm."""
    made = pointwise(student, teacher, axes)
    nn.init.normal_(made.conv.weight, 0.0, math.sqrt(2 / teacher))
    return made


class OFD(StageWise):
    """Student stages before their activation imitate what the teacher's activation lets through, and little else."""

    field = "preact"
    reads = frozenset({"preact"})
    min_batch = 2  # the connectors' batch norm, where maps are 1x1
    one_process = None

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        needs = super().needs(hp)
        return replace(needs, teacher=needs.teacher | {"norm"}, teacher_batchnorm=hp.teacher_batchnorm)

    def build(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        self.connectors = nn.ModuleList(connector(s.shape[1], t.shape[1], s.ndim - 2) for s, t in pairs)
        stages = [stage - 1 for stage in self.hp.teacher_stages] or range(len(pairs))
        self.margins = nn.ParameterList(
            nn.Parameter(margins(*self.teacher.norm(stage)), requires_grad=False) for stage in stages
        )

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        distances = []
        for (student, teacher), connect, margin in zip(
            self.pairs(out, target), self.connectors, self.margins, strict=True
        ):
            student, teacher = match(student, teacher)
            distances.append(partial_distance(connect(student), teacher, margin))
        return {"feature": self.hp.feature_weight * overhaul_loss(distances, len(student))}
