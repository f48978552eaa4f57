"""Object detection: boxes and classes of any number a picture; networks give detections, scored by COCO's AP."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kdbench.base.errors import nearest
from kdbench.kinds import predicted
from kdbench.kinds.base import FEW_POINTS, Evidence, Kind, Mark, Metric, Scaling, Tiny

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Dense, Objects, Out, Rows


SURE = 0.3
"""Score from which a detection is drawn; AP counts many that nobody would look at."""


@dataclass(frozen=True)
class Rules:
    """How detections are made of a head's output and counted; a task states its own in ``score.rules``.

    Attributes:
        detections: of a picture, those of the highest scores, in the answer and in AP.
        threshold: score from which a candidate counts.
        nms: overlap above which the lower of two boxes of one class is left out.
        candidates: of a level before that, those of the highest scores.
        areas: where small objects end and large ones begin, in square pixels of the picture as it came.
    """

    detections: int = 100
    threshold: float = 0.05
    nms: float = 0.5
    candidates: int = 1000
    areas: tuple[float, float] = (32.0**2, 96.0**2)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Rules:
        """Rules of a task.

        Raises:
            ValueError: one is unknown or has a value that it cannot have.
        """
        known = [one.name for one in fields(cls)]
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"score.rules: unknown rule {unknown[0]!r}{nearest(unknown[0], known)}")
        made = {**asdict(cls()), **given}
        for name in ("detections", "candidates"):
            if not isinstance(made[name], int) or made[name] < 1:
                raise ValueError(f"score.rules.{name}: a whole number of at least 1 is expected, not {made[name]!r}")
        for name in ("threshold", "nms"):
            if not isinstance(made[name], int | float) or not 0 <= made[name] <= 1:
                raise ValueError(f"score.rules.{name}: a number from 0 to 1 is expected, not {made[name]!r}")
        areas = made["areas"]
        numbers = isinstance(areas, list | tuple) and len(areas) == 2 and all(isinstance(a, int | float) for a in areas)
        if not numbers or not 0 < areas[0] < areas[1]:
            raise ValueError(f"score.rules.areas: two areas that rise are expected, not {areas!r}")
        return cls(**{**made, "areas": (float(areas[0]), float(areas[1]))})


@dataclass(frozen=True)
class Detections:
    """Detections of pictures in order, each picture's by falling score.

    Attributes:
        boxes: (D, 4) x0, y0, x1, y1 in pixels of the pictures as they came.
        scores, labels: (D,).
        counts: (N,) how many each picture has.
        classes: that there are.
        rules: they were made and are counted by.
        masks: (D,) run lengths of COCO's in pixels of the network's input, () where there are boxes alone.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor
    classes: int
    rules: Rules
    masks: tuple[Mapping[str, Any], ...] = ()
    _known: list[tuple[Objects, dict[str, float]]] = field(default_factory=list, repr=False, compare=False)

    def measured(self, truth: Objects) -> dict[str, float]:
        """COCO's values in percent, NaN where no object is there; evaluated once."""
        if not self._known or self._known[0][0] is not truth:
            self._known[:] = [(truth, {name: 100 * value for name, value in self._measured(truth).items()})]
        return self._known[0][1]

    def _measured(self, truth: Objects) -> dict[str, float]:
        import torch

        from kdbench.stats.coco import Boxes, average_precision

        wanted = as_it_came(truth.boxes, truth)
        area = (wanted[:, 2:] - wanted[:, :2]).prod(1) if truth.area is None else truth.area
        ignore = torch.zeros_like(truth.labels, dtype=torch.bool) if truth.ignore is None else truth.ignore
        image = torch.arange(len(self.counts), device=self.counts.device).repeat_interleave(self.counts)

        def arrays(*tensors: Tensor) -> list[Any]:
            return [tensor.detach().cpu().double().numpy() if tensor.is_floating_point() else tensor.cpu().numpy()
                    for tensor in tensors]  # fmt: skip

        found = Boxes(*arrays(self.boxes, self.labels, image))
        there = Boxes(*arrays(wanted, truth.labels, truth.image))
        compared = functools.partial(
            average_precision,
            scores=arrays(self.scores)[0],
            area=arrays(area)[0],
            ignore=arrays(ignore)[0],
            images=len(truth),
            classes=self.classes,
            most=self.rules.detections,
            bounds=self.rules.areas,
        )
        values = compared(found, truth=there)
        if truth.masks is not None and (self.masks or not len(self.boxes)):
            by_mask = compared(found._replace(masks=self.masks), truth=there._replace(masks=runs_of(truth)))
            told = [name for name in by_mask if name.split("@")[0] in ("ap", "ap50")]
            values |= {f"mask_{name}": by_mask[name] for name in told}
        return values


