"""The student without distillation: the task's own loss, nothing else."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs


class Plain(Method):
    """One student, one view, the task's loss."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=frozenset({"classification", "regression", "crossmodal"}), teachers=(), teacher=frozenset())

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        return {"task": self.task.loss(self.student(batch), batch.y)}
