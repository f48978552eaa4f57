"""Detectors of two stages: torchvision's own model with the same weights says the same, and draws are their own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torchvision.models.detection import FasterRCNN

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.contract import Batch, NotApplicable, Objects
from kdbench.engine.applicability import offers_of
from kdbench.engine.task import evaluating
from kdbench.kinds.detection import Rules, detected
from kdbench.models.two_stage import Sampler, TwoStageDetector, seed_of

SIZE = (96, 128)
PICTURES = [[[0, 10, 10, 60, 60], [1, 5, 6, 30, 35], [2, 60, 30, 126, 90]], [], [[1, 2.5, 3.5, 50, 20]]]
NAME = "faster_rcnn_c16s4-32a4p60r32f32:cell_w4d1"
BACKGROUND = 3


def batch(pictures: list[Any] = PICTURES, **more: Any) -> Batch:
    y = Objects.of(pictures, SIZE)
    y = Objects(y.boxes, y.labels, y.counts, y.sizes, **more)
    rng = torch.Generator().manual_seed(len(pictures))
    return Batch({"image": torch.randn(len(pictures), 3, *SIZE, generator=rng)}, y, torch.arange(len(pictures)))


def detector(name: str = NAME) -> TwoStageDetector:
    torch.manual_seed(0)
    made = models.build(name, (3, *SIZE), BACKGROUND)
    assert isinstance(made, TwoStageDetector)
    return made


class Levels(torch.nn.Module):
    """What torchvision calls a backbone."""

    def __init__(self, net: TwoStageDetector) -> None:
        super().__init__()
        self.body, self.neck, self.reads, self.out_channels = net.body, net.neck, net._reads, 16

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body(x).maps
        return {str(i): level for i, level in enumerate(self.neck([maps[stage] for stage in self.reads]))}


def torchvisions(net: TwoStageDetector) -> Any:
    """torchvision's model of a copy of a detector's parts."""
    own = copy.deepcopy(net)
    made: Any = FasterRCNN(
        Levels(own), min_size=SIZE[0], max_size=SIZE[1], image_mean=[0.0] * 3, image_std=[1.0] * 3,
        rpn_anchor_generator=own.head.rpn.anchor_generator, box_roi_pool=own.head.roi.box_roi_pool,
        box_head=own.head.roi.box_head, box_predictor=own.head.roi.box_predictor, box_detections_per_img=30,
        num_classes=None,
    )  # fmt: skip
    made.rpn, made.roi_heads.fg_bg_sampler = own.head.rpn, own.head.roi.fg_bg_sampler
    return made.train(net.training)


def canonical(y: Objects) -> list[dict[str, torch.Tensor]]:
    """As torchvision takes objects; in the order in which the detector does."""
    found = []
    for one in y.listed():
        keys = [(*box, label) for box, label in zip(one["boxes"].tolist(), one["labels"].tolist(), strict=True)]
        order = sorted(range(len(keys)), key=lambda place, keys=keys: keys[place][3::-1])
        found.append({"boxes": one["boxes"][order].reshape(-1, 4), "labels": one["labels"][order] + 1})
    return found


def test_losses_are_those_of_torchvisions_own_model():
    net, given = detector(), batch()
    made = torchvisions(net)
    made.rpn.fg_bg_sampler.seed = made.roi_heads.fg_bg_sampler.seed = seed_of(given.x["image"])
    theirs = made(list(given.x["image"]), canonical(given.y))
    ours = net(given).dense.losses
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key])


def masked() -> Batch:
    """The same pictures; each object's mask is its box but for a corner."""
    given, y = batch(), batch().y
    planes = torch.zeros(3, 4, *SIZE, dtype=torch.int16)
    for number, (image, within) in enumerate(zip(y.image.tolist(), y.within.tolist(), strict=True)):
        left, top, right, bottom = (int(side) for side in y.boxes[number].tolist())
        planes[image, within, top:bottom, left:right] = within + 1
        planes[image, within, top : top + 5, left : left + 5] = 0
    return Batch(given.x, Objects(y.boxes, y.labels, y.counts, y.sizes, masks=planes), given.index)


MASKED = NAME.replace("faster", "mask").replace("f32:", "f32m2:")


def torchvisions_masked(net: TwoStageDetector) -> Any:
    own = copy.deepcopy(net)
    made = torchvisions(net)
    made.roi_heads.mask_roi_pool = own.head.mask_pool
    made.roi_heads.mask_head, made.roi_heads.mask_predictor = own.head.masks[0], own.head.masks[1]
    return made.train(net.training)


