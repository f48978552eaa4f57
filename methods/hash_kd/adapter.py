"""Relational losses on hash codes, as the baselines of BRCD (WWW 2024) compute them, beside the task's own loss.

Shapes: N rows of a batch, L bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs, NotApplicable, Stage, Views, bits
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.pkt.adapter import pkt_loss
from kdbench.methods.rkd.adapter import relational_losses
from kdbench.methods.shared.matching import unit
from kdbench.methods.sp.adapter import similarity_loss

DISTANCE, ANGLE = 25.0, 50.0
"""Weights inside the relation ``rkd``."""
TEMPERATURE = 4.0
"""Of the relation ``kl``."""
TURNED_TEMPERATURE = 0.5
"""Of the relation ``sskd``."""
TURNS = (1, 2, 3)
"""Quarter turns of a picture."""


def gram_by_row(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_n ||G(s_n) - G(t_n)||_F^2 / L^2, 0-d: G is the (L, L) Gram matrix of one row's bits, its rows unit vectors.

    This is what the published code computes where it means SP, for it goes through the rows of a batch.

    Args:
        student, teacher: (N, L) bits of the same rows.
    """

    def gram(code: Tensor) -> Tensor:
        return unit(code[:, :, None] * code[:, None, :])

    return (gram(student) - gram(teacher)).square().sum() / student.shape[1] ** 2


def turned_similarity(student: Tensor, teacher: Tensor, views: int) -> Tensor:
    """T^2 KL(teacher || student) of how alike each turned copy is to every picture as it is, 0-d, mean over copies.

    Args:
        student, teacher: (V * N, L) bits, view-major, view 0 the pictures as they are; the teacher's are constants.
        views: V.
    """

    def cosines(code: Tensor) -> Tensor:
        rows = unit(code)
        upright, turned = rows.split([len(rows) // views, len(rows) - len(rows) // views])
        return turned @ upright.T

    return kd_loss(cosines(student), cosines(teacher), TURNED_TEMPERATURE)


def relation(form: str, student: Tensor, teacher: Tensor) -> Tensor:
    """A relation of the student's bits with the teacher's, 0-d, not weighted.

    Args:
        form: ``rkd``, ``pkt``, ``sp``, ``sp_batch`` or ``kl``.
        student, teacher: (N, L) bits of the same rows; the teacher's are constants.
    """
    if form == "rkd":
        distance, angle = relational_losses(student, teacher)
        return DISTANCE * distance + ANGLE * angle
    if form == "kl":
        return kd_loss(student, teacher, TEMPERATURE)
    losses = {"pkt": pkt_loss, "sp": gram_by_row, "sp_batch": similarity_loss}
    return losses[form](student, teacher)


def with_turns(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """(N, C, H, W) to (5, N, C, H, W): twice as they are, then turned by each of the quarter turns."""
    return torch.stack([pixels, pixels, *(pixels.rot90(turn, (-2, -1)) for turn in TURNS)])


class HashKD(Method):
    """The task's own loss, and a relation of the bits of view 0 with the teacher's."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        code, turned = frozenset({"code"}), hp.relation == "sskd"
        return Needs(
            kinds=frozenset({"hashing"}),
            inputs="same" if turned else "any",
            student=code,
            teacher=code,
            data=frozenset({"rotation_safe"}) if turned else frozenset(),
            views=2 + len(TURNS) if turned else 1,
            min_batch=3 if hp.relation == "rkd" else 2,
            one_process="its loss compares the rows of a batch with one another",
        )

    def setup(self) -> None:
        own, other = (self.task.probe(net).code.shape[1] for net in (self.student, self.teacher))
        if own != other:
            raise NotApplicable(f"student and teacher need codes of one length, they have {own} and {other} bits")

    def stages(self) -> Iterator[Stage]:
        for stage in super().stages():
            turned = Views(2 + len(TURNS), with_turns, "raw", input=self.student.input)
            yield replace(stage, views=turned) if self.hp.relation == "sskd" else stage

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        if self.hp.relation == "sskd":
            return self._turned(batch)
        out, first = self.student(batch), batch.view(0)
        with torch.no_grad():
            teacher = bits(self.teacher(first).code)
        term = relation(self.hp.relation, batch.unview(bits(out.code))[0], teacher)
        return {"task": self.task.loss(out, batch), self.hp.relation: self.hp.weight * term}

    def _turned(self, batch: Batch) -> dict[str, Tensor]:
        """The task's loss of the first two views; the relation of the first and the turned ones."""
        own = some_views(batch, [0, 1])
        turned = some_views(batch, [0, *range(2, batch.views)])
        with torch.no_grad():
            teacher = bits(self.teacher(turned).code)
        term = turned_similarity(bits(self.student(turned).code), teacher, turned.views)
        return {"task": self.task.loss(self.student(own), own), "sskd": self.hp.weight * term}


def some_views(batch: Batch, which: list[int]) -> Batch:
    """Some views of a batch as a batch."""
    parts = [batch.view(view) for view in which]
    return Batch(
        {name: torch.cat([part.x[name] for part in parts]) for name in batch.x},
        parts[0].y.repeat(len(parts)),
        torch.cat([part.index for part in parts]),
        len(parts),
        {name: torch.cat([part.present[name] for part in parts]) for name in batch.present},
    )
