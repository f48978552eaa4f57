"""Distillation of activation boundaries (Heo et al., AAAI 2019): an initialisation, then the task alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import Network, NotApplicable, Out, TaskInfo
from kdbench.methods.shared.connectors import regressor
from kdbench.methods.shared.matching import pair_stages
from kdbench.methods.shared.objective import Initialisation


def boundary_losses(student: Sequence[Tensor], teacher: Sequence[Tensor], margin: float) -> list[Tensor]:
    """Squared hinge of each pair of maps, 0-d, shallow to deep; each stage weighs twice the one before it.

    The student's value must exceed ``margin`` where the teacher's neuron is active, and stay below ``-margin`` where it
    is not. Sums over all elements, times 3 / (1000 N), the deepest stage with factor 1.

    Args:
        student, teacher: maps (N, C, *size) before the activation, of equal shapes; the teacher's are constants.
    """
    losses = []
    for depth, (s, t) in enumerate(zip(student, teacher, strict=True)):
        missed = torch.where(t > 0, margin - s, s + margin).relu()
        losses.append(2.0 ** (depth - len(student) + 1) * 3 / (1000 * len(s)) * missed.square().sum())
    return losses


class AB(Initialisation):
    """In the first phase each stage, through a connector where shapes differ, learns where the teacher's is active."""

    reads = frozenset({"preact"})

    def __init__(self, task: TaskInfo, students: Sequence[Network], teachers: Mapping[str, Network], hp: Any) -> None:
        super().__init__(task, students, teachers, hp)
        pairs = self._pairs(task.probe(self.student), task.probe(self.teacher))
        self.connectors = nn.ModuleList(self._connector(s, t) for s, t in pairs)

    @staticmethod
    def _connector(student: Tensor, teacher: Tensor) -> nn.Module:
        if student.shape == teacher.shape:
            return nn.Identity()
        try:
            return regressor(student.shape[1:], teacher.shape[1:])
        except ValueError as error:
            raise NotApplicable(str(error)) from error

    def _pairs(self, out: Out, target: Out) -> list[tuple[Tensor, Tensor]]:
        return pair_stages(out.preact, target.preact, self.hp.student_stages, self.hp.teacher_stages)

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        student, teacher = zip(*self._pairs(out, target), strict=True)
        connected = [connector(s) for connector, s in zip(self.connectors, student, strict=True)]
        losses = boundary_losses(connected, teacher, self.hp.margin)
        return {"boundary": self.hp.boundary_weight * torch.stack(losses).sum()}
