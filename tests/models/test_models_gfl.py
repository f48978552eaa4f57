"""Heads of edge distributions: what is decoded, what is assigned, and what the losses ask for."""

from __future__ import annotations

import pytest
import torch

from kdbench import models
from kdbench.contract import Batch, Objects
from kdbench.models.atss import selected, thresholds
from kdbench.models.detector import Detector
from kdbench.models.gfl import MOST, distances, distribution_focal, edges, quality_focal

SIZE = (64, 96)
NET = "gfl_c32s8-32h1:cell_w4d1"


def detector() -> Detector:
    torch.manual_seed(0)
    made = models.build(NET, (3, *SIZE), 3)
    assert isinstance(made, Detector)
    return made


def batch(pictures: list[list[list[float]]]) -> Batch:
    x = torch.randn(len(pictures), 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return Batch({"image": x}, Objects.of(pictures, SIZE), torch.arange(len(pictures)))


def peaked(places: torch.Tensor) -> torch.Tensor:
    """Logits of distributions at whole places."""
    return 50 * torch.nn.functional.one_hot(places, MOST + 1).float().flatten(-2)


def test_a_distribution_at_a_place_is_that_many_strides_from_the_centre():
    box = peaked(torch.tensor([1, 2, 3, 16]))
    assert distances(box).tolist() == pytest.approx([1, 2, 3, 16])
    anchors = torch.tensor([4.0, 4.0, 68.0, 68.0])  # of stride 8, about (36, 36)
    assert edges(box, anchors).tolist() == pytest.approx([28, 20, 60, 164])


def test_the_distribution_between_two_bins_has_no_gradient():
    target = torch.tensor([[2.25]])
    logits = torch.full((1, 1, 5), -40.0)
    logits[..., 2], logits[..., 3] = torch.log(torch.tensor([0.75, 0.25]))
    logits.requires_grad_()
    distribution_focal(logits, target).sum().backward()
    assert logits.grad.abs().max() < 1e-6
    scores = torch.tensor([[0.4, -1.0]], requires_grad=True)
    quality_focal(scores, scores.detach().sigmoid()).backward()
    assert scores.grad.abs().max() < 1e-6


def test_an_object_has_the_anchors_whose_overlap_is_far_above_its_candidates():
    overlap = torch.tensor([[0.1], [0.2], [0.6], [0.0]])
    limit = thresholds(overlap, torch.tensor([[True], [True], [True], [False]]))
    assert limit.item() == pytest.approx(0.3 + torch.tensor([0.1, 0.2, 0.6]).std().item())
    maps = [torch.zeros(1, 1, SIZE[0] // stride, SIZE[1] // stride) for stride in (8, 16, 32)]
    anchors = detector()._anchors_of(torch.zeros(1, 3, *SIZE), maps)
    assert anchors[0][0].tolist() == [-28, -28, 36, 36]
    boxes = torch.tensor([[20.0, 10.0, 80.0, 60.0]])
    chosen = selected(boxes, anchors)
    own = torch.cat(anchors)[chosen >= 0]
    at = (own[:, :2] + own[:, 2:]) / 2
    assert len(at) > 0
    assert ((at > boxes[0, :2]) & (at < boxes[0, 2:])).all()
    assert (selected(boxes[:0], anchors) == -1).all()


def test_losses_do_not_depend_on_the_order_of_objects_and_empty_pictures_train():
    net, objects = detector(), [[0, 5, 6, 50, 40], [2, 40, 10, 90, 60]]
    one, other = (net(batch([order, []])).dense.losses for order in (objects, objects[::-1]))
    assert one.keys() == {"classification", "bbox_regression", "bbox_distribution"}
    for name, value in one.items():
        assert value.item() == pytest.approx(other[name].item(), rel=1e-5), name
        assert value > 0
    empty = net(batch([[], []])).dense.losses
    torch.stack(list(empty.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert empty["bbox_regression"] == empty["bbox_distribution"] == 0


def test_a_head_that_says_the_truth_has_no_loss_of_boxes():
    net, y = detector(), batch([[[0, 12, 12, 52, 44]]])
    net.asked = frozenset({"assigned"})
    dense = net(y).dense
    levels = []
    for anchors, stride, found in zip(dense.anchors, dense.strides, dense.assigned, strict=True):
        at = (anchors[:, :2] + anchors[:, 2:]) / 2
        out = torch.cat([at - torch.tensor([12.0, 12]), torch.tensor([52.0, 44]) - at], 1) / stride
        low = out.clamp(0, MOST - 1).floor()
        share = (out - low).clamp(0, 1)[..., None]
        low = low.long()[..., None]
        said = torch.full((len(at), 4, MOST + 1), -40.0).scatter(-1, low, (1 - share).clamp_min(1e-9).log())
        levels.append(said.scatter(-1, low + 1, share.clamp_min(1e-9).log()).flatten(1)[None])
        assert found.shape == (1, len(at))
    outputs = {"cls_logits": torch.cat(dense.cls, 1), "bbox_regression": torch.cat(levels, 1)}
    every = [torch.cat(list(dense.anchors))]
    terms = net.head.compute_loss(y.y.listed(), outputs, every, [torch.cat(list(dense.assigned), 1)[0]])
    assert terms["bbox_regression"].item() == pytest.approx(0, abs=1e-4)
