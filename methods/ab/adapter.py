"""Distillation of activation boundaries (Heo et al., AAAI 2019): an initialisation, then the task alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdbench.contract import NotApplicable, Out
from kdbench.methods.shared.connectors import regressor
from kdbench.methods.shared.objective import Initialisation, StageWise


def boundary_losses(student: Sequence[Tensor], teacher: Sequence[Tensor], margin: float) -> list[Tensor]:
    """Squared hinge of each pair of maps, 0-d, shallow to deep; each stage weighs twice the one before it.

    2^(i - n + 1) 3 / (1000 N) sum (max(m - s, 0)^2 where t > 0, else max(s + m, 0)^2) for stage i of n: the student's
    value must exceed the margin m where the teacher's neuron is active, and stay below -m where it is not.

    Args:
        student, teacher: maps (N, C, *size) before the activation, of equal shapes; the teacher's are constants.
    """
    losses = []
    for depth, (s, t) in enumerate(zip(student, teacher, strict=True)):
        missed = torch.where(t > 0, margin - s, s + margin).relu()
        losses.append(2.0 ** (depth - len(student) + 1) * 3 / (1000 * len(s)) * missed.square().sum())
    return losses


class AB(StageWise, Initialisation):
    """In the first phase each stage, through a connector where shapes differ, learns where the teacher's is active."""

    reads = frozenset({"preact"})
    field = "preact"
    min_batch = 2  # the connectors' batch norm, where maps are 1x1
    one_process = None

    def build(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        self.connectors = nn.ModuleList(self._connector(s, t) for s, t in pairs)

    @staticmethod
    def _connector(student: Tensor, teacher: Tensor) -> nn.Module:
        if student.shape == teacher.shape:
            return nn.Identity()
        try:
            return regressor(student.shape[1:], teacher.shape[1:])
        except ValueError as error:
            raise NotApplicable(str(error)) from error

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        student, teacher = zip(*self.pairs(out, target), strict=True)
        connected = [connector(s) for connector, s in zip(self.connectors, student, strict=True)]
        losses = boundary_losses(connected, teacher, self.hp.margin)
        return {"boundary": self.hp.boundary_weight * torch.stack(losses).sum()}
