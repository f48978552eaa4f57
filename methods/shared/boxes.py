"""What methods on detection heads share: a quality-focal divergence of class scores, overlaps of boxes, positives.

Shapes: N pictures, Q anchors of all levels, K classes; boxes are x0, y0, x1, y1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import Dense, NotApplicable, Objects

EPS = 1e-6
"""Smallest area that is divided by, and smallest overlap that a logarithm is taken of."""
IGNORED = -2
"""In an assignment: left out of the detector's loss."""


def same_cells(student: Dense, teacher: Dense) -> None:
    """Raises :class:`NotApplicable` where two detectors do not answer in equal form at equal cells."""
    for field in ("cls", "box"):
        own, theirs = ([tuple(x.shape[1:]) for x in getattr(dense, field)] for dense in (student, teacher))
        if own != theirs:
            raise NotApplicable(
                f"answers are compared cell by cell, and {field} of the student's levels is {own}, of the teacher's "
                f"{theirs}"
            )


def quality_focal(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """BCE to the teacher's scores times |own score - teacher's|^beta (quality focal loss, Li et al., NeurIPS 2020).

    Args:
        student, teacher: (..., K) logits; the teacher's are constants.

    Returns:
        (...,) summed over classes.
    """
    target = teacher.detach().sigmoid()
    gap = (student.sigmoid() - target).abs().pow(beta)
    return (F.binary_cross_entropy_with_logits(student, target, reduction="none") * gap).sum(-1)


def overlap(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes (..., 4) with those of the same place, each (...) (Rezatofighi et al. 2019)."""

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp_min(0).prod(-1)

    shared = area(torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:]))
    own, theirs = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (one, other))
    union = (own + theirs - shared).clamp_min(EPS)
    hull = area(torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:]))
    hull = hull.clamp_min(EPS)
    iou = shared / union
    return iou, iou - (hull - union) / hull


def box_distance(form: str, one: Tensor, other: Tensor) -> Tensor:
    """Of boxes (..., 4) at equal places: ``giou`` 1 - GIoU, ``iou`` -log IoU; (...)."""
    iou, giou = overlap(one, other)
    return 1 - giou if form == "giou" else -iou.clamp_min(EPS).log()


def counted(dense: Dense) -> tuple[Tensor, Tensor]:
    """(N, Q) 1 where an anchor counts in the detector's loss, 0 where it is left out; and the number of positives."""
    assigned = torch.cat(dense.assigned, 1)
    return (assigned != IGNORED).to(dense.fpn[0]), (assigned >= 0).sum().to(dense.fpn[0])


def centreness(dense: Dense, objects: Objects) -> Tensor:
    """Sum over positives of the centre-ness of their anchor's centre in their object, 0-d (Tian et al., ICCV 2019)."""
    assigned, anchors = torch.cat(dense.assigned, 1), torch.cat(dense.anchors)
    place = (anchors[..., :2] + anchors[..., 2:]) / 2
    picture, anchor = (assigned >= 0).nonzero(as_tuple=True)
    box = objects.boxes.to(anchors)[assigned[picture, anchor]]
    sides = torch.stack([place[anchor] - box[..., :2], box[..., 2:] - place[anchor]]).clamp_min(0)
    share = sides.amin(0) / sides.amax(0).clamp_min(EPS)
    return share.prod(1).sqrt().sum()
