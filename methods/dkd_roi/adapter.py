"""Decoupled knowledge distillation on the proposals of a detector of two stages (Zhao et al., CVPR 2022, detection):
the method `dkd` where the rows are proposals and background is a class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs
from kdbench.methods.dkd.adapter import dkd_loss
from kdbench.methods.shared.pyramids import ACROSS_ROWS, DETECTORS, proposed


class DKDRoI(Method):
    """The detector's loss, and `dkd`'s divergence of class scores of the proposals that this loss is of."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(
            kinds=DETECTORS,
            inputs="same",
            student=frozenset({"proposals", "roi", "roi_labels"}),
            teacher=frozenset({"fpn", "roi_head"}),
            one_process=ACROSS_ROWS,
        )

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        own, theirs = proposed(out, target, self.teacher)
        divergence = dkd_loss(own, theirs, out.dense.roi_labels, hp.temperature, hp.alpha, hp.beta)
        return {"task": self.task.loss(out, batch), "dkd": hp.kd_weight * divergence}
