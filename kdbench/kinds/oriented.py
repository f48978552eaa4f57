"""Detection of objects whose boxes are turned, scored by average precision at overlap one half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.kinds import predicted
from kdbench.kinds.base import FEW_POINTS, Evidence, Kind, Mark, Metric, Scaling, Tiny
from kdbench.kinds.detection import Detection, Rules

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from kdbench.contract import Batch, Dense, Objects, Out, Rows

HALF = 0.5
"""Overlap from which on a detection finds an object."""


@dataclass(frozen=True)
class Found:
    """Turned boxes found in pictures, in order, each picture's by falling score.

    Attributes:
        boxes: (D, 5) as of :class:`OrientedObjects`.
        scores, labels: (D,).
        counts: (N,).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor
    classes: int
    _known: list[dict[int, float]] = field(default_factory=list, repr=False, compare=False)

    def precisions(self, truth: Objects) -> dict[int, float]:
        """Average precision of each class that is there; evaluated once."""
        if not self._known:
            self._known.append(average_precisions(self, truth))
        return self._known[0]

    def precision(self, truth: Objects) -> float:
        """The mean of the classes that are there, in percent."""
        import numpy as np

        values = list(self.precisions(truth).values())
        return 100 * float(np.mean(values)) if values else float("nan")


def average_precisions(found: Found, truth: Objects) -> dict[int, float]:
    """Area under the falling envelope of precision over recall (not VOC07's eleven points), of each class there is.

    Detections of a class, by falling score, take the object of their picture that they overlap most, if by one half at
    least and not taken yet; otherwise they are false. Of boxes whose sides are alike the angle does not count: they
    overlap as if turned like the object.
    """
    import numpy as np

    values: dict[int, float] = {}
    image = found_image(found)
    for label in range(found.classes):
        objects = truth.labels == label
        there = int((objects & ~ignored(truth)).sum())
        if not there:
            continue
        chosen = (found.labels == label).nonzero().squeeze(1)
        order = chosen[found.scores[chosen].sort(descending=True, stable=True).indices]
        hits = matched(found, order, image, truth, objects)
        counted = hits >= 0
        right = np.cumsum(hits[counted])
        recall, precision = right / there, right / np.arange(1, len(right) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        values[label] = float((np.diff(recall, prepend=0.0) * envelope).sum())
    return values


def found_image(found: Found) -> Tensor:
    """(D,) row that each box was found in."""
    import torch

    return torch.arange(len(found.counts), device=found.counts.device).repeat_interleave(found.counts)


def ignored(truth: Objects) -> Tensor:
    """(M,) bool."""
    import torch

    return torch.zeros_like(truth.labels, dtype=torch.bool) if truth.ignore is None else truth.ignore


def matched(found: Found, order: Tensor, image: Tensor, truth: Objects, objects: Tensor) -> np.ndarray:
    """1 for detections that find an object, 0 for false ones, -1 for those of what is ignored, in ``order``."""
    import numpy as np

    hits, taken = np.zeros(len(order), np.int64), set()
    crowd = ignored(truth)
    by_picture = {row: (objects & (truth.image == row)).nonzero().squeeze(1) for row in image[order].unique().tolist()}
    known = {}
    for row, own in by_picture.items():
        mine = order[image[order] == row]
        overlap = alike(found.boxes[mine], truth.boxes[own])
        known.update({int(one): (overlap[n], own) for n, one in enumerate(mine.tolist())})
    for place, one in enumerate(order.tolist()):
        overlap, own = known[one]
        if not len(own) or float(overlap.max()) < HALF:
            continue
        best = int(own[int(overlap.argmax())])
        if bool(crowd[best]):
            hits[place] = -1
        elif best not in taken:
            taken.add(best)
            hits[place] = 1
    return hits


def alike(boxes: Tensor, objects: Tensor) -> Tensor:
    """(D, M) IoU of turned boxes with objects; with those whose sides are alike as if turned like them."""
    import torch

    from kdbench.contract.oriented import long, overlaps

    found = overlaps(boxes, objects)
    for number in (~long(objects)).nonzero().squeeze(1).tolist():
        one = objects[number]
        found[:, number] = overlaps(torch.cat([boxes[:, :4], one[4].expand(len(boxes), 1)], 1), one[None])[:, 0]
    return found


def detected(dense: Dense, sizes: Tensor, rules: Rules) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Boxes, scores and classes of each picture's detections; of two of a class that overlap the lower is left out."""
    import torch

    assert dense.decode is not None
    chances = [level.sigmoid() for level in dense.cls]
    found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for picture in range(len(sizes)):
        parts = []
        for scores, box, anchors in zip(chances, dense.box, dense.anchors, strict=True):
            flat = scores[picture].flatten()
            place = (flat > rules.threshold).nonzero().squeeze(1)
            best, order = flat[place].sort(descending=True, stable=True)
            best, place = best[: rules.candidates], place[order[: rules.candidates]]
            cell = place // scores.shape[-1]
            parts.append((dense.decode(box[picture][cell], anchors[cell]), best, place % scores.shape[-1]))
        boxes, scores, labels = (torch.cat(one) for one in zip(*parts, strict=True))
        kept = lone(boxes, scores, labels, rules)
        for one, values in zip(found, (boxes, scores, labels), strict=True):
            one.append(values[kept])
    return found


def lone(boxes: Tensor, scores: Tensor, labels: Tensor, rules: Rules) -> Tensor:
    """Numbers of the detections that stay, by falling score, at most as many as count."""
    import torch

    from kdbench.contract.oriented import overlaps

    order = scores.sort(descending=True, stable=True).indices[: rules.candidates]
    hides = (overlaps(boxes[order], boxes[order]) > rules.nms) & (labels[order][:, None] == labels[order])
    alive, kept = torch.ones(len(order), dtype=torch.bool), []
    hides = hides.cpu()
    for number in range(len(order)):
        if alive[number]:
            kept.append(number)
            alive &= ~hides[number]
            if len(kept) == rules.detections:
                break
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _precision(p: Evidence) -> Tensor:
    import torch

    return torch.tensor(p.output.precision(p.y), dtype=torch.float64)


def _turned(pixels: Tensor, digits: Tensor) -> Objects:
    """Digits as objects: the box around a digit's ink, the longer side first."""
    from kdbench.contract import OrientedObjects

    pictures = []
    for picture, digit in zip(pixels[:, 0], digits.tolist(), strict=True):
        rows, columns = (picture.amax(axis).nonzero().squeeze(1) for axis in (1, 0))
        (top, bottom), (left, right) = ((float(one[0]), float(one[-1]) + 1) for one in (rows, columns))
        wide, high = right - left, bottom - top
        turn = [wide, high, 0.0] if wide >= high else [high, wide, -90.0]
        pictures.append([[digit, (left + right) / 2, (top + bottom) / 2, *turn]])
    height, width = pixels.shape[-2:]
    return OrientedObjects.of(pictures, (height, width))


class Oriented(Detection):
    """Targets are :class:`OrientedObjects`; the loss is the detector's own."""

    name = "oriented"
    about = "turned boxes and classes of the objects of a picture"
    metrics: ClassVar = {
        "obb_ap50": Metric(
            True,
            "%",
            "average precision of turned boxes at overlap .5",
            _precision,
            high=100.0,
            word="AP50 (turned)",
            curve_points=FEW_POINTS,
        ),
    }
    tiny = Tiny("obb_ap50", _turned, wraps="obb_c8s2-4h1:", fit_steps=20)

    @property
    def tinies(self) -> Sequence[Tiny]:
        return (self.tiny,)

    def ruled(self, rules: Mapping[str, Any]) -> Kind:
        if "areas" in rules:
            raise ValueError("score.rules.areas: turned boxes are not scored by size; leave it out")
        return Oriented(Rules.of(rules)) if rules else self

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        from kdbench.contract import OrientedObjects

        return None if isinstance(train.y, OrientedObjects) else "targets without turned boxes"

    def answer(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        import torch

        dense = out.dense
        boxes, scores, labels = detected(dense, batch.y.sizes, self.rules)
        counts = torch.tensor([len(one) for one in boxes], device=batch.y.counts.device)
        return Found(torch.cat(boxes), torch.cat(scores), torch.cat(labels), counts, dense.cls[0].shape[-1])

    def joined(self, answers: Sequence[Any]) -> Any:
        import torch

        held = {
            name: torch.cat([getattr(a, name) for a in answers]) for name in ("boxes", "scores", "labels", "counts")
        }
        return replace(answers[0], **held, _known=[])

    box: ClassVar[str] = "obb"

    def blank(self, came: Tensor, content: Tensor, size: tuple[int, int]) -> Any:
        from kdbench.contract import OrientedObjects

        return replace(OrientedObjects.of([[]] * len(came), size), origin=came.float(), sizes=content.float())

    def entries(self, seen: Any) -> predicted.Entries:
        return predicted.of_boxes(seen.boxes, seen.scores, seen.labels, seen.counts, self.box)

    def answered_by(self, entries: predicted.Entries, y: Any, classes: int) -> Any:
        return Found(*predicted.to_boxes(entries, self.box)[0], classes)

    def by_class(self, name: str, evidence: Evidence) -> dict[int, float]:
        return {label: 100 * value for label, value in evidence.output.precisions(evidence.y).items()}

    def marked(self, seen: Any, y: Any) -> list[tuple[list[Mark], list[Mark]]]:
        there = _outlines(y.boxes, y.labels, None, y.counts, y.sizes)
        found = _outlines(seen.boxes, seen.labels, seen.scores, seen.counts, y.sizes)
        return list(zip(there, found, strict=True))


def _outlines(boxes: Tensor, labels: Tensor, scores: Tensor | None, counts: Tensor, sizes: Tensor) -> list[list[Mark]]:
    """Turned boxes as outlines, a list a picture."""
    from torchvision.ops import box_convert

    corners = box_convert(boxes, "cxcywhr", "xyxyxyxy").view(-1, 4, 2)
    made: list[list[Mark]] = []
    begin = 0
    for (height, width), count in zip(sizes.tolist(), counts.tolist(), strict=True):
        marks = []
        for n in range(begin, begin + count):
            points = tuple((x / width, y / height) for x, y in corners[n].tolist())
            marks.append(Mark(int(labels[n]), points, None if scores is None else float(scores[n])))
        made.append(marks)
        begin += count
    return made


KIND = Oriented()
