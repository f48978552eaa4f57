"""A detector of turned boxes on FCOS's branches: five distributions a cell, four of the box and one of its angle.

Our own, of known parts: ATSS's assignment by overlaps of turned boxes, class scores that tell how well the box fits
(generalized focal loss), deltas to a square anchor on bins, and the angle on bins of a half turn with circular smooth
labels (Yang & Yan, ECCV 2020, arXiv 2003.05597). Overlaps of turned boxes have no gradient: they assign and weigh.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.contract import OrientedObjects
from kdbench.contract.oriented import long, overlaps
from kdbench.models.atss import INSIDE, best_of, candidates, centres
from kdbench.models.detector import Detector
from kdbench.models.gfl import Branches, distribution_focal, positives, quality_focal
from kdbench.models.pyramid import Pyramid

SIDE = 4
"""Of a cell's one anchor, in strides."""
DELTAS = tuple(place / 2 for place in range(-4, 5))
"""What the bins of a delta stand for."""
ANGLES = tuple(float(degrees) for degrees in range(-90, 90, 2))
"""What the bins of the angle stand for, in degrees."""
BINS = (*(DELTAS,) * 4, ANGLES)
SMOOTH = 8.0
"""Degrees, the deviation of a smooth label of the angle."""
FEW = 4
"""Pairs of boxes of one place that are taken out of all pairs of so many."""


def turned(anchors: Tensor) -> Tensor:
    """(..., 5) boxes of angle 0 of (..., 4) ones by corners."""
    sides = anchors[..., 2:] - anchors[..., :2]
    return torch.cat([centres(anchors), sides, torch.zeros_like(sides[..., :1])], -1)


def parts(box: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4, B) logits of the deltas and (..., A) of the angle."""
    deltas, angle = box.split([4 * len(DELTAS), len(ANGLES)], -1)
    return deltas.unflatten(-1, (4, -1)), angle


def boxes_of(box: Tensor, anchors: Tensor) -> Tensor:
    """(..., 5) turned boxes of logits and (..., 4) anchors, the longer side first, degrees within [-90, 90).

    Deltas are means over bins, of centres in sides of the anchor, of sides the logarithm; the angle is the mean
    direction of a line over a half turn.
    """
    deltas, angle = parts(box)
    mean = deltas.softmax(-1) @ box.new_tensor(DELTAS)
    side = anchors[..., 2:] - anchors[..., :2]
    at, sides = centres(anchors) + mean[..., :2] * side, mean[..., 2:].exp() * side
    double = 2 * torch.deg2rad(box.new_tensor(ANGLES))
    shares = angle.softmax(-1)
    degrees = torch.rad2deg(torch.atan2(shares @ double.sin(), shares @ double.cos())) / 2
    tall = sides[..., 1] > sides[..., 0]
    degrees = torch.where(tall, degrees + 90, degrees)
    sides = torch.where(tall[..., None], sides.flip(-1), sides)
    return torch.cat([at, sides, ((degrees + 90) % 180 - 90)[..., None]], -1)


def places(wanted: Tensor, anchors: Tensor) -> Tensor:
    """(P, 4) places among the bins of the deltas from (P, 4) anchors to (P, 5) boxes."""
    side = anchors[:, 2:] - anchors[:, :2]
    delta = torch.cat([(wanted[:, :2] - centres(anchors)) / side, (wanted[:, 2:4] / side).log()], 1)
    step = DELTAS[1] - DELTAS[0]
    return ((delta - DELTAS[0]) / step).clamp(0, len(DELTAS) - 1 - 0.01)


def smooth_label(degrees: Tensor) -> Tensor:
    """(P, A) shares of the angle's bins by nearness around the half turn to (P,) angles."""
    gap = (degrees[:, None] - degrees.new_tensor(ANGLES) + 90) % 180 - 90
    return (-(gap**2) / (2 * SMOOTH**2)).softmax(1)


class Heads(Branches):
    """Both branches and their losses."""

    def __init__(self, channels: int, classes: int, depth: int) -> None:
        super().__init__(channels, classes, depth, sum(map(len, BINS)))

    def compute_loss(
        self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], matched: list[Tensor]
    ) -> dict[str, Tensor]:
        """Three terms, divided by the positives of the batch."""
        logits, box = outputs["cls_logits"], outputs["bbox_regression"]
        picture, place, labels, wanted, cells, said = positives(targets, box, anchors, matched)
        shared = max(1, len(labels))
        target = torch.zeros_like(logits)
        target[picture, place, labels] = paired(boxes_of(said.detach(), cells), wanted)
        deltas, angle = parts(said)
        focal = distribution_focal(deltas, places(wanted, cells)).sum()
        turn = -(smooth_label(wanted[:, 4]) * angle.log_softmax(1)).sum(1)[long(wanted)].sum()
        return {
            "classification": quality_focal(logits, target) / shared,
            "bbox_distribution": focal / shared,
            "angle": turn / shared,
        }


def paired(one: Tensor, other: Tensor) -> Tensor:
    """(P,) IoU of (P, 5) turned boxes with those of the same place."""
    pairs = [overlaps(a, b).diagonal() for a, b in zip(one.split(FEW), other.split(FEW), strict=True)]
    return torch.cat(pairs) if pairs else one.new_zeros(0)


class OrientedDetector(Detector):
    """One square anchor a cell, distributions of its deltas and of an angle."""

    offset = 0.5
    numbers = OrientedObjects.WIDTH

    def __init__(self, of: Pyramid, channels: int, classes: int, depth: int) -> None:
        super().__init__(of, Heads(channels, classes, depth), [[SIDE * stride] for stride in of.strides], [1.0])
        self.bins = BINS

    def regression(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.head.regression_head.bbox_reg(features),)

    def decode(self, box: Tensor, anchors: Tensor) -> Tensor:
        return boxes_of(box, anchors.to(box.dtype))

    def matched(self, boxes: Tensor, anchors: list[Tensor]) -> Tensor:
        every = torch.cat(anchors)
        if not len(boxes):
            return torch.full((len(every),), -1, dtype=torch.int64, device=every.device)
        away = centres(every)[:, None] - boxes[:, :2]
        angle = torch.deg2rad(boxes[:, 4])
        along = away[..., 0] * angle.cos() - away[..., 1] * angle.sin()  # y points down, the angle turns upwards
        across = away[..., 0] * angle.sin() + away[..., 1] * angle.cos()
        inside = torch.minimum(boxes[:, 2] / 2 - along.abs(), boxes[:, 3] / 2 - across.abs()) > INSIDE
        candidate = candidates(boxes[:, :2], anchors)
        shared = every.new_zeros(len(every), len(boxes))
        near = candidate.any(1)  # the others' overlaps are not read, and cost most of a step
        shared[near] = overlaps(turned(every[near]), boxes)
        return best_of(shared, candidate, inside)
