"""What networks find on pictures in the form of COCO's result files, and back: one mapping an object or region.

``category_id`` counts classes from 1. Boxes, ``bbox`` as x, y, width, height, are in pixels of the picture as it came;
turned ones (``obb``: centre x, centre y, width, height, degrees counter-clockwise as seen) and masks (``segmentation``,
run lengths) in pixels of the network's input. A class map is one region a class.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SIDES = {"bbox": 4, "obb": 5}
"""Key of a box in an entry to how many numbers it holds."""
Entry = dict[str, Any]
Entries = list[list[Entry]]
"""A list a picture."""
Columns = tuple["Tensor", "Tensor", "Tensor", "Tensor"]
"""(D, 4 or 5) boxes, (D,) scores, (D,) labels, (N,) counts."""


def of_boxes(
    boxes: Tensor, scores: Tensor, labels: Tensor, counts: Tensor, key: str, masks: Sequence[Mapping[str, Any]] = ()
) -> Entries:
    """Detections as entries, in their order.

    Args:
        key: ``bbox`` of (D, 4) x0, y0, x1, y1; ``obb`` of (D, 5) turned boxes, written as they are.
    """
    rows = []
    held = itertools.zip_longest(boxes.tolist(), scores.tolist(), labels.tolist(), masks)
    for box, score, label, mask in held:
        sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]] if key == "bbox" else box
        entry = {"category_id": label + 1, key: sides, "score": score}
        rows.append(entry if mask is None else {**entry, "segmentation": written(mask)})
    ends = counts.cumsum(0).tolist()
    return [rows[begin:end] for begin, end in itertools.pairwise([0, *ends])]


def to_boxes(entries: Entries, key: str) -> tuple[Columns, list[Mapping[str, Any]]]:
    """Detections, each picture's by falling score, equal ones in order; and their masks, none where there are none."""
    import torch

    ordered = [sorted(own, key=lambda one: -one["score"]) for own in entries]
    rows = [one for own in ordered for one in own]
    boxes = torch.tensor([one[key] for one in rows], dtype=torch.float64).reshape(-1, SIDES[key])
    if key == "bbox":
        boxes[:, 2:] += boxes[:, :2]
    scores = torch.tensor([one["score"] for one in rows], dtype=torch.float64)
    labels = torch.tensor([one["category_id"] - 1 for one in rows], dtype=torch.int64)
    counts = torch.tensor([len(own) for own in ordered], dtype=torch.int64)
    masks: list[Mapping[str, Any]] = [read(one["segmentation"]) for one in rows if "segmentation" in one]
    return (boxes.float(), scores.float(), labels, counts), masks


def of_maps(labels: Tensor) -> Entries:
    """(N, H, W) classes as a region of each that a picture holds."""
    from kdbench.kinds.detection import runs

    found: Entries = []
    for picture in labels:
        there = picture.unique().tolist()
        regions = runs((picture[None] == picture.new_tensor(there)[:, None, None]).bool())
        found.append([
            {"category_id": label + 1, "segmentation": written(region), "score": 1.0}
            for label, region in zip(there, regions, strict=True)
        ])  # fmt: skip
    return found


def to_maps(entries: Entries, size: tuple[int, int], rest: int) -> Tensor:
    """(N, H, W) uint8 classes of regions, ``rest`` where none is; of two regions the later one counts."""
    import torch
    from faster_coco_eval.core import mask as coco

    made = torch.full((len(entries), *size), rest, dtype=torch.uint8)
    for picture, own in zip(made, entries, strict=True):
        for one in own:
            picture[torch.from_numpy(coco.decode(read(one["segmentation"])).astype(bool))] = one["category_id"] - 1
    return made


def written(mask: Mapping[str, Any]) -> Entry:
    """Run lengths whose counts are a text, as JSON holds them."""
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def read(mask: Mapping[str, Any]) -> Entry:
    """Run lengths as the evaluator takes them."""
    counts = mask["counts"]
    return {"size": list(mask["size"]), "counts": counts.encode() if isinstance(counts, str) else counts}
