"""The primary metric of each class: that of its rows alone, the mean of which is the metric."""

from __future__ import annotations

import pytest
import torch

from kdbench import kinds
from kdbench.contract import Maps, Objects, OrientedObjects
from kdbench.kinds.base import Evidence
from kdbench.kinds.detection import Detections, Rules
from kdbench.kinds.oriented import Found

SIZE = (40, 60)
BOXES = [[0, 2, 2, 12, 12], [0, 20, 2, 30, 12], [2, 40, 20, 58, 38]]


def found(shift: float = 0.0, none: bool = False) -> tuple[Detections, Objects]:
    """Of class 0 one of two is found, of class 2 what is there but for a shift; class 1 is nowhere."""
    truth = Objects.of([BOXES], SIZE)
    boxes, labels = truth.boxes[[0, 2]], truth.labels[[0, 2]]
    boxes = boxes + torch.tensor([[0.0], [shift]])
    kept = slice(0, 0 if none else 2)
    scores = torch.tensor([0.9, 0.8])[kept]
    return Detections(boxes[kept], scores, labels[kept], torch.tensor([len(scores)]), 3, Rules()), truth


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_of_boxes(shift: float) -> None:
    kind, (answer, truth) = kinds.kind("detection"), found(shift)
    evidence = Evidence(answer, truth)
    for name in ("ap", "ap50"):
        by_class, whole = kind.by_class(name, evidence), kind.score([name], evidence)[name]
        assert by_class.keys() == {0, 2}
        assert sum(by_class.values()) / 2 == pytest.approx(whole)
    assert kind.by_class("ap50", evidence)[0] == pytest.approx(51 / 101 * 100)
    assert (kind.by_class("ap", evidence)[2] == pytest.approx(100)) == (not shift)
    assert kind.by_class("ar", evidence) == {}
    assert kind.by_class("ap", Evidence(*found(none=True))) == {0: 0, 2: 0}


def test_of_turned_boxes() -> None:
    kind = kinds.kind("oriented")
    truth = OrientedObjects.of([[[0, 10, 10, 12, 6, 20], [0, 40, 10, 12, 6, 0], [2, 30, 30, 20, 8, 45]]], SIZE)
    answer = Found(truth.boxes[[0, 2]], torch.tensor([0.9, 0.8]), truth.labels[[0, 2]], torch.tensor([2]), 3)
    evidence = Evidence(answer, truth)
    assert kind.by_class("obb_ap50", evidence) == pytest.approx({0: 50, 2: 100})
    assert kind.score(["obb_ap50"], evidence)["obb_ap50"] == pytest.approx(75)


def test_of_maps_and_of_metrics_that_are_no_means() -> None:
    kind = kinds.kind("segmentation")
    counts = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    evidence = Evidence(counts, Maps(torch.zeros(1, 3, 4, dtype=torch.uint8)))
    assert kind.by_class("miou", evidence) == pytest.approx({0: 600 / 9, 1: 50})
    assert kind.by_class("class_accuracy", evidence) == pytest.approx({0: 75, 1: 75})
    assert kind.by_class("pixel_accuracy", evidence) == {}
    assert kinds.kind("classification").by_class("top1", evidence) == {}
