"""Adaptive training sample selection (Zhang et al., CVPR 2020, arXiv 1912.02424): which anchors are an object's own.

Q anchors of all levels, M objects of one picture; boxes are x0, y0, x1, y1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

NEAREST = 9
"""Anchors of a level that are candidates of an object, those whose centres are nearest to its own."""
INSIDE = 0.01
"""Pixels by which an anchor's centre lies within an object at least."""


def centres(boxes: Tensor) -> Tensor:
    """(..., 2) of (..., 4)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def candidates(at: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """(Q, M) bool, the anchors of each level that are nearest to (M, 2) centres."""
    found = []
    for level in anchors:
        distances = (centres(level)[:, None] - at).square().sum(2).sqrt()
        nearest = distances.topk(min(NEAREST, len(level)), 0, largest=False).indices
        found.append(torch.zeros_like(distances, dtype=torch.bool).scatter_(0, nearest, True))
    return torch.cat(found)


def thresholds(overlaps: Tensor, candidate: Tensor) -> Tensor:
    """(M,) mean plus deviation (divisor n - 1) of the overlaps of each object's candidates, both (Q, M)."""
    number = candidate.sum(0)
    mean = (overlaps * candidate).sum(0) / number
    variance = ((overlaps - mean).square() * candidate).sum(0) / (number - 1)
    return mean + variance.sqrt()


def selected(boxes: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """(Q,) number of the object that an anchor is a sample of, -1 for background."""
    every = torch.cat(list(anchors))
    if not len(boxes):
        return torch.full((len(every),), -1, dtype=torch.int64, device=every.device)
    at = centres(every)[:, None]
    inside = torch.cat([at - boxes[:, :2], boxes[:, 2:] - at], 2).amin(2) > INSIDE
    return best_of(box_iou(every, boxes), candidates(centres(boxes), anchors), inside)


def best_of(overlaps: Tensor, candidate: Tensor, inside: Tensor) -> Tensor:
    """(Q,) of an anchor the object that it overlaps most, of those it is a sample of; -1 for background.

    Args:
        overlaps, candidate, inside: (Q, M); whether an anchor's centre lies in the object.
    """
    own = candidate & inside & (overlaps >= thresholds(overlaps, candidate))
    best, number = overlaps.where(own, -1).max(1)
    return torch.where(best < 0, -1, number)
