"""Localization distillation (Zheng et al., CVPR 2022): the distributions of a box's edges are the teacher's, where one
is assigned and in a region around, and so are the class scores of what is assigned.

Shapes: N pictures, Q cells of a level, K classes, M objects of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, nms

from kdbench.contract import At, Batch, Dense, Method, Needs
from kdbench.methods.shared.bins import divergence, edge_divergence, same_bins
from kdbench.methods.shared.pyramids import DETECTORS, aligned, level_pairs
from kdbench.models.atss import candidates, centres, thresholds

LEAST = 0.25
"""Share of an object's threshold from which on a cell lies in its region."""
FINE = 0.5
"""Share of an object's best overlap above which an anchor is imitated."""
INSTANCES, APART = 10, 0.3
"""Cells of a level that are imitated by the gap of scores, and the overlap above which the lesser gap is left out."""


def valuable(boxes: Tensor, anchors: Sequence[Tensor], distance: str = "released") -> Tensor:
    """(Q,) of all levels: the largest overlap with an object in whose region an anchor lies, 0 outside of all.

    A region holds the anchors whose overlap less the squared distance of centres, in squared diagonals of the hull, is
    from a quarter of the object's threshold up to below it.

    Args:
        distance: what the overlap's area is divided by there: the anchor's area, as in the ``released`` code, or the
            ``union`` (DIoU).
    """
    every = torch.cat(list(anchors))
    if not len(boxes):
        return every.new_zeros(len(every))
    overlaps = box_iou(every, boxes)
    limit = thresholds(overlaps, candidates(centres(boxes), anchors))
    low = torch.maximum(every[:, None, :2], boxes[:, :2])
    high = torch.minimum(every[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clamp_min(0).prod(2)
    share = overlaps if distance == "union" else shared / (every[:, 2:] - every[:, :2]).prod(1)[:, None]
    hull = torch.maximum(every[:, None, 2:], boxes[:, 2:]) - torch.minimum(every[:, None, :2], boxes[:, :2])
    apart = (centres(every)[:, None] - centres(boxes)).square().sum(2) / hull.square().sum(2)
    near = share - apart
    return overlaps.where((near >= LEAST * limit) & (near < limit), 0).amax(1)


def fine_grained(boxes: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """(Q,) bool, anchors whose overlap with an object is more than half of the object's best."""
    every = torch.cat(list(anchors))
    if not len(boxes):
        return torch.zeros(len(every), dtype=torch.bool, device=every.device)
    overlaps = box_iou(every, boxes)
    return (overlaps > FINE * overlaps.amax(0)).any(1)


def inside(boxes: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """(Q,) bool, anchors whose centre lies in an object."""
    at = centres(torch.cat(list(anchors)))[:, None]
    return (torch.cat([at - boxes[:, :2], boxes[:, 2:] - at], 2) > 0).all(2).any(1)


REGIONS = {"finegrained": fine_grained, "fitnet": inside}
"""Regions that follow from objects and anchors alone."""


def general_instances(own: Dense, theirs: Dense, level: int) -> Tensor:
    """(N Q,) bool of a level: the largest gaps of scores whose boxes do not overlap, each of the network that is surer.

    A cell's gap is that of the class where it is largest. Pictures of the batch suppress each other's, as in the
    released code.
    """
    scores = [dense.cls[level].detach().sigmoid().flatten(0, 1) for dense in (own, theirs)]
    gap, label = (scores[0] - scores[1]).abs().max(1)
    surer = (scores[0] > scores[1]).gather(1, label[:, None])
    decode, anchors = own.decode, own.anchors[level]
    assert decode is not None
    boxes = [decode(dense.box[level].detach(), anchors).flatten(0, 1) for dense in (own, theirs)]
    kept = nms(torch.where(surer, *boxes), gap, APART)[:INSTANCES]
    return torch.zeros_like(gap, dtype=torch.bool).index_fill_(0, kept, True)


def imitation(student: Tensor, teacher: Tensor, picked: Tensor) -> Tensor:
    """Mean squared difference over channels of some cells, (N h w,) bool, of (N, C, h, w) maps, 0-d."""
    own, target = (x.flatten(2).transpose(1, 2).flatten(0, 1)[picked] for x in (student, teacher))
    return (own - target).square().sum() / max(1, own.numel())


class LD(Method):
    """The detector's loss and, of every level: main and valuable region's edges, class scores, features if weighed."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        answers = frozenset({"cls", "box", "bins"} | ({"fpn"} if hp.feature_weight else set()))
        return Needs(
            kinds=DETECTORS,
            inputs="same",
            student=answers | {"assigned", "anchors"},
            teacher=answers,
            batch=frozenset({"boxes"}),
            one_process="its terms are sums over the objects of a batch",
        )

    def setup(self) -> None:
        own, theirs = (self.task.probe(net).dense for net in (self.student, self.teacher))
        same_bins(own, theirs)
        if self.hp.feature_weight:
            self.levels = nn.ModuleList(aligned(s, t) for s, t in level_pairs(own.fpn, theirs.fpn))

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        out, target = self.student(batch), self.teacher(batch)
        own, theirs = out.dense, target.dense
        boxes = [one["boxes"].to(own.anchors[0]) for one in batch.y.listed()]
        cells = [len(level) for level in own.anchors]
        region = torch.stack([valuable(one, own.anchors, self.hp.region) for one in boxes]).split(cells, 1)
        terms = [self.level(own, theirs, number, one) for number, one in enumerate(region)]
        found = {name: torch.stack([term[name] for term in terms]).sum() for name in terms[0]}
        if self.hp.feature_weight:
            found["feature"] = self.features(own, theirs, boxes)
        return {"task": self.task.loss(out, batch), **found}

    def level(self, own: Dense, theirs: Dense, number: int, region: Tensor) -> dict[str, Tensor]:
        """The three terms of a level's answers, weighted; ``region``: (N, Q) of :func:`valuable`."""
        hp = self.hp
        assigned = own.assigned[number] >= 0
        scores, box = own.cls[number], own.box[number]
        gap = edge_divergence(box, theirs.box[number], own.bins, hp.edge_temperature)
        certainty = scores.detach().sigmoid().amax(-1)
        classes = divergence(scores, theirs.cls[number], hp.class_temperature)[assigned]
        return {
            "edges": hp.edge_weight / 4 * (gap * certainty * assigned).sum(),
            "region": hp.region_weight / 16 * (gap * region).sum(),
            "class": hp.class_weight * classes.sum() / max(1, len(classes)),
        }

    def features(self, own: Dense, theirs: Dense, boxes: Sequence[Tensor]) -> Tensor:
        """Mean squared difference of the pyramid over imitated cells, summed over levels and weighted."""
        cells = [len(level) for level in own.anchors]
        chosen: Sequence[Tensor] = ()
        if self.hp.imitation in REGIONS:
            of = REGIONS[self.hp.imitation]
            chosen = torch.stack([of(one, own.anchors) for one in boxes]).split(cells, 1)
        losses = []
        for number, (align, (s, t)) in enumerate(zip(self.levels, level_pairs(own.fpn, theirs.fpn), strict=True)):
            picked = chosen[number].flatten() if chosen else general_instances(own, theirs, number)
            picked = picked & (own.assigned[number] >= 0).any()  # as in the released code, nothing without positives
            losses.append(imitation(align(s), t, picked))
        return self.hp.feature_weight * torch.stack(losses).sum()
