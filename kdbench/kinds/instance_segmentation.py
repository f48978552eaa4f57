"""Instance segmentation: objects with masks; networks give detections with masks, scored by COCO's AP of masks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.kinds.base import Mark, Tiny
from kdbench.kinds.detection import SURE, Detection, inked, metric, runs, runs_of

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Dense, Objects, Rows

INSIDE = 0.5
"""Probability from which a pixel of a detection's box belongs to its mask."""


def _cut_out(pixels: Tensor, digits: Tensor) -> Objects:
    """Digits as objects whose masks are their ink."""
    import torch

    return replace(inked(pixels, digits), masks=(pixels > 0).to(torch.int16))


class InstanceSegmentation(Detection):
    """Detection of objects that have masks, by networks that tell masks beside boxes.

    Methods of detection run here as they are. Masks are compared in pixels of the network's input.
    """

    name = "instance_segmentation"
    about = "masks, boxes and classes of the objects of a picture"
    also = frozenset({"detection"})
    metrics: ClassVar = {
        "mask_ap": metric("mask_ap", "COCO's average precision of masks, overlaps .5 to .95", "mask AP"),
        "mask_ap50": metric("mask_ap50", "average precision of masks at overlap .5", "mask AP50", ranks=True),
        **Detection.metrics,
    }
    tiny = Tiny("mask_ap", _cut_out, wraps="mask_rcnn_c8s2-4a4p20r16f16m1:", fit_steps=20)
    lacks = Detection.lacks | {"cls", "box", "quality", "anchors", "assigned", "head"}

    @property
    def tinies(self) -> Sequence[Tiny]:
        return (self.tiny,)

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        from kdbench.contract import Objects

        return None if isinstance(train.y, Objects) and train.y.masks is not None else "targets without masks"

    def masks_of(
        self, dense: Dense, boxes: list[Tensor], labels: list[Tensor], batch: Batch
    ) -> tuple[Mapping[str, Any], ...]:
        """Run lengths of the detections' masks.

        Raises:
            UserError: the network tells none.
        """
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        from kdbench.base.errors import UserError

        if dense.masks is None:
            raise UserError(
                "an instance_segmentation task needs nets that tell masks; choose mask_rcnn_<pyramid>:<net>"
            )
        size = tuple(batch.y.masks.shape[-2:])
        found: list[Mapping[str, Any]] = []
        for own, places in zip(dense.masks(boxes, labels), boxes, strict=True):
            found += runs(paste_masks_in_image(own[:, None], places, size)[:, 0] >= INSIDE)
        return tuple(found)

    def blank(self, came: Tensor, content: Tensor, size: tuple[int, int]) -> Any:
        import torch

        return replace(super().blank(came, content, size), masks=torch.zeros(len(came), 1, *size, dtype=torch.int16))

    def marked(self, seen: Any, y: Any) -> list[tuple[list[Mark], list[Mark]]]:
        """Outlines of masks, and of those detections of :data:`SURE` and more."""
        there = _drawn(runs_of(y), y.labels, None, y.counts, y.sizes)
        found = _drawn(seen.masks, seen.labels, seen.scores, seen.counts, y.sizes)
        return list(zip(there, found, strict=True))


def _drawn(
    masks: Sequence[Mapping[str, Any]], labels: Tensor, scores: Tensor | None, counts: Tensor, sizes: Tensor
) -> list[list[Mark]]:
    """Outlines of run lengths, a list a picture; of an object in parts, or with holes, several.

    Args:
        sizes: (N, 2) height and width of the pictures, padding left out.
    """
    from faster_coco_eval.core import mask as coco

    from kdbench.kinds.outlines import longest, outlines

    known = [None] * len(masks) if scores is None else scores.tolist()
    rows = iter(zip(masks, labels.tolist(), known, strict=True))
    made = []
    for count, (height, width) in zip(counts.tolist(), sizes.int().tolist(), strict=True):
        own = [row for row in itertools.islice(rows, count) if row[2] is None or row[2] >= SURE]
        lines = [
            (n, points)
            for n, (mask, _, _) in enumerate(own)
            for points in outlines(coco.decode(mask).astype(bool)[:height, :width])
        ]
        made.append([Mark(own[n][1], points, own[n][2]) for n, points in longest(lines)])
    return made


KIND = InstanceSegmentation()
