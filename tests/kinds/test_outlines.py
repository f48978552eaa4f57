"""Outlines that are drawn on test pictures: of masks, of regions of classes, and from networks to a run's examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from kdbench import kinds, models
from kdbench.contract import Batch, Maps, Objects, Out
from kdbench.contract.maps import IGNORED
from kdbench.kinds.base import Scaling
from kdbench.kinds.outlines import MOST, TOLERANCE, longest, outlines

SIZE = (40, 60)


def blobs(seed: int) -> np.ndarray:
    """Discs, of which one may cut a hole into another."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    mask = np.zeros(SIZE, bool)
    for put in (True, True, True, False):
        cy, cx, r = rng.integers(0, SIZE[0]), rng.integers(0, SIZE[1]), rng.integers(3, 12)
        mask[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = put
    return mask


def filled(found: Any) -> np.ndarray:
    """What outlines hold, by the rule of odd crossings."""
    held = np.zeros(SIZE, bool)
    for points in found:
        canvas = Image.new("1", (8 * SIZE[1], 8 * SIZE[0]))
        corners = [(x * 8 * SIZE[1], y * 8 * SIZE[0]) for x, y in points]
        ImageDraw.Draw(canvas).polygon(corners, fill=1)
        held ^= np.asarray(canvas)[4::8, 4::8]
    return held


@pytest.mark.parametrize("seed", range(6))
def test_outlines_hold_the_mask_but_for_its_border_with_far_fewer_corners(seed: int) -> None:
    mask = blobs(seed)
    found = outlines(mask)
    wrong = filled(found) != mask
    edge = np.zeros(SIZE, bool)
    for axis in (0, 1):
        step = np.diff(mask.astype(int), axis=axis) != 0
        edge |= np.insert(step, 0, False, axis) | np.append(step, np.zeros_like(step.take([0], axis)), axis)
    assert not (wrong & ~edge).any()
    assert wrong.sum() < 0.25 * edge.sum()
    assert sum(map(len, found)) < 0.4 * edge.sum()
    assert TOLERANCE < 1


def test_rectangles_have_four_corners_and_holes_have_their_own() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:8, 1:9] = True
    assert [sorted(one) for one in outlines(mask)] == [[(0.1, 0.2), (0.1, 0.8), (0.9, 0.2), (0.9, 0.8)]]
    mask[4:6, 4:6] = False
    assert sorted(map(len, outlines(mask))) == [4, 4]
    assert outlines(np.zeros((4, 4), bool)) == []
    assert [len(one) for one in outlines(np.ones((1, 1), bool))] == [4]


def test_of_many_the_longest_are_kept_in_their_order() -> None:
    small, large = (((0, 0), (1e-3, 0), (0, 1e-3)), ((0, 0), (1, 0), (0, 1)))
    many: Any = [(n, large if n % 2 else small) for n in range(2 * MOST)]
    assert longest(many) == [one for one in many if one[0] % 2]


def test_regions_of_all_classes_but_the_commonest_are_drawn_and_ignored_pixels_are_not() -> None:
    kind = kinds.kind("segmentation")
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[0, 1:4, 1:5], labels[0, 5:7, 5:8], labels[0, 7] = 1, 2, IGNORED
    said = torch.nn.functional.one_hot(labels.long().clamp(max=2), 3).permute(0, 3, 1, 2).float()
    said[0, :, 1:4, 4] = torch.tensor([1.0, 0.0, 0.0])[:, None]
    batch = Batch({}, Maps(labels), torch.arange(1))
    seen = kind.looked(Out(said), batch, Scaling())
    ((there, found),) = kind.marked(seen, batch.y)
    assert [mark.label for mark in there] == [mark.label for mark in found] == [1, 2]
    assert set(there[0].points) == {(x / 8, y / 8) for x in (1, 5) for y in (1, 4)}
    assert set(found[0].points) == {(x / 8, y / 8) for x in (1, 4) for y in (1, 4)}
    assert there[1].points == found[1].points
    assert found[0].score is None


def test_masks_are_drawn_and_of_detections_the_sure_ones() -> None:
    kind = kinds.kind("instance_segmentation")
    y = Objects.of([[[1, 10, 10, 30, 30], [0, 40, 5, 50, 20]], []], SIZE)
    masks = torch.zeros(2, 1, *SIZE, dtype=torch.int16)
    masks[0, 0, 10:30, 10:30], masks[0, 0, 5:20, 40:50] = 1, 2
    y = replace(y, masks=masks)
    torch.manual_seed(0)
    net: Any = models.build("mask_rcnn_c8s4-16a4p20r16f16m1:cell_w4d1", (3, *SIZE), 2).eval()
    batch = Batch({"image": torch.randn(2, 3, *SIZE)}, y, torch.arange(2))
    with torch.no_grad():
        seen = kind.looked(net(batch), batch, Scaling())
    assert len(seen.masks) == len(seen.scores) > 0
    shown = kind.marked(replace(seen, scores=torch.full_like(seen.scores, 0.9)), y)
    none = kind.marked(replace(seen, scores=torch.full_like(seen.scores, 0.1)), y)
    (there, found), (nothing, _) = shown
    assert [(mark.label, len(mark.points), mark.score) for mark in there] == [(1, 4, None), (0, 4, None)]
    assert nothing == []
    assert all(mark.score == pytest.approx(0.9) for mark in found)
    assert sum(len(pair[1]) for pair in shown) > 0
    assert all(pair[1] == [] for pair in none)
