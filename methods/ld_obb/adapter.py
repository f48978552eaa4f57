"""Localization distillation of turned boxes (Zheng et al., TPAMI 2023): the distributions of box and angle, and the
class scores, are the teacher's in one region around objects.

Shapes: N pictures, Q cells of all levels, K classes, M objects of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from kdbench.contract import At, Batch, Method, Needs
from kdbench.methods.shared.bins import divergence, edge_divergence, same_bins
from kdbench.methods.shared.pyramids import ORIENTED
from kdbench.models.atss import candidates, thresholds

LEAST = 0.25
"""Share of an object's threshold from which on a cell lies in its region."""


def region(boxes: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """(Q,) the largest overlap with an object of which it is a quarter of the threshold at least, 0 elsewhere.

    Objects, (M, 5), stand there as if not turned: centre, width and height, as in the released code.
    """
    every = torch.cat(list(anchors))
    if not len(boxes):
        return every.new_zeros(len(every))
    half = boxes[:, 2:4] / 2
    overlaps = box_iou(every, torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], 1))
    limit = thresholds(overlaps, candidates(boxes[:, :2], anchors))
    return overlaps.where(overlaps >= LEAST * limit, 0).amax(1)


class LDOriented(Method):
    """The detector's loss, and the divergences of distributions and of class scores, means over the region's cells."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        answers = frozenset({"cls", "box", "bins"})
        return Needs(
            kinds=ORIENTED,
            inputs="same",
            student=answers | {"anchors"},
            teacher=answers,
            batch=frozenset({"boxes"}),
            one_process="it divides by the region of the whole batch",
        )

    def setup(self) -> None:
        same_bins(*(self.task.probe(net).dense for net in (self.student, self.teacher)))

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, out, target = self.hp, self.student(batch), self.teacher(batch)
        own, theirs = out.dense, target.dense
        objects = [one["boxes"].to(own.anchors[0]) for one in batch.y.listed()]
        weight = torch.stack([region(boxes, own.anchors) for boxes in objects])
        cells = (weight > 0).sum().clamp_min(1)
        box = edge_divergence(torch.cat(own.box, 1), torch.cat(theirs.box, 1), own.bins, hp.box_temperature)
        classes = divergence(torch.cat(own.cls, 1), torch.cat(theirs.cls, 1), hp.class_temperature)
        return {
            "task": self.task.loss(out, batch),
            "box": hp.box_weight * (weight * box).sum() / cells,
            "class": hp.class_weight * (weight * classes).sum() / cells,
        }