def runs(masks: Tensor) -> list[Mapping[str, Any]]:
    """Run lengths of COCO's of (D, H, W) bool masks."""
    import numpy as np
    from faster_coco_eval.core import mask as coco

    planes = np.asfortranarray(masks.permute(1, 2, 0).to("cpu").numpy().astype(np.uint8))
    return list(coco.encode(planes)) if len(masks) else []


def runs_of(truth: Objects) -> list[Mapping[str, Any]]:
    """Those of the objects of pictures, one picture after the other."""
    import torch

    pictures = (truth[torch.tensor([place])] for place in range(len(truth)))
    return [one for picture in pictures for one in runs(picture.shapes())]


def as_it_came(boxes: Tensor, of: Objects, image: Tensor | None = None) -> Tensor:
    """Boxes of the network's input in pixels of the pictures as they came; ``image``: (M,) rows, the objects' own."""
    if of.origin is None:
        return boxes
    scale = (of.origin / of.sizes)[of.image if image is None else image]
    return boxes * scale.flip(1).repeat(1, 2)


def detected(dense: Dense, sizes: Tensor, rules: Rules) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Boxes, scores and classes of each picture's detections, in pixels of the network's input.

    Of each level, or of all proposals, the candidates of the highest scores are decoded and cut to the picture; of all
    together, class by class, the lower of two boxes that overlap is left out. Equal scores are ordered by level, cell
    and class.

    Args:
        sizes: (N, 2) height and width of the pictures.
    """
    import torch
    from torchvision.ops import batched_nms

    assert dense.decode is not None
    found: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for picture, levels in zip(range(len(sizes)), _candidates(dense), strict=True):
        parts = []
        height, width = sizes[picture].unbind()
        for chances, box, anchors in levels:
            scores = chances.flatten()
            place = torch.nonzero(scores > rules.threshold).squeeze(1)
            best, order = scores[place].sort(descending=True, stable=True)
            best, place = best[: rules.candidates], place[order[: rules.candidates]]
            cell, label = place // chances.shape[-1], place % chances.shape[-1]
            boxes = dense.decode(box[cell] if box.ndim == 2 else box[cell, label], anchors[cell])
            x, y = boxes[:, 0::2].clamp(min=0).minimum(width), boxes[:, 1::2].clamp(min=0).minimum(height)
            parts.append((torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1), best, label))
        boxes, scores, labels = (torch.cat(one) for one in zip(*parts, strict=True))
        kept = batched_nms(boxes, scores, labels, rules.nms)[: rules.detections]
        for one, values in zip(found, (boxes, scores, labels), strict=True):
            one.append(values[kept])
    return found


def _marks(boxes: Tensor, labels: Tensor, scores: Tensor | None, counts: Tensor, sizes: Tensor) -> list[list[Mark]]:
    """Boxes as outlines, a list a picture."""
    made: list[list[Mark]] = []
    known = [None] * len(labels) if scores is None else scores.tolist()
    rows = iter(zip(boxes.tolist(), labels.tolist(), known, strict=True))
    for (height, width), count in zip(sizes.tolist(), counts.tolist(), strict=True):
        marks = []
        for (x0, y0, x1, y1), label, score in itertools.islice(rows, count):
            left, right, top, bottom = x0 / width, x1 / width, y0 / height, y1 / height
            marks.append(Mark(label, ((left, top), (right, top), (right, bottom), (left, bottom)), score))
        made.append(marks)
    return made


def _candidates(dense: Dense) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """Of each picture, of each level: (Q, K) scores, raw regression (Q, 4) or of each class (Q, K, 4), and anchors.

    The proposals of a detector of two stages are one level.
    """
    if dense.has("roi"):
        parts = [len(one) for one in dense.proposals]
        scores = dense.roi.softmax(1)[:, :-1]
        for chances, box, proposals in zip(
            scores.split(parts), dense.roi_box.split(parts), dense.proposals, strict=True
        ):
            yield [(chances, box, proposals)]
        return
    levels = [logits.sigmoid() for logits in dense.cls]
    if dense.has("quality"):
        fits = [quality.sigmoid()[..., None] for quality in dense.quality]
        levels = [(chances * fit).sqrt() for chances, fit in zip(levels, fits, strict=True)]
    for picture in range(len(levels[0])):
        one = zip(levels, dense.box, dense.anchors, strict=True)
        yield [(chances[picture], box[picture], anchors) for chances, box, anchors in one]


def classes_of(dense: Dense) -> int:
    """How many classes a detector tells apart."""
    return dense.roi.shape[1] - 1 if dense.has("roi") else dense.cls[0].shape[-1]


WRAPS = ("faster_rcnn_c8s2-4a4p20r16f16:", "gfl_c8s2-4h1:")
"""Of networks of methods that read what FCOS does not give, on the smallest task."""


def _value(p: Evidence, name: str) -> Tensor:
    import torch

    return torch.tensor(p.output.measured(p.y)[name], dtype=torch.float64)


def metric(name: str, about: str, word: str, *, ranks: bool = False) -> Metric:
    return Metric(
        True,
        "%",
        about,
        partial(_value, name=name),
        high=100.0,
        word=word,
        ranks=ranks,
        column=not ranks,
        curve_points=FEW_POINTS,
    )


def inked(pixels: Tensor, digits: Tensor) -> Objects:
    """Digits as objects: the box around a digit's ink."""
    from kdbench.contract import Objects

    pictures = []
    for picture, digit in zip(pixels[:, 0], digits.tolist(), strict=True):
        rows, columns = (picture.amax(axis).nonzero().squeeze(1) for axis in (1, 0))
        pictures.append([[digit, int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]])
    height, width = pixels.shape[-2:]
    return Objects.of(pictures, (height, width))


