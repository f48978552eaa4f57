"""Attention similarity distillation (Shin, Lee, Lee, Yu, Lee, ECCV 2022): where a network of low resolution looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs, NotApplicable
from kdbench.methods.shared.cosines import apart


def attention_apart(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """sum over attention maps of mean_rows (1 - cos), 0-d.

    Args:
        student, teacher: maps before their sigmoids, equally many and of equal shapes, each (N, C, 1, 1) or
            (N, 1, H, W); the teacher's are constants.
    """
    return torch.stack([apart(s, t.detach()).mean() for s, t in zip(student, teacher, strict=True)]).sum()


class ASKD(Method):
    """The task's loss, and every attention map of the student drawn to the teacher's.

    L = L_task + attention_weight sum_blocks [d(a_c) + d(a_s)], of :func:`attention_apart`.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        kinds, reads = frozenset({"classification", "regression"}), frozenset({"attention"})
        return Needs(kinds=kinds, inputs="same", student=reads | {"logits"}, teacher=reads, one_process=None)

    def setup(self) -> None:
        own, theirs = (self.task.probe(net).attention for net in (self.student, self.teacher))
        if len(own) != len(theirs):
            raise NotApplicable(f"the student has {len(own)} attention maps and the teacher {len(theirs)}")
        for s, t in zip(own, theirs, strict=True):
            if s.shape != t.shape:
                here, there = ("x".join(map(str, a.shape[1:])) for a in (s, t))
                raise NotApplicable(
                    f"attention of {here} and of {there} cannot be compared; take nets of one width and inputs of one "
                    "size (data.inputs with enlarge: true)"
                )

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out, target = self.student(batch), self.teacher(batch)
        attention = attention_apart(out.attention, target.attention)
        return {"task": self.task.loss(out, batch), "attention": self.hp.attention_weight * attention}
