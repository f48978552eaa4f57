"""Targets of pictures whose objects' boxes are turned."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdbench.contract.objects import Objects

TURNED = 1.2
"""Longer side by shorter one from which on a box has an angle; below it counts neither in losses nor in scores."""
BLOCK = 2**22
"""Pairs of boxes whose overlaps are computed at a time."""


def half_turn(degrees: Tensor) -> Tensor:
    """Angles of lines within [-90, 90)."""
    return (degrees + 90) % 180 - 90


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """(A, B) IoU of (A, 5) and (B, 5) turned boxes, a constant: torchvision's has no gradient."""
    from torchvision.ops import box_iou

    if not len(one) or not len(other):
        return one.new_zeros(len(one), len(other))
    one, other = one.detach(), other.detach()
    step = max(1, BLOCK // len(other))
    return torch.cat([box_iou(some, other, fmt="cxcywhr") for some in one.split(step)]).to(one)


def long(boxes: Tensor) -> Tensor:
    """(P,) bool, whether (P, 5) boxes have an angle."""
    return boxes[:, 2] >= TURNED * boxes[:, 3]


@dataclass(frozen=True, eq=False)
class OrientedObjects(Objects):
    """Objects whose ``boxes`` are (M, 5) centre x, centre y, width, height and degrees counter-clockwise as seen.

    The width is the longer side, and the angle, the width's, lies within [-90, 90): torchvision's ``cxcywhr``.
    """

    WIDTH = 5

    @property
    def sides(self) -> Tensor:
        return self.boxes[:, 2:4]

    def mirrored(self, which: Tensor, axis: int, side: int) -> OrientedObjects:
        boxes = self.boxes.clone()
        place = 1 - axis
        boxes[:, place], boxes[:, 4] = side - self.boxes[:, place], half_turn(-self.boxes[:, 4])
        return replace(self, boxes=torch.where(which[self.image][:, None], boxes, self.boxes))

    def transposed(self, which: Tensor) -> OrientedObjects:
        turned: Objects = super().transposed(which)
        boxes = self.boxes[:, [1, 0, 2, 3, 4]].clone()
        boxes[:, 4] = half_turn(90 - self.boxes[:, 4])
        kept = torch.where(which[self.image][:, None], boxes, self.boxes)
        return replace(self, boxes=kept, sizes=turned.sizes, origin=turned.origin)

    def _cut(self, corners: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes are not cut; an object is seen where its centre is."""
        shift = torch.cat([corners.flip(-1).to(self.boxes), self.boxes.new_zeros(*corners.shape[:-1], 3)], -1)
        boxes = self.boxes - shift
        at = boxes[..., :2]
        return boxes, ((at >= 0) & (at < self.boxes.new_tensor([size[1], size[0]]))).all(-1)
