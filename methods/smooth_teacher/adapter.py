"""A teacher that is first made smooth, then taught from: the stand-in for a method of which the title alone is public.

Shapes: N rows of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import VALUES, At, Batch, Group, Needs, Stage
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.objective import phase_epochs
from kdbench.methods.shared.phases import Phased, reusable


def roughness(clean: Tensor, moved: Tensor) -> Tensor:
    """mean_n ||z(x + d) - z(x)||^2 / C, 0-d; scores of the rows as they are are constants.

    Args:
        clean, moved: (N, C) scores of the rows as they are, and with noise.
    """
    return (moved - clean.detach()).square().mean()


def with_noise(batch: Batch, name: str, deviation: float, rng: torch.Generator) -> Batch:
    """The batch with noise N(0, deviation^2) on an input as networks read it."""
    x = batch.x[name]
    noise = deviation * torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
    return Batch({**batch.x, name: x + noise}, batch.y, batch.index, batch.views, batch.present)


class SmoothTeacher(Phased, ScoreMethod):
    """The teacher goes on training, cross-entropy and :func:`roughness`; then it teaches as in kd."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(
            batch=frozenset({VALUES}), trains_teacher=True, one_process="the noise is drawn for each process's own rows"
        )

    def setup(self) -> None:
        super().setup()
        self.taught = nn.ModuleDict({"net": self.teacher})

    def teacher_losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """What the teacher minimises."""
        hp = self.hp
        out = self.teacher(batch)
        moved = self.teacher(with_noise(batch, self.teacher.input, hp.noise, at.rng))
        rough = roughness(out.logits, moved.logits)
        return {"task": self.task.loss(out, batch), "smooth": hp.smoothness_weight * rough}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out = self.student(batch)
        with torch.no_grad():
            target = self.teacher(batch)
        divergence = kd_loss(out.logits, target.logits, hp.temperature)
        return {"ce": hp.ce_weight * self.task.loss(out, batch), "kd": hp.kd_weight * divergence}

    def stages(self) -> Iterator[Stage]:
        hp = self.hp
        lr = hp.teacher_lr * self.task.optimizer["lr"]
        first = Stage(
            "smooth",
            [Group("teacher", list(self.taught.parameters()), {"lr": lr})],
            losses=self.teacher_losses,
            epochs=phase_epochs(hp.teacher_phase, self.task.epochs),
            ledger="teacher_train",
        )
        uses = ["smoothness_weight", "noise", "teacher_phase", "teacher_lr"]
        yield from reusable(self.task, first, self.taught, uses)
        self.hold(self.taught)
        yield Stage(
            "distill", [Group("student", list(self.student.parameters()))], losses=self.losses, epochs=self.task.epochs
        )
