"""The student without distillation: the task's own loss, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs, Stage


class Plain(Method):
    """One student, one view, the task's loss; with ``label_smoothing`` the cross-entropy with smoothed labels.

    ``length`` stretches training, the learning-rate schedule with it.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        none: frozenset[str] = frozenset()
        if not hp.label_smoothing:
            return Needs(kinds=None, teachers=(), student=none, teacher=none, one_process=None)
        return Needs(kinds=frozenset({"classification"}), teachers=(), teacher=none, one_process=None)

    def stages(self) -> Iterator[Stage]:
        if self.hp.length == 1.0:
            yield from super().stages()
            return
        steps = max(1, round(self.task.epochs * self.task.steps * self.hp.length))
        yield Stage("distill", losses=self.losses, groups=self.groups(), steps=steps)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out = self.student(batch)
        if not self.hp.label_smoothing:
            return {"task": self.task.loss(out, batch)}
        return {"ce": F.cross_entropy(out.logits, batch.y, label_smoothing=self.hp.label_smoothing)}
