"""A reconstruction of decoupled distillation of turned boxes, of which the title alone is public: each distribution of
a box is distilled as decoupled distillation does class scores, by its target bin and by the others.

Shapes: P assigned cells of a batch, B bins of a distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs
from kdbench.contract.oriented import long
from kdbench.methods.dkd.adapter import others_divergence, target_divergence
from kdbench.methods.shared.bins import parted, same_bins
from kdbench.methods.shared.pyramids import ORIENTED
from kdbench.models.obb import places, smooth_label


def targets(objects: Tensor, anchors: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each distribution (P,) the bin nearest to the truth, and (P,) whether it counts: an angle of long boxes does.

    Args:
        objects: (P, 5).
        anchors: (P, 4).
    """
    every = torch.ones(len(objects), dtype=torch.bool, device=objects.device)
    found = [(place, every) for place in places(objects, anchors).round().long().unbind(1)]
    return [*found, (smooth_label(objects[:, 4]).argmax(1), long(objects))]


class DDKDOriented(Method):
    """The detector's loss, and of assigned cells the terms of target and of other bins, of box and angle."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        answers = frozenset({"box", "cls", "bins"})
        return Needs(
            kinds=ORIENTED,
            inputs="same",
            student=answers | {"anchors", "assigned"},
            teacher=answers,
            batch=frozenset({"boxes"}),
            one_process="it divides by the positives of the whole batch",
        )

    def setup(self) -> None:
        same_bins(*(self.task.probe(net).dense for net in (self.student, self.teacher)))

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, out, target = self.hp, self.student(batch), self.teacher(batch)
        own, theirs = out.dense, target.dense
        assigned = torch.cat(own.assigned, 1)
        picture, cell = (assigned >= 0).nonzero(as_tuple=True)
        objects = batch.y.boxes.to(own.box[0])[assigned[picture, cell]]
        said, wanted = (parted(torch.cat(dense.box, 1)[picture, cell], own.bins) for dense in (own, theirs))
        on, off = self.decoupled(said, wanted, targets(objects, torch.cat(own.anchors)[cell].to(objects)))
        return {"task": self.task.loss(out, batch), "target": hp.target_weight * on, "others": hp.others_weight * off}

    def decoupled(
        self, said: Sequence[Tensor], wanted: Sequence[Tensor], bins: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Terms of the target bins and of the others, each a mean over cells, summed over distributions."""
        on, off = said[0].sum() * 0, said[0].sum() * 0
        for student, teacher, (place, counts) in zip(said, wanted, bins, strict=True):
            if counts.any():
                given = (student[counts], teacher[counts], place[counts], self.hp.temperature)
                on, off = on + target_divergence(*given), off + others_divergence(*given)
        return on, off
