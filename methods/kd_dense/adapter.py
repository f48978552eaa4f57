"""Distillation of a detector's answers at equal cells, the baseline of dense prediction: class scores and boxes.

It is kdbench's own, of known parts: the softened divergence of classifiers does not fit scores by sigmoid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs
from kdbench.methods.shared.boxes import counted, quality_focal, same_cells
from kdbench.methods.shared.pyramids import DETECTORS


def box_gap(student: Tensor, teacher: Tensor, scores: Tensor, counts: Tensor) -> Tensor:
    """Mean absolute difference of (N, Q, 4) raw regressions, weighed by the teacher's largest score and summed, 0-d.

    Args:
        student, teacher: in the units of the detector; the teacher's is a constant.
        scores: (N, Q, K) logits of the teacher.
        counts: (N, Q) 0 where an anchor is left out.
    """
    certainty = scores.detach().amax(-1).sigmoid() * counts
    return ((student - teacher.detach()).abs().mean(-1) * certainty).sum()


class KDDense(Method):
    """The detector's loss, and the gaps of class scores and boxes, divided by the number of positives."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        answers = frozenset({"cls", "box"})
        return Needs(
            kinds=DETECTORS,
            inputs="same",
            student=answers | {"assigned"},
            teacher=answers,
            one_process="it divides by the positives of the whole batch",
        )

    def setup(self) -> None:
        same_cells(*(self.task.probe(net).dense for net in (self.student, self.teacher)))

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        own, theirs = ([torch.cat(parts, 1) for parts in (one.dense.cls, one.dense.box)] for one in (out, target))
        counts, positives = counted(out.dense)
        shared = 1 / positives.clamp_min(1)
        gap = (quality_focal(own[0], theirs[0], hp.beta) * counts).sum()
        return {
            "task": self.task.loss(out, batch),
            "class": hp.class_weight * shared * gap,
            "box": hp.box_weight * shared * box_gap(own[1], theirs[1], theirs[0], counts),
        }
