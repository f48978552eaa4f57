"""COCO's average precision of boxes (Lin et al., arXiv 1405.0312), by faster-coco-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
OF_CLASS = ("ap", "ap50", "ap75")
"""What is told of each class, too."""
ALL, SMALL, MEDIUM, LARGE = range(4)
"""Size classes, in the order of the evaluator."""


class Boxes(NamedTuple):
    """Boxes of many pictures.

    Attributes:
        boxes: (M, 4) x0, y0, x1, y1.
        labels: (M,) classes from 0.
        image: (M,) the number of the picture.
        masks: (M,) run lengths of COCO's, which are compared instead of boxes; None to compare boxes.
    """

    boxes: Floats
    labels: Integers
    image: Integers
    masks: Sequence[Mapping[str, Any]] | None = None


def average_precision(
    found: Boxes,
    scores: Floats,
    truth: Boxes,
    area: Floats,
    ignore: NDArray[np.bool_],
    *,
    images: int,
    classes: int,
    most: int,
    bounds: tuple[float, float],
) -> dict[str, float]:
    """AP, AR and their like as fractions; NaN where no object is there to be found.

    Args:
        found, scores: detections; equal scores of a picture count in the order that they are given in.
        truth, area, ignore: objects, their areas in the boxes' unit, and which are crowds: found or not, no error.
        images: number of pictures, those without objects among them.
        most: detections of a picture that count, those of the highest scores.
        bounds: areas at which small objects end and large ones begin.

    Returns:
        ``ap`` over overlaps .5 to .95, ``ap50``, ``ap75``, ``ap_small``, ``ap_medium``, ``ap_large`` and ``ar``; and of
        class c alone ``ap@c``, ``ap50@c``, ``ap75@c``.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    low, high = bounds
    kind = "bbox" if truth.masks is None else "segm"
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    annotations = [
        {"id": number, "image_id": int(image), "category_id": int(label) + 1, "bbox": [x, y, w, h], "area": float(size),
         "iscrowd": int(crowd)}
        for number, (image, label, (x, y), (w, h), size, crowd) in enumerate(
            zip(truth.image, truth.labels, truth.boxes[:, :2].tolist(), sides.tolist(), area, ignore, strict=True), 1
        )
    ]  # fmt: skip
    if truth.masks is not None:
        for annotation, mask in zip(annotations, truth.masks, strict=True):
            annotation["segmentation"] = mask
    height, width = truth.masks[0]["size"] if truth.masks else (1, 1)
    known = COCO(
        {
            "images": [{"id": number, "height": height, "width": width} for number in range(images)],
            "annotations": annotations,
            "categories": [{"id": label + 1, "name": str(label)} for label in range(classes)],
        }
    )
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    detections = [
        {"image_id": int(image), "category_id": int(label) + 1, "bbox": [x, y, w, h], "score": float(score)}
        for image, label, (x, y), (w, h), score in zip(
            found.image, found.labels, found.boxes[:, :2].tolist(), sides.tolist(), scores, strict=True
        )
    ]
    if found.masks is not None:
        for detection, mask in zip(detections, found.masks, strict=True):
            detection["segmentation"] = mask
            del detection["bbox"]
    if not detections:
        return _none_found(truth, area, ignore, low, high, classes)
    evaluation = COCOeval_faster(known, known.loadRes(detections), kind, print_function=lambda *_: None)
    evaluation.params.maxDets = [most]
    most_area = 1e10
    evaluation.params.areaRng = [[0, most_area], [0, low], [low, high], [high, most_area]]
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # its summary has limits of its own
    overlaps = np.asarray(evaluation.params.iouThrs)
    values = {
        "ap": precision[:, :, :, ALL, 0],
        "ap50": precision[np.isclose(overlaps, 0.5), :, :, ALL, 0],
        "ap75": precision[np.isclose(overlaps, 0.75), :, :, ALL, 0],
        "ap_small": precision[:, :, :, SMALL, 0],
        "ap_medium": precision[:, :, :, MEDIUM, 0],
        "ap_large": precision[:, :, :, LARGE, 0],
        "ar": recall[:, :, ALL, 0],
    }
    for name in OF_CLASS:
        values |= {f"{name}@{label}": values[name][:, :, label] for label in range(classes)}
    return {name: _mean(np.asarray(value)) for name, value in values.items()}


def _mean(values: Floats) -> float:
    """Of what is there: -1 stands where a class has no object."""
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")


def _none_found(
    truth: Boxes, area: Floats, ignore: NDArray[np.bool_], low: float, high: float, classes: int
) -> dict[str, float]:
    """Of no detection at all: 0 wherever there was an object, which no evaluator is asked for."""
    there = area[~ignore]
    held = set(truth.labels[~ignore].tolist())
    parts = {
        "ap_small": bool((there <= low).any()),
        "ap_medium": bool(((there >= low) & (there <= high)).any()),
        "ap_large": bool((there >= high).any()),
    }
    every = dict.fromkeys(("ap", "ap50", "ap75", "ar"), bool(len(there)))
    alone = {f"{name}@{label}": label in held for name in OF_CLASS for label in range(classes)}
    return {name: 0.0 if some else float("nan") for name, some in {**every, **parts, **alone}.items()}