def test_losses_of_masks_are_those_of_torchvisions_own_model():
    net, given = detector(MASKED), masked()
    made = torchvisions_masked(net)
    made.rpn.fg_bg_sampler.seed = made.roi_heads.fg_bg_sampler.seed = seed_of(given.x["image"])
    shapes = given.y.listed(masks=True)
    targets = canonical(given.y)
    for target, one in zip(targets, shapes, strict=True):
        order = [one["boxes"].tolist().index(box) for box in target["boxes"].tolist()]
        target["masks"] = one["masks"][order]
    theirs = made(list(given.x["image"]), targets)
    ours = net(given).dense.losses
    assert ours.keys() == theirs.keys() >= {"loss_mask"}
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key])
    torch.stack(list(ours.values())).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    empty = Objects.of([[], []], SIZE)
    none = Objects(empty.boxes, empty.labels, empty.counts, empty.sizes, masks=torch.zeros(2, 1, *SIZE).short())
    assert net(Batch(batch([[], []]).x, none, torch.arange(2))).dense.losses["loss_mask"] == 0


def test_masks_of_detections_are_those_of_torchvisions_own_model():
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    net, given = detector(MASKED), masked()
    torch.nn.init.normal_(net.head.roi.box_predictor.cls_score.weight, std=0.3)
    net.eval()
    with torch.no_grad():
        theirs = torchvisions_masked(net)(list(given.x["image"]))
        dense = net(given).dense
        boxes, _, labels = detected(dense, given.y.sizes, Rules(detections=30))
        masks = dense.masks(boxes, labels)
    for own, places, wanted in zip(masks, boxes, theirs, strict=True):
        torch.testing.assert_close(paste_masks_in_image(own[:, None], places, SIZE), wanted["masks"])


def test_detections_are_those_of_torchvisions_own_model():
    net, given = detector(), batch()
    torch.nn.init.normal_(net.head.roi.box_predictor.cls_score.weight, std=0.3)
    torch.nn.init.normal_(net.head.roi.box_predictor.bbox_pred.weight, std=0.3)
    net.eval()
    with torch.no_grad():
        theirs = torchvisions(net)(list(given.x["image"]))
        boxes, scores, labels = detected(net(given).dense, given.y.sizes, Rules(detections=30))
    for ours, wanted in zip(zip(boxes, scores, labels, strict=True), theirs, strict=True):
        assert len(ours[0]) > 5
        torch.testing.assert_close(ours[0], wanted["boxes"])
        torch.testing.assert_close(ours[1], wanted["scores"])
        assert torch.equal(ours[2] + 1, wanted["labels"])


def test_what_is_returned_counts_classes_from_0_and_background_last():
    dense = detector()(batch()).dense
    rows = sum(len(one) for one in dense.proposals)
    assert dense.roi.shape == (rows, BACKGROUND + 1)
    assert dense.roi_box.shape == (rows, BACKGROUND, 4)
    labels = dense.roi_labels.split([len(one) for one in dense.proposals])
    assert (labels[1] == BACKGROUND).all()
    for picture, own in ((0, {0, 1, 2}), (2, {1})):
        assert set(labels[picture].tolist()) == own | {BACKGROUND}
    found = torch.nonzero(labels[2] == 1).squeeze(1)  # the object itself is a proposal
    assert (dense.proposals[2][found] == torch.tensor([2.5, 3.5, 50, 20])).all(1).any()
    assert not any(one.requires_grad for one in dense.proposals)


def test_order_of_a_pictures_objects_changes_no_loss():
    turned = Objects.of([p[::-1] for p in PICTURES], SIZE)
    given = batch()
    one = detector()(given).dense.losses
    other = detector()(Batch(given.x, turned, given.index)).dense.losses
    for key in one:
        torch.testing.assert_close(one[key], other[key], atol=1e-6, rtol=0)


