"""Detection: AP equals pycocotools', detections equal torchvision's, and a run from rows to a record."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FCOS

from kdbench import kinds, models
from kdbench.contract import Batch, Objects, Rows
from kdbench.kinds.base import Evidence
from kdbench.kinds.detection import Detection, Detections, Rules, detected
from kdbench.specs.task import TaskSpec

KIND = kinds.kind("detection")
SIZE = (120, 160)
NAMES = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar"]


def drawn(n: int, rng: np.random.Generator, per: int) -> list[list[list[float]]]:
    """Boxes on whole pixels, so that overlaps and areas repeat."""
    pictures = []
    for _ in range(n):
        found: list[list[float]] = []
        for _ in range(int(rng.integers(0, per))):
            x, y = rng.integers(0, 110, 2).tolist()
            w, h = rng.integers(6, 50, 2).tolist()
            found.append([int(rng.integers(3)), x, y, min(x + w, SIZE[1]), min(y + h, SIZE[0])])
        pictures.append(found)
    return pictures


def some(seed: int) -> tuple[Objects, Detections]:
    """Objects, some of them crowds, and detections near them whose scores are often equal."""
    rng = np.random.default_rng(seed)
    pictures = drawn(12, rng, 9)
    truth = Objects.of(pictures, SIZE)
    crowd = torch.from_numpy(rng.random(len(truth.labels)) < 0.15)
    truth = replace(truth, ignore=crowd)
    found = []
    for picture, others in zip(pictures, drawn(12, rng, 12), strict=True):
        near = [[c, *(v + int(rng.integers(-3, 4)) for v in box)] for c, *box in picture]
        scores = np.sort(rng.integers(1, 8, len(near) + len(others)) / 8)[::-1]
        chosen = [near, others][int(rng.integers(2))] + [others, near][int(rng.integers(2))]
        found.append([[float(s), *d] for s, d in zip(scores, chosen, strict=False)])
    return truth, of_lists(found)


def of_lists(found: list[Any], rules: Rules | None = None) -> Detections:
    flat = torch.tensor([d for picture in found for d in picture], dtype=torch.float32).reshape(-1, 6)
    counts = torch.tensor([len(picture) for picture in found])
    return Detections(flat[:, 2:], flat[:, 0], flat[:, 1].long(), counts, 3, rules or Rules(areas=(300.0, 900.0)))


def by_pycocotools(truth: Objects, found: Detections) -> dict[str, float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    known = COCO()
    assert truth.ignore is not None
    annotations = []
    for number, (label, box, image, crowd) in enumerate(
        zip(truth.labels.tolist(), truth.boxes.tolist(), truth.image.tolist(), truth.ignore.tolist(), strict=True), 1
    ):
        w, h = xywh(box)[2:]
        annotations.append({"id": number, "image_id": image, "category_id": label, "bbox": xywh(box), "area": w * h,
                            "iscrowd": int(crowd)})  # fmt: skip
    known.dataset = {
        "info": {}, "images": [{"id": i} for i in range(len(truth))], "annotations": annotations,
        "categories": [{"id": c} for c in range(3)],
    }  # fmt: skip
    image = torch.arange(len(found.counts)).repeat_interleave(found.counts).tolist()
    results = [
        {"image_id": i, "category_id": c, "bbox": xywh(b), "score": s}
        for i, c, b, s in zip(
            image, found.labels.tolist(), found.boxes.tolist(), found.scores.double().tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        own = COCOeval(known, known.loadRes(results), "bbox")
        low, high = found.rules.areas
        own.params.areaRng = [[0, 1e10], [0, low], [low, high], [high, 1e10]]
        own.params.maxDets = [found.rules.detections]
        own.evaluate()
        own.accumulate()
    precision, recall = own.eval["precision"], own.eval["recall"]
    parts = {
        "ap": precision[:, :, :, 0], "ap50": precision[0, :, :, 0], "ap75": precision[5, :, :, 0],
        "ap_small": precision[:, :, :, 1], "ap_medium": precision[:, :, :, 2], "ap_large": precision[:, :, :, 3],
        "ar": recall[:, :, 0],
    }  # fmt: skip
    return {name: 100 * float(part[part > -1].mean()) for name, part in parts.items()}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [100, 4])
def test_ap_is_pycocotools_with_ties_crowds_and_three_classes(seed, most):
    truth, found = some(seed)
    found = replace(found, rules=replace(found.rules, detections=most), _known=[])
    ours = KIND.score(NAMES, Evidence(found, truth))
    assert ours == pytest.approx(by_pycocotools(truth, found), abs=1e-9)


def as_found(truth: Objects, shift: float = 0.0) -> Detections:
    boxes = truth.boxes + shift * (truth.boxes[:, 2:] - truth.boxes[:, :2]).repeat(1, 2)
    return Detections(boxes, torch.ones(len(boxes)), truth.labels, truth.counts, 3, Rules())


def test_truth_scores_100_shifted_by_half_nothing_and_so_do_no_detections():
    truth = Objects.of([[[0, 10, 10, 60, 60]], [], [[1, 5, 5, 40, 20], [2, 60, 60, 90, 90]]], SIZE)
    assert KIND.score(["ap", "ap50"], Evidence(as_found(truth), truth)) == pytest.approx({"ap": 100, "ap50": 100})
    assert KIND.score(["ap", "ap50"], Evidence(as_found(truth, 0.5), truth)) == {"ap": 0, "ap50": 0}
    none = of_lists([[], [], []])
    assert KIND.score(["ap", "ar"], Evidence(none, truth)) == {"ap": 0, "ar": 0}


def test_what_is_drawn_are_shares_of_the_picture_and_sure_detections_alone() -> None:
    truth = Objects.of([[[1, 0, 0, 80, 60]], []], SIZE)
    found = Detections(
        torch.tensor([[40.0, 30, 80, 60], [0, 0, 160, 120], [0, 0, 16, 12]]),
        torch.tensor([0.9, 0.1, 0.5]), torch.tensor([1, 2, 0]), torch.tensor([2, 1]), 3, Rules(),
    )  # fmt: skip
    (there, first), (nothing, second) = KIND.marked(found, truth)
    assert [mark.points for mark in there] == [((0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5))]
    assert [mark.label for mark in first] == [1]
    assert first[0].points == ((0.25, 0.25), (0.5, 0.25), (0.5, 0.5), (0.25, 0.5))
    assert nothing == []
    assert [(mark.label, mark.score) for mark in second] == [(0, 0.5)]


def test_a_picture_without_objects_changes_false_positives_alone():
    truth = Objects.of([[[0, 10, 10, 60, 60]]], SIZE)
    more = truth.join(Objects.of([[]], SIZE))
    hit, wrong = [0.5, 0, 10, 10, 60, 60], [0.9, 0, 0, 0, 20, 20]
    alone = KIND.score(["ap"], Evidence(of_lists([[hit]]), truth))["ap"]
    assert KIND.score(["ap"], Evidence(of_lists([[hit], []]), more))["ap"] == alone == pytest.approx(100)
    assert KIND.score(["ap"], Evidence(of_lists([[hit], [wrong]]), more))["ap"] == pytest.approx(50)


def test_sizes_without_objects_have_no_value_and_areas_are_those_of_the_picture_as_it_came():
    truth = Objects.of([[[0, 0, 0, 20, 20]]], SIZE)
    assert KIND.score(NAMES, Evidence(as_found(truth), truth)).keys() == {"ap", "ap50", "ap75", "ap_small", "ar"}
    larger = replace(truth, origin=truth.sizes * 4)
    found = replace(as_found(truth), boxes=truth.boxes * 4)
    assert "ap_medium" in KIND.score(NAMES, Evidence(found, larger))
    assert "ap_small" not in KIND.score(NAMES, Evidence(found, larger))


def net_and_batch() -> tuple[Any, Batch]:
    torch.manual_seed(1)
    net = models.build("fcos_c32s8-32h1:cell_w4d1", (3, *SIZE), 3).eval()
    torch.nn.init.normal_(net.head.classification_head.cls_logits.weight, std=0.2)
    y = Objects.of([[[0, 10, 10, 60, 60]], []], SIZE)
    return net, Batch({"image": torch.randn(2, 3, *SIZE)}, y, torch.arange(2))


def test_detections_are_those_of_torchvision():
    net, batch = net_and_batch()
    with torch.no_grad():
        dense = net(batch).dense
    rules = Rules(detections=30, candidates=50)
    boxes, scores, labels = detected(dense, batch.y.sizes, rules)
    wanted = postprocessed(net, dense, rules)
    for number, picture in enumerate(wanted):
        torch.testing.assert_close(boxes[number], picture["boxes"])
        torch.testing.assert_close(scores[number], picture["scores"])
        assert torch.equal(labels[number], picture["labels"])
    assert len(boxes[0]) == 30


def postprocessed(net: Any, dense: Any, rules: Rules) -> list[dict[str, Tensor]]:
    class Body(torch.nn.Module):
        out_channels = 32

    theirs = FCOS(
        Body(), 3, head=net.head, anchor_generator=net._anchors, score_thresh=rules.threshold, nms_thresh=rules.nms,
        detections_per_img=rules.detections, topk_candidates=rules.candidates,
    )  # fmt: skip
    outputs = {
        "cls_logits": list(dense.cls), "bbox_regression": list(dense.box),
        "bbox_ctrness": [level[..., None] for level in dense.quality],
    }  # fmt: skip
    return theirs.postprocess_detections(outputs, [list(dense.anchors)] * 2, [SIZE] * 2)


def test_answers_of_batches_are_joined_in_pixels_of_the_pictures_as_they_came():
    net, batch = net_and_batch()
    came = replace(batch, y=replace(batch.y, origin=batch.y.sizes * torch.tensor([2.0, 3.0])))
    with torch.no_grad():
        out = net(batch)
    one = KIND.answer(out, batch, KIND.scaling(Rows({}, batch.y), None))
    other = KIND.answer(out, came, KIND.scaling(Rows({}, batch.y), None))
    torch.testing.assert_close(other.boxes, one.boxes * torch.tensor([3.0, 2.0, 3.0, 2.0]))
    both = KIND.joined([one, other])
    assert both.counts.tolist() == [*one.counts.tolist(), *other.counts.tolist()]
    assert len(both.boxes) == int(both.counts.sum())


def test_a_task_that_scores_ap50_too_shows_and_ranks_by_it_and_offers_the_sizes():
    assert [name for name, metric in KIND.metrics.items() if metric.ranks] == ["ap50"]
    assert {"ap75", "ap_small", "ap_medium", "ap_large", "ar"} <= {n for n, m in KIND.metrics.items() if m.column}


def test_more_objects_than_detections_that_count_are_refused():
    dense = Rows({}, Objects.of([[[0, i, i, i + 5, i + 5] for i in range(5)]], SIZE))
    line = KIND.ruled({"detections": 4}).unscorable(dense, dense, None)
    assert line is not None
    assert "test picture 0 holds 5 objects, and 4 detections of a picture count" in line
    assert KIND.ruled({"detections": 5}).unscorable(dense, dense, None) is None
    empty = Rows({}, Objects.of([[], []], SIZE))
    assert KIND.unscorable(empty, empty, None) == "no test picture holds an object; change the data"
    assert KIND.refusal(Rows({}, torch.arange(3)), None) == "targets without boxes"


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ({"nmss": 0.5}, "unknown rule 'nmss' .did you mean 'nms'"),
        ({"detections": 0}, "score.rules.detections: a whole number of at least 1"),
        ({"threshold": 2}, "score.rules.threshold: a number from 0 to 1"),
        ({"areas": [9, 4]}, "score.rules.areas: two areas that rise"),
    ],
)
def test_rules_that_cannot_be_are_refused_where_a_task_states_them(rules, line):
    with pytest.raises(ValueError, match=line):
        KIND.ruled(rules)
    with pytest.raises(ValueError, match="a classification task has no"):
        kinds.kind("classification").ruled({"nms": 0.5})
    made = KIND.ruled({"areas": [4, 9]})
    assert isinstance(made, Detection)
    assert made.rules == Rules(areas=(4.0, 9.0))


def test_unset_rules_leave_a_tasks_text_as_it_was():
    body: dict[str, Any] = {
        "name": "x", "title": "x", "version": 1, "kind": "detection", "suite": "x", "baseline": "plain", "seeds": [0],
        "data": {"source": "bccd"}, "pair": {"student": {"net": "fcos_c8s8-32h1:cell_w4d1"}},
        "train": {"epochs": 1, "batch": 2, "optimizer": {"name": "adam", "lr": 0.1}}, "score": {"primary": "ap"},
    }  # fmt: skip
    dumped = TaskSpec.model_validate(body).model_dump(mode="json")
    assert "rules" not in dumped["score"]
    assert "clip" not in dumped["train"]
    ruled = TaskSpec.model_validate({**body, "score": {"primary": "ap", "rules": {"nms": 0.6}}})
    assert ruled.of_kind.rules.nms == 0.6  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="inherit: neck of a teacher, and there is none"):
        TaskSpec.model_validate({**body, "pair": {"student": {"net": "x", "inherit": ["neck"]}}})