class Detection(Kind):
    """Targets are :class:`Objects`; the loss is the detector's own, all its terms of weight 1.

    Args:
        rules: as a task states them.
    """

    name = "detection"
    about = "boxes and classes of the objects of a picture"
    metrics: ClassVar = {
        "ap": metric("ap", "COCO's average precision, overlaps .5 to .95", "AP"),
        "ap50": metric("ap50", "average precision at overlap .5", "AP50", ranks=True),
        "ap75": metric("ap75", "average precision at overlap .75", "AP75"),
        "ap_small": metric("ap_small", "average precision of small objects", "AP small"),
        "ap_medium": metric("ap_medium", "average precision of objects of middle size", "AP medium"),
        "ap_large": metric("ap_large", "average precision of large objects", "AP large"),
        "ar": metric("ar", "average recall, overlaps .5 to .95", "AR"),
    }
    tiny = Tiny("ap", inked, wraps="fcos_c8s2-4h1:", fit_steps=20)
    lacks = frozenset({"logits", "emb", "code", "classifier", "tail"})
    placed = True
    one_process = "its task's loss divides by the objects of a batch"
    eager = "the number of objects differs from batch to batch, which no captured or compiled step can follow"

    unwritten = "its answers are chosen among boxes behind the network, by the rules of its task"

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()

    @property
    def tinies(self) -> Sequence[Tiny]:
        """Heads of one stage, of two, and boxes that are distributions."""
        return (self.tiny, *(replace(self.tiny, wraps=wraps) for wraps in WRAPS))

    def ruled(self, rules: Mapping[str, Any]) -> Kind:
        return type(self)(Rules.of(rules)) if rules else self

    def refusal(self, train: Rows, label_range: tuple[float, float] | None) -> str | None:
        from kdbench.contract import Objects

        return None if isinstance(train.y, Objects) else "targets without boxes"

    def unscorable(self, train: Rows, test: Rows, k: int | None) -> str | None:
        counts = test.y.counts if test.y.ignore is None else replace(test.y, masks=None).keep(~test.y.ignore).counts
        if not int(counts.sum()):
            return "no test picture holds an object; change the data"
        if (densest := int(counts.max())) > self.rules.detections:
            return (
                f"test picture {int(counts.argmax())} holds {densest} objects, and {self.rules.detections} detections "
                f"of a picture count; raise score.rules.detections to {densest} or more"
            )
        return None

    def loss(self, out: Out, batch: Batch) -> Tensor:
        import torch

        return torch.stack(list(out.dense.losses.values())).sum()

    def answer(self, out: Out, batch: Batch, scaling: Scaling) -> Any:
        import torch

        boxes, scores, labels = detected(out.dense, batch.y.sizes, self.rules)
        counts = torch.tensor([len(one) for one in boxes], device=batch.y.counts.device)
        image = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
        classes = classes_of(out.dense)
        came = as_it_came(torch.cat(boxes), batch.y, image)
        masks = self.masks_of(out.dense, boxes, labels, batch)
        return Detections(came, torch.cat(scores), torch.cat(labels), counts, classes, self.rules, masks)

    def masks_of(
        self, dense: Dense, boxes: list[Tensor], labels: list[Tensor], batch: Batch
    ) -> tuple[Mapping[str, Any], ...]:
        """Run lengths of the detections' masks; none where boxes alone are scored."""
        return ()

    def joined(self, answers: Sequence[Any]) -> Any:
        import torch

        def together(name: str) -> Tensor:
            return torch.cat([getattr(one, name) for one in answers])

        boxes, scores, labels, counts = map(together, ("boxes", "scores", "labels", "counts"))
        masks = tuple(mask for one in answers for mask in one.masks)
        return Detections(boxes, scores, labels, counts, answers[0].classes, self.rules, masks)

    def marked(self, seen: Any, y: Any) -> list[tuple[list[Mark], list[Mark]]]:
        """Boxes, and the detections of :data:`SURE` and more."""
        sizes = y.sizes if y.origin is None else y.origin
        there = _marks(as_it_came(y.boxes, y), y.labels, None, y.counts, sizes)
        found = _marks(seen.boxes, seen.labels, seen.scores, seen.counts, sizes)
        return [
            (one, [mark for mark in other if mark.score is not None and mark.score >= SURE])
            for one, other in zip(there, found, strict=True)
        ]

    box: ClassVar[str] = "bbox"
    """What boxes are called in result files."""

    def blank(self, came: Tensor, content: Tensor, size: tuple[int, int]) -> Any:
        from kdbench.contract import Objects

        return replace(Objects.of([[]] * len(came), size), origin=came.float(), sizes=content.float())

    def entries(self, seen: Any) -> predicted.Entries:
        return predicted.of_boxes(seen.boxes, seen.scores, seen.labels, seen.counts, self.box, seen.masks)

    def answered_by(self, entries: predicted.Entries, y: Any, classes: int) -> Any:
        columns, masks = predicted.to_boxes(entries, self.box)
        return Detections(*columns, classes, self.rules, tuple(masks))

    def by_class(self, name: str, evidence: Evidence) -> dict[int, float]:
        values = evidence.output.measured(evidence.y)
        own = {int(key.removeprefix(f"{name}@")): value for key, value in values.items() if key.startswith(f"{name}@")}
        return {label: value for label, value in own.items() if not math.isnan(value)}

    def score(self, names: Sequence[str], evidence: Evidence) -> dict[str, float]:
        """One evaluation gives all; of a size that no object has there is no value."""
        return {name: value for name, value in super().score(names, evidence).items() if not math.isnan(value)}


KIND = Detection()
