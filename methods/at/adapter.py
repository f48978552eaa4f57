"""Attention transfer (Zagoruyko & Komodakis, ICLR 2017): activation-based spatial attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import Network, Out, TaskInfo
from kdbench.methods.shared.matching import match, pair_stages, unit
from kdbench.methods.shared.objective import Imitation


def attention(x: Tensor, power: float) -> Tensor:
    """(N, P) unit vectors of the channel mean of ``|x| ** power`` at each position of (N, C, *size)."""
    return unit(x.abs().pow(power).mean(dim=1).flatten(1))


def attention_loss(student: Tensor, teacher: Tensor, power: float = 2.0) -> Tensor:
    """Mean squared difference of two attention maps, over rows and positions, 0-d.

    Args:
        student, teacher: (N, C, *size) of one stage; the larger is pooled to the smaller before anything else, the
            channels may differ, the teacher's is a constant.
    """
    student, teacher = match(student, teacher.detach())
    return (attention(student, power) - attention(teacher, power)).square().mean()


class AT(Imitation):
    """Attention maps of paired stages are alike."""

    reads = frozenset({"maps"})

    def __init__(self, task: TaskInfo, students: Sequence[Network], teachers: Mapping[str, Network], hp: Any) -> None:
        super().__init__(task, students, teachers, hp)
        self._pairs(task.probe(self.student), task.probe(self.teacher))

    def _pairs(self, out: Out, target: Out) -> list[tuple[Tensor, Tensor]]:
        return pair_stages(out.maps, target.maps, self.hp.student_stages, self.hp.teacher_stages)

    def imitation(self, out: Out, target: Out) -> dict[str, Tensor]:
        losses = [attention_loss(s, t, self.hp.power) for s, t in self._pairs(out, target)]
        return {"attention": self.hp.attention_weight * torch.stack(losses).sum()}
