"""Detectors that see a picture smaller than the one that targets are places in: what they say is in its pixels."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from kdbench import kinds, models
from kdbench.contract import Batch, Objects, OrientedObjects
from kdbench.kinds.base import Scaling

SIZE, BY = (64, 96), 2
NETS = {
    "fcos_c8s4-16h1:cell_w4d1": "detection",
    "retinanet_c8s4-16h1:cell_w4d1": "detection",
    "gfl_c8s4-16h1:cell_w4d1": "detection",
    "faster_rcnn_c8s4-16a4p20r16f16:cell_w4d1": "detection",
    "mask_rcnn_c8s4-16a4p20r16f16m1:cell_w4d1": "instance_segmentation",
    "obb_c8s4-16h1:cell_w4d1": "oriented",
}


def targets(kind: str) -> Objects:
    """Objects on even pixels, so that half of them are whole."""
    if kind == "oriented":
        return OrientedObjects.of([[[0, 24, 32, 24, 16, 30.0]], [], [[1, 60, 30, 40, 24, -50.0]]], SIZE)
    y = Objects.of([[[0, 8, 10, 40, 40]], [], [[1, 32, 20, 80, 52], [0, 4, 4, 24, 30]]], SIZE)
    if kind == "detection":
        return y
    masks = torch.zeros(3, 1, *SIZE, dtype=torch.int16)
    for row, number, (x0, y0, x1, y1) in zip(
        y.image.tolist(), (y.within + 1).tolist(), y.boxes.int().tolist(), strict=True
    ):
        masks[row, 0, y0:y1, x0:x1] = number
    return replace(y, masks=masks)


def halved(y: Objects) -> Objects:
    """The same in pixels of the reduced picture."""
    boxes = y.boxes / BY
    if y.boxes.shape[1] == OrientedObjects.WIDTH:
        boxes[:, 4] = y.boxes[:, 4]
    masks = None if y.masks is None else y.masks[..., ::BY, ::BY]
    return replace(y, boxes=boxes, sizes=y.sizes / BY, masks=masks)


def scaled(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes[:, :4] * BY, boxes[:, 4:]], 1)


@pytest.mark.parametrize("name", NETS)
def test_places_are_in_pixels_of_the_targets_picture(name: str) -> None:
    """As if everything were told in pixels of the input, and brought to the picture's."""
    kind = kinds.kind(NETS[name]).ruled({"threshold": 0.0, "detections": 20})
    y = targets(kind.name)
    torch.manual_seed(3)
    net: Any = models.build(name, (3, SIZE[0] // BY, SIZE[1] // BY), 2)
    x = {"image": torch.randn(3, 3, SIZE[0] // BY, SIZE[1] // BY)}
    told: dict[int, Any] = {}
    for by, own in ((1, halved(y)), (BY, y)):
        net.reduced = by
        batch = Batch(x, own, torch.arange(3))
        dense = copy.deepcopy(net).train()(batch).dense
        with torch.no_grad():
            answer = kind.answer(copy.deepcopy(net).eval()(batch), batch, Scaling())
        told[by] = dense, answer
    (small, few), (large, many) = told[1], told[BY]
    assert large.strides == tuple(BY * stride for stride in small.strides) == (8, 16, 32)
    for term in small.losses:
        rtol = 0.1 if term == "loss_mask" else 1e-4  # masks of the whole picture are finer than their halves
        torch.testing.assert_close(large.losses[term], small.losses[term], rtol=rtol, atol=1e-5)
    for field in ("anchors", "proposals"):
        if small.has(field):
            for one, other in zip(getattr(small, field), getattr(large, field), strict=True):
                torch.testing.assert_close(other, one * BY, rtol=1e-4, atol=1e-3)
    assert len(few.boxes) == len(many.boxes) > 0
    torch.testing.assert_close(many.boxes, scaled(few.boxes), rtol=1e-3, atol=1e-2)


def test_a_teachers_second_stage_reads_its_own_pixels() -> None:
    torch.manual_seed(3)
    net: Any = models.build("faster_rcnn_c8s4-16a4p20r16f16:cell_w4d1", (3, 32, 48), 2).eval()
    fpn = net(Batch({"image": torch.randn(1, 3, 32, 48)}, None, torch.arange(1))).dense.fpn
    boxes = torch.tensor([[4.0, 6.0, 20.0, 22.0]])
    own = net.roi_head(fpn, [boxes])
    net.reduced = BY
    torch.testing.assert_close(net.roi_head(fpn, [boxes * BY]), own)
