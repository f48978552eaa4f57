"""Result files in COCO's form: what was found comes back from them as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from kdbench import kinds
from kdbench.contract import Maps, Objects, OrientedObjects
from kdbench.contract.maps import IGNORED
from kdbench.data.decode.fit import Fit
from kdbench.data.decode.inputs import ImageInput
from kdbench.kinds.base import Evidence
from kdbench.kinds.detection import Detections, Rules, as_it_came, runs
from kdbench.kinds.oriented import Found
from kdbench.kinds.segmentation import counted

SIZE = (24, 32)


def there_and_back(kind: kinds.Kind, seen: Any, y: Any, classes: int = 3) -> Any:
    return kind.answered_by(json.loads(json.dumps(kind.entries(seen))), y, classes)


def truth(of: type[Objects], rng: torch.Generator) -> Objects:
    """Three pictures of 1, 0 and 4 objects, brought to another size than they came in."""
    boxes = torch.rand(5, of.WIDTH, generator=rng) * 8 + 2
    if of is Objects:
        boxes[:, 2:] += boxes[:, :2]
    counts, sizes = torch.tensor([1, 0, 4]), torch.tensor([SIZE] * 3, dtype=torch.float32)
    return of(boxes, torch.tensor([0, 2, 1, 1, 0]), counts, sizes, origin=sizes * torch.tensor([1.3, 0.7]))


@pytest.mark.parametrize("name", ["detection", "instance_segmentation"])
def test_detections_score_the_same(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    y = truth(Objects, rng)
    boxes = y.boxes.repeat(2, 1) + torch.randn(10, 4, generator=rng)
    scores = torch.tensor([0.9, 0.9, 0.7, 0.8, 0.3, 0.2, 0.2, 0.2, 0.1, 0.05])
    seen = Detections(boxes, scores, y.labels.repeat(2), torch.tensor([3, 1, 6]), 3, Rules())
    kind = kinds.kind(name)
    if name == "instance_segmentation":
        layers = torch.zeros(3, 1, *SIZE, dtype=torch.int16)
        layers[0, 0, :9], layers[2, 0, 4:7] = 1, 3
        y = replace(y, masks=layers)
        shapes = torch.rand(10, *SIZE, generator=rng) > 0.5
        seen = replace(seen, masks=tuple(runs(shapes)))
    back = there_and_back(kind, seen, y)
    assert torch.equal(back.boxes, seen.boxes)
    assert torch.equal(back.scores, seen.scores)
    names = [*kind.metrics]
    found = kind.score(names, Evidence(back, y))
    assert found == kind.score(names, Evidence(seen, y))
    assert ("mask_ap" in found) == (name == "instance_segmentation")


def test_turned_boxes_score_the_same() -> None:
    rng = torch.Generator().manual_seed(1)
    y, kind = truth(OrientedObjects, rng), kinds.kind("oriented")
    seen = Found(y.boxes + 0.3, torch.tensor([0.9, 0.2, 0.8, 0.7, 0.6]), y.labels, torch.tensor([1, 1, 3]), 3)
    back = there_and_back(kind, seen, y)
    ordered = [0, 1, 2, 3, 4]
    assert torch.equal(back.boxes, seen.boxes[ordered])
    assert back.precision(y) == seen.precision(y) > 0


def test_maps_count_the_same_pixels() -> None:
    rng = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 3, (2, *SIZE), generator=rng).to(torch.uint8)
    labels[0, :3] = IGNORED
    said = torch.randint(0, 3, (2, *SIZE), generator=rng)
    said[1] = 2
    assert torch.equal(there_and_back(kinds.kind("segmentation"), said, Maps(labels)), counted(said, labels, 3))


def test_nothing_found_is_nothing() -> None:
    kind, rng = kinds.kind("detection"), torch.Generator().manual_seed(0)
    empty = Detections(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(3).long(), 3, Rules()
    )
    back = there_and_back(kind, empty, truth(Objects, rng))
    assert back.counts.tolist() == [0, 0, 0]
    assert kind.score(["ap"], Evidence(back, truth(Objects, rng))) == {"ap": 0.0}


def test_boxes_on_padded_pictures_are_in_pixels_of_these_as_they_came() -> None:
    image: dict[str, Any] = {"kind": "image", "column": "image", "mean": [0.5], "std": [0.2], "fit": "pad"}
    fit = Fit.of(ImageInput.model_validate({**image, "size": [24, 32]}))
    came = [(48, 32), (6, 16), (24, 32), (1000, 1)]
    content = [fit.content(one) for one in came]
    assert content == [(24, 16), (12, 32), (24, 32), (24, 1)]
    y = kinds.kind("detection").blank(torch.tensor(came), torch.tensor(content), SIZE)
    corners = torch.tensor([[0.0, 0.0, float(width), float(height)] for height, width in content])
    whole = torch.tensor([[0.0, 0.0, float(width), float(height)] for height, width in came])
    assert torch.allclose(as_it_came(corners, y, torch.arange(4)), whole)
