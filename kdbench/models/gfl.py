"""A head of edge distributions (Li et al., NeurIPS 2020, arXiv 2006.04388) on FCOS's branches, with ATSS's assignment.

Each edge of a cell's box is a distribution over distances 0 to R strides; its mean is the distance. A class score is
the overlap that the box is expected to have.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSRegressionHead
from torchvision.ops import generalized_box_iou_loss

from kdbench.models.atss import centres, selected
from kdbench.models.detector import Detector, group_norm
from kdbench.models.pyramid import Pyramid

SIDE = 8
"""Of a cell's one anchor, in strides."""
MOST = 16
"""R, the largest distance of an edge in strides."""
BETA, BOX_WEIGHT, EDGE_WEIGHT = 2.0, 2.0, 0.25
"""Exponent of the gap of scores, and weights of the boxes' and the distributions' losses, as published."""


def bins(most: int = MOST) -> tuple[tuple[float, ...], ...]:
    """What the bins of each edge stand for."""
    return (tuple(float(place) for place in range(most + 1)),) * 4


def distances(box: Tensor) -> Tensor:
    """(..., 4) mean distances to left, top, right and bottom, in strides, of (..., 4 * (R + 1)) logits."""
    shares = box.unflatten(-1, (4, -1)).softmax(-1)
    return shares @ torch.arange(shares.shape[-1], dtype=box.dtype, device=box.device)


def edges(box: Tensor, anchors: Tensor) -> Tensor:
    """(..., 4) boxes of logits and anchors."""
    at, unit = centres(anchors), (anchors[..., 2:] - anchors[..., :2]) / SIDE
    out = distances(box) * unit.repeat(*[1] * (unit.ndim - 1), 2)
    return torch.cat([at - out[..., :2], at + out[..., 2:]], -1)


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """(P,) IoU of (P, 4) boxes with those of the same place."""
    low, high = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    shared = (high - low).clamp_min(0).prod(1)
    areas = (box[:, 2:] - box[:, :2] for box in (one, other))
    return shared / (sum(area.prod(1) for area in areas) - shared).clamp_min(1e-6)


def quality_focal(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed BCE of (..., K) logits to targets from 0 to 1, weighed by |score - target|^2, 0-d (section 3.2)."""
    gap = (logits.sigmoid() - targets).abs().pow(BETA)
    return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * gap).sum()


def distribution_focal(box: Tensor, targets: Tensor) -> Tensor:
    """(P, E) cross-entropy of distributions to the two bins around each target, by nearness (section 3.2).

    Args:
        box: (P, E, B) logits.
        targets: (P, E) places among the bins, 0 to B - 1 and below the last.
    """
    low, log = targets.long(), box.log_softmax(-1)
    share = targets - low
    near, far = (log.gather(-1, place[..., None]).squeeze(-1) for place in (low, low + 1))
    return -(near * (1 - share) + far * share)


class Branches(nn.Module):
    """The class and the box branch of a head whose boxes are distributions, called as torchvision's heads are.

    Args:
        channels: of the pyramid.
        depth: blocks of each branch.
        numbers: outputs of the box branch at a cell, the bins of all numbers of a box.
    """

    def __init__(self, channels: int, classes: int, depth: int, numbers: int) -> None:
        super().__init__()
        self.classification_head = FCOSClassificationHead(channels, 1, classes, depth, norm_layer=group_norm)
        self.regression_head = FCOSRegressionHead(channels, 1, depth, norm_layer=group_norm)
        self.regression_head.bbox_reg = nn.Conv2d(channels, numbers, 3, padding=1)
        del self.regression_head.bbox_ctrness
        nn.init.normal_(self.regression_head.bbox_reg.weight, std=0.01)
        assert self.regression_head.bbox_reg.bias is not None
        nn.init.zeros_(self.regression_head.bbox_reg.bias)


class Positives(NamedTuple):
    """The P cells of a batch that an object is assigned to.

    Attributes:
        picture, place: (P,) where each lies: row of the batch, cell of all levels.
        labels: (P,) classes of their objects.
        wanted: (P, 4 or 5) boxes of their objects.
        cells: (P, 4) their anchors.
        said: (P, Q) what the box branch answers there.
    """

    picture: Tensor
    place: Tensor
    labels: Tensor
    wanted: Tensor
    cells: Tensor
    said: Tensor


def positives(targets: list[dict[str, Tensor]], box: Tensor, anchors: list[Tensor], matched: list[Tensor]) -> Positives:
    """From (N, cells, Q) answers of the box branch and the number of each cell's object in its picture, -1 for none."""
    number = torch.stack(matched)
    picture, place = (number >= 0).nonzero(as_tuple=True)
    begins = torch.tensor([0, *(len(t["boxes"]) for t in targets)], device=number.device).cumsum(0)[:-1]
    objects, labels = (torch.cat([t[name] for t in targets]) for name in ("boxes", "labels"))
    own = begins[picture] + number[picture, place]
    return Positives(picture, place, labels[own], objects[own].to(box), anchors[0][place].to(box), box[picture, place])


class Heads(Branches):
    """Both branches and their losses."""

    def __init__(self, channels: int, classes: int, depth: int) -> None:
        super().__init__(channels, classes, depth, 4 * (MOST + 1))

    def compute_loss(
        self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], matched: list[Tensor]
    ) -> dict[str, Tensor]:
        """Three terms, by the positives of the batch and, of boxes, by the scores of those."""
        logits, box = outputs["cls_logits"], outputs["bbox_regression"]
        picture, place, labels, wanted, cells, said = positives(targets, box, anchors, matched)
        boxes = edges(said, cells)
        target = torch.zeros_like(logits)
        target[picture, place, labels] = overlaps(boxes.detach(), wanted)
        surest = logits.detach()[picture, place].sigmoid().amax(1) if len(labels) else box.new_zeros(0)
        shared = surest.sum().clamp_min(torch.finfo(box.dtype).tiny ** 0.5)
        unit = (cells[:, 2:] - cells[:, :2]) / SIDE
        out = torch.cat([centres(cells) - wanted[:, :2], wanted[:, 2:] - centres(cells)], 1) / unit.repeat(1, 2)
        focal = distribution_focal(said.unflatten(-1, (4, -1)), out.clamp(0, MOST - 0.1))
        return {
            "classification": quality_focal(logits, target) / max(1, len(labels)),
            "bbox_regression": BOX_WEIGHT * (generalized_box_iou_loss(boxes, wanted) * surest).sum() / shared,
            "bbox_distribution": EDGE_WEIGHT * (focal.mean(1) * surest).sum() / shared,
        }


class GFLDetector(Detector):
    """One anchor a cell, distributions of its edges, and class scores that tell how well the box fits."""

    offset = 0.5
    head: Any

    def __init__(self, of: Pyramid, channels: int, classes: int, depth: int) -> None:
        super().__init__(of, Heads(channels, classes, depth), [[SIDE * stride] for stride in of.strides], [1.0])
        self.bins = bins()

    def regression(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.head.regression_head.bbox_reg(features),)

    def decode(self, box: Tensor, anchors: Tensor) -> Tensor:
        return edges(box, anchors.to(box.dtype))

    def matched(self, boxes: Tensor, anchors: list[Tensor]) -> Tensor:
        return selected(boxes, anchors)