def test_a_batch_of_empty_pictures_has_losses_with_gradients_and_crowds_are_no_objects():
    net = detector()
    out = net(batch([[], []])).dense
    torch.stack(list(out.losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert (out.roi_labels == BACKGROUND).all()
    crowd = batch([[[0, 10, 10, 60, 60]], []], ignore=torch.tensor([True]))
    assert (net(crowd).dense.roi_labels == BACKGROUND).all()


def test_a_teacher_computes_what_is_asked_for_alone():
    net, given = detector().eval(), batch()
    calls: list[str] = []
    for part, module in (("neck", net.neck), ("first", net.head.rpn.head), ("second", net.head.roi.box_head)):
        module.register_forward_hook(lambda *_, part=part: calls.append(part))
    for words, parts in (({"fpn"}, ["neck"]), ({"proposals"}, ["neck", "first"]),
                         ({"roi"}, ["neck", "first", "second"])):  # fmt: skip
        calls.clear()
        net.sparing, net.asked = True, frozenset(words)
        net(given)
        assert calls == parts
    assert "losses" not in net(given).words


def test_a_teachers_head_reads_the_students_proposals():
    net, teacher, given = detector(), detector(NAME.replace("w4", "w8")).eval(), batch()
    teacher.sparing, teacher.asked = True, frozenset({"fpn", "roi_head"})
    proposals, target = net(given).dense.proposals, teacher(given).dense
    assert not target.has("roi")
    logits = teacher.roi_head(target.fpn, proposals)
    assert logits.shape == (sum(map(len, proposals)), BACKGROUND + 1)
    whole = detector().eval()
    dense = whole(given).dense
    torch.testing.assert_close(whole.roi_head(dense.fpn, dense.proposals), dense.roi)
    with evaluating(whole):
        assert {"proposals", "roi", "roi_box", "roi_head"} <= offers_of(whole, whole(given))
    one_stage = models.build("fcos_c32s8-32h1:cell_w4d1", (3, *SIZE), 3)
    with pytest.raises(NotApplicable, match="no second stage that looks at proposals"):
        one_stage.roi_head(dense.fpn, dense.proposals)


def test_draws_follow_from_the_pixels_and_from_nothing_else():
    net, given = detector(), batch()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = (net(given).dense for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.proposals, again.proposals, strict=True))
    assert {name: x.item() for name, x in first.losses.items()} == {name: x.item() for name, x in again.losses.items()}
    other = Batch({"image": given.x["image"] + 1e-4}, given.y, given.index)
    moved = net(other).dense
    far = [len(a) != len(b) or (a - b).abs().max() > 1 for a, b in zip(first.proposals, moved.proposals, strict=True)]
    assert any(far)


def test_a_quarter_of_the_drawn_are_positives_at_most():
    sampler = Sampler(8, 0.25)
    labels = [torch.tensor([1] * 5 + [0] * 20 + [-1] * 3), torch.tensor([0, 2, -1]), torch.tensor([-1])]
    positive, negative = sampler(labels)
    assert [int(one.sum()) for one in positive] == [2, 1, 0]
    assert [int(one.sum()) for one in negative] == [6, 1, 0]
    assert all((own[mask] >= 1).all() for own, mask in zip(labels, positive, strict=True))
    assert all((own[mask] == 0).all() for own, mask in zip(labels, negative, strict=True))


def test_neck_and_head_start_as_another_networks():
    net, other = detector(), models.build(NAME.replace("w4", "w8"), (3, *SIZE), 3)
    net.init_from(other, ["neck", "head"])
    assert torch.equal(net.head.roi.box_head.fc6.weight, other.head.roi.box_head.fc6.weight)
    wide = models.build(NAME.replace("f32", "f64"), (3, *SIZE), 3)
    with pytest.raises(NotApplicable, match="its head cannot start from the teacher's: size mismatch"):
        net.init_from(wide, ["head"])


def test_names_say_what_differs_and_the_last_level_is_picked():
    given = models.recipe("faster_rcnn_cell_w8d1")
    assert given.settings == {"net": "cell_w8d1"}
    assert models.family(NAME) == "faster_rcnn_<pyramid>:<net>"
    assert models.recipe(NAME).settings["rows"] == 32
    assert models.recipe("mask_rcnn_cell_w8d1").settings == {"net": "cell_w8d1", "blocks": 4}
    assert models.recipe(MASKED).settings["blocks"] == 2
    assert models.work(NAME, (3, *SIZE)) > models.work("cell_w4d1", (3, *SIZE)) > 0  # type: ignore[operator]
    fpn = detector(NAME.replace("s4-32", "s4-64"))(batch()).dense.fpn
    assert torch.equal(fpn[-1], fpn[-2][..., ::2, ::2])
    for name, line in (("r2:", "draws 4 rows of a picture or more"), ("s1-4:", "stride 2 or more")):
        with pytest.raises(UserError, match=line):
            models.build(f"faster_rcnn_{name}resnet8", (3, *SIZE), 3)
