"""Feature similarity distillation for low resolution (Shin, Yu, Lee, arXiv 2303.04681): points, and pairs of a class.

Shapes: N rows, C channels of a map, P positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Needs, NotApplicable, Stage
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.cosines import apart
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.matching import pair_stages, unit
from kdbench.methods.shared.partners import SameClass


def points_apart(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """mean over stages of mean_rows (1 - cos) of maps of equal shapes, 0-d; the teacher's are constants."""
    return torch.stack([apart(s, t.detach()).mean() for s, t in zip(student, teacher, strict=True)]).mean()


def relation(one: Tensor, other: Tensor) -> Tensor:
    """(N, P, P) inner products of the positions of two maps (N, C, ...), each map at unit length as a whole."""
    a, b = (unit(x.flatten(1)).view_as(x).flatten(2) for x in (one, other))
    return a.transpose(1, 2) @ b


def crossed(student: Tensor, partner: Tensor, teacher: Tensor, teacher_partner: Tensor) -> Tensor:
    """(N,) [d(TT', TS') + d(TT', ST')] / 2 + d(TT', SS') of the relations of rows and their partners.

    Args:
        student, partner: (N, C, ...) maps of rows and of their partners.
        teacher, teacher_partner: the teacher's, constants.
    """
    there, beside = teacher.detach(), teacher_partner.detach()
    wanted = relation(there, beside)
    mixed = apart(wanted, relation(there, partner)) + apart(wanted, relation(student, beside))
    return mixed / 2 + apart(wanted, relation(student, partner))


def told_right(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) 1 where the highest of (N, C) scores is the class, else 0."""
    return (logits.argmax(dim=1) == y).to(logits.dtype)


def mean_of_some(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of (N,) values where (N,) ``chosen`` is 1; 0 where none is."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)


class Bridge(nn.Sequential):
    """A student's map at the teacher's width: 1x1 convolution without bias, batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class FSKDLR(ScoreMethod):
    """Task loss, maps drawn to the teacher's, relations with another row of the class, softened divergence.

    L = L_task + point_weight point + cross_weight cross + kd_weight T^2 KL(teacher || student): ``point`` of
    :func:`points_apart` over all stages, ``cross`` of :func:`crossed` on the last stage, over the rows that the teacher
    tells right. The batch's second view is of the partners.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        reads = frozenset({"logits", "maps"})
        return Needs(inputs="same", student=reads, teacher=reads, views=2, min_batch=2, one_process=None)

    def setup(self) -> None:
        super().setup()
        pairs = pair_stages(self.task.probe(self.student).maps, self.task.probe(self.teacher).maps)
        for s, t in pairs:
            if s.ndim != 4 or s.shape[2:] != t.shape[2:]:
                here, there = ("x".join(map(str, x.shape[2:])) for x in (s, t))
                raise NotApplicable(
                    f"maps of {here} and of {there} cannot be compared position by position; enlarge the student's "
                    "picture (data.inputs with enlarge: true)"
                )
        self.bridges = nn.ModuleList([Bridge(s.shape[1], t.shape[1]) for s, t in pairs])
        self.partners = SameClass(self.task.train_labels)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, task = self.hp, self.task
        own, other = batch.view(0), batch.view(1)
        out, beside = self.student(own), self.student(other)
        target, target_beside = self.teacher(own), self.teacher(other)
        maps = [bridge(x) for bridge, x in zip(self.bridges, out.maps, strict=True)]
        partner = self.bridges[-1](beside.maps[-1])
        point = points_apart(maps, target.maps)
        cross = crossed(maps[-1], partner, target.maps[-1], target_beside.maps[-1])
        right = told_right(target.logits, own.y)
        terms = {
            "task": task.loss(out, own),
            "point": hp.point_weight * point,
            "cross": hp.cross_weight * mean_of_some(task.gather(cross), task.gather(right)),
        }
        if hp.kd_weight:
            terms["kd"] = hp.kd_weight * kd_loss(out.logits, target.logits, hp.temperature)
        return terms

    def stages(self) -> Iterator[Stage]:
        yield replace(next(super().stages()), partners=self.partners)
