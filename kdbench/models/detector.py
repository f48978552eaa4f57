"""One-stage detectors on torchvision's parts, called one by one: one pass gives pyramid, head, assignment and loss.

FCOS: Tian et al., arXiv 2006.09214. RetinaNet: Lin et al., arXiv 1708.02002. Heads, losses and anchors are those of
``torchvision.models.detection``; its resizing of pictures, its selection of detections and its lists are not used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxLinearCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou

from kdbench.base.errors import UserError
from kdbench.contract import Batch, Dense, NotApplicable, Objects, Out
from kdbench.contract.dense import Later
from kdbench.contract.network import HeadFrom
from kdbench.models.parts import InParts
from kdbench.models.pyramid import Pyramid, pyramid

CENTRE_RADIUS = 1.5
"""Of FCOS's centre sampling, in strides."""
FOREGROUND, BACKGROUND = 0.5, 0.4
"""Overlaps of RetinaNet's anchors with an object, from which and below which they are its own and background."""
LARGEST = math.log(1000 / 16)
"""Of the logarithm by which RetinaNet's boxes differ from their anchors."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Of 32 groups, as the papers' 256 channels have it, or of fewer where a group would hold less than 4 channels."""
    return nn.GroupNorm(math.gcd(channels, max(1, min(32, channels // 4))), channels)


class Detector(InParts):
    """Backbone, pyramid, and a head of two branches shared by all levels.

    Args:
        of: backbone and pyramid.
        head: torchvision's.
        anchors: sides of a cell's anchors, of each level, and their ratios of height to width.
    """

    def __init__(self, of: Pyramid, head: Any, sides: Sequence[Sequence[float]], ratios: Sequence[float]) -> None:
        super().__init__(of.body)
        self.neck = of.neck
        self.head: Any = head
        self._reads, self._strides = of.reads, of.strides
        self._anchors = AnchorGenerator(tuple(map(tuple, sides)), (tuple(ratios),) * len(sides))
        self._known: tuple[Any, list[Tensor]] | None = None
        one, other = head.classification_head, head.regression_head
        self._branches = (_blocks(one.conv), _blocks(other.conv))  # no modules of its own: they are the head's

    # What subclasses say

    parts = ("body", "neck", "head")
    quality = False
    offset = 0.0
    """Of an anchor's centre from its cell's corner, in strides."""
    numbers = Objects.WIDTH
    """Of a box that it answers with."""
    bins: tuple[tuple[float, ...], ...] = ()
    """What the bins of a box's distributions stand for, see :class:`Dense`."""

    def regression(self, features: Tensor) -> tuple[Tensor, ...]:
        """Maps of a level's box branch: raw regression and, with ``quality``, how well it fits."""
        raise NotImplementedError

    def decode(self, box: Tensor, anchors: Tensor) -> Tensor:
        """Raw regression as boxes, see :class:`Dense`."""
        raise NotImplementedError

    def matched(self, boxes: Tensor, anchors: list[Tensor]) -> Tensor:
        """Of the anchors of all levels the number of one picture's object, -1 for background, -2 for neither."""
        raise NotImplementedError

    # The network

    def forward(self, batch: Batch) -> Out:
        x = batch.x[self.input]
        if self.autocast is None:
            out = self.encode(x)
        else:
            with torch.autocast(x.device.type, self.autocast):
                out = self.encode(x).float()
        wanted = not self.sparing
        if not isinstance(batch.y, Objects) or not (wanted or "assigned" in self.asked):
            return out
        return out._replace(dense=self._assigned(out.dense, batch.y, losses=wanted))

    def encode(self, x: Tensor) -> Out:
        stages = self.body(x)
        fpn = self.neck([stages.maps[stage] for stage in self._reads])
        dense = Dense(fpn, self.strides, decode=self.decode, bins=self.bins)
        everything = not self.sparing
        taps = sorted(int(word.removeprefix("taps:")) for word in self.asked if word.startswith("taps:"))
        classes = everything or "cls" in self.asked
        boxes = everything or bool(self.asked & {"box", "quality"})
        found: dict[str, Any] = {}
        if classes or boxes or taps:
            runs = [self._run(fpn, branch, full, taps) for branch, full in zip((0, 1), (classes, boxes), strict=True)]
            (class_features, class_taps), (box_features, box_taps) = runs
            found["taps"] = {
                block: tuple(zip(class_taps[block], box_taps[block], strict=True))
                for block in taps
                if block in class_taps and block in box_taps
            }
            if classes:
                found["cls"] = tuple(self._flat(self.head.classification_head.cls_logits(f), 0) for f in class_features)
            if boxes:
                regressed = [self.regression(f) for f in box_features]
                found["box"] = tuple(self._flat(one[0], self.width) for one in regressed)
                if self.quality:
                    found["quality"] = tuple(self._flat(one[1], 1).squeeze(2) for one in regressed)
        if classes or boxes or self.asked & {"anchors", "assigned"}:
            found["anchors"] = tuple(self._anchors_of(x, fpn))
        return Out(None, stages.maps, stages.preact, stages.stem, dense=dense._replace(**found))

    def _run(
        self, fpn: Sequence[Tensor], branch: int, full: bool, taps: Collection[int]
    ) -> tuple[list[Tensor], dict[int, list[Tensor]]]:
        """A branch's features of each level behind its last block, and before the activation of some blocks."""
        blocks = self._branches[branch]
        last = len(blocks) if full else min(len(blocks), max(taps, default=0))
        features, kept = list(fpn), {0: list(fpn)} if 0 in taps else {}
        for number, block in enumerate(blocks[:last], start=1):
            features = [block(f) for f in features]
            if number in taps:
                kept[number] = features
            features = [f.relu() for f in features]
        return features, kept

    @property
    def strides(self) -> tuple[int, ...]:
        """As of :class:`Dense`."""
        return tuple(self.reduced * stride for stride in self._strides)

    @property
    def width(self) -> int:
        """Numbers of a raw regression."""
        return sum(map(len, self.bins)) or 4

    def _flat(self, x: Tensor, width: int) -> Tensor:
        """(N, A * W, h, w) as (N, h * w * A, W); W is the number of classes where ``width`` is 0."""
        n, _, h, w = x.shape
        width = width or self.head.classification_head.num_classes
        return x.view(n, -1, width, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, width)

    def _anchors_of(self, x: Tensor, fpn: Sequence[Tensor]) -> list[Tensor]:
        """Anchors of each level, made once for pictures of a size."""
        key = (tuple(x.shape[-2:]), x.device, self.reduced)
        if self._known is None or self._known[0] != key:
            floats = [f.float() for f in fpn]
            (whole,) = self._anchors(ImageList(x, [tuple(x.shape[-2:])]), floats)
            cells = [f.shape[-2] * f.shape[-1] for f in fpn]
            each = len(whole) // sum(cells)
            levels = whole.split([count * each for count in cells])
            own = zip(levels, self._strides, strict=True)
            self._known = (key, [(a + self.offset * stride) * self.reduced for a, stride in own])
        return self._known[1]

    def _assigned(self, dense: Dense, y: Objects, losses: bool) -> Dense:
        """With the losses of a batch's objects, and the assignment that they follow from where it is asked for."""
        if self.numbers != (given := y.WIDTH):
            theirs, ours = ("turned", "not") if given > self.numbers else ("not turned", "turned")
            raise NotApplicable(f"the targets' boxes are {theirs}, those of a {type(self).__name__} are {ours}")
        own = y if y.ignore is None else y.keep(~y.ignore)
        targets, anchors = own.listed(), list(dense.anchors)

        @functools.cache
        def matched() -> list[Tensor]:
            return [self.matched(target["boxes"], anchors) for target in targets]

        def terms() -> dict[str, Tensor]:
            outputs = {"cls_logits": torch.cat(dense.cls, 1), "bbox_regression": torch.cat(dense.box, 1)}
            if self.quality:
                outputs["bbox_ctrness"] = torch.cat(dense.quality, 1)[..., None]
            every = [torch.cat(anchors)] * len(targets)
            found: dict[str, Tensor] = self.head.compute_loss(targets, outputs, every, matched())
            return found

        found: dict[str, Any] = {"losses": Later(terms)} if losses else {}
        if "assigned" in self.asked:
            begins = own.counts.cumsum(0) - own.counts
            numbers = torch.stack([m + (m >= 0) * begin for m, begin in zip(matched(), begins, strict=True)])
            if y.ignore is not None:  # numbers of what is packed, the ignored among it
                places = torch.cat([torch.nonzero(~y.ignore).squeeze(1), numbers.new_zeros(1)])
                numbers = torch.where(numbers >= 0, places[numbers.clamp(min=0)], numbers)
            found["assigned"] = numbers.split([len(level) for level in anchors], 1)
        return dense._replace(**found)

    # What it offers

    def head_from(self, block: int) -> HeadFrom:
        if not 0 <= block <= len(self._branches[0]):
            raise NotApplicable(f"its head has {len(self._branches[0])} blocks, and none of number {block}")

        def rest(features: Sequence[Tensor], branch: int) -> list[Tensor]:
            found = [f.relu() if block else f for f in features]
            for one in self._branches[branch][block:]:
                found = [one(f).relu() for f in found]
            return found

        def head(classes: Sequence[Tensor], boxes: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
            cls = tuple(self._flat(self.head.classification_head.cls_logits(f), 0) for f in rest(classes, 0))
            return cls, tuple(self._flat(self.regression(f)[0], self.width) for f in rest(boxes, 1))

        return head


def _blocks(conv: nn.Sequential) -> list[nn.Sequential]:
    """A branch's blocks without their activations: of nested blocks, or of layers in a row."""
    layers = [layer for one in conv for layer in (one if isinstance(one, nn.Sequential) else [one])]
    blocks: list[list[nn.Module]] = []
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            blocks.append([])
        if not isinstance(layer, nn.ReLU):
            blocks[-1].append(layer)
    return [nn.Sequential(*block) for block in blocks]


class FCOSDetector(Detector):
    """FCOS: one point a cell, distances to the edges in strides, centre-ness beside the boxes."""

    quality = True

    def __init__(self, of: Pyramid, channels: int, classes: int, depth: int) -> None:
        head = FCOSHead(32, 1, classes, 1)  # its branches, of groups for 32 channels at least, are replaced
        head.classification_head = FCOSClassificationHead(channels, 1, classes, depth, norm_layer=group_norm)
        head.regression_head = FCOSRegressionHead(channels, 1, depth, norm_layer=group_norm)
        super().__init__(of, head, [[stride] for stride in of.strides], [1.0])
        self._coder = BoxLinearCoder(normalize_by_size=True)

    def regression(self, features: Tensor) -> tuple[Tensor, ...]:
        head = self.head.regression_head
        return head.bbox_reg(features).relu(), head.bbox_ctrness(features)

    def decode(self, box: Tensor, anchors: Tensor) -> Tensor:
        return self._coder.decode(box, anchors)

    def matched(self, boxes: Tensor, anchors: list[Tensor]) -> Tensor:
        """The smallest object that holds the point near its own centre and whose reach fits the level's range."""
        points = torch.cat(anchors)
        if not len(boxes):
            return torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
        sides = points[:, 2] - points[:, 0]
        at = (points[:, :2] + points[:, 2:]) / 2
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        near = (at[:, None] - middle).abs().amax(2) < CENTRE_RADIUS * sides[:, None]
        reach = torch.cat([at[:, None] - boxes[:, :2], boxes[:, 2:] - at[:, None]], 2)
        low, high = sides * 4, sides * 8
        low[: len(anchors[0])] = 0
        high[-len(anchors[-1]) :] = math.inf
        most = reach.amax(2)
        fits = near & (reach.amin(2) > 0) & (most > low[:, None]) & (most < high[:, None])
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).where(fits, math.inf)
        smallest, number = areas.min(1)
        return torch.where(smallest.isinf(), -1, number)


class RetinaNetDetector(Detector):
    """RetinaNet: several anchors a cell, each an offset, with focal loss; branches with group norms.

    Args:
        scale: side of the smallest anchor, in strides.
    """

    SIDES = tuple(2 ** (third / 3) for third in range(3))
    RATIOS = (0.5, 1.0, 2.0)

    def __init__(self, of: Pyramid, channels: int, classes: int, depth: int, scale: int) -> None:
        head = RetinaNetHead(channels, len(self.SIDES) * len(self.RATIOS), classes, norm_layer=group_norm)
        for branch in (head.classification_head, head.regression_head):
            branch.conv = branch.conv[:depth]
        sides = [[stride * scale * side for side in self.SIDES] for stride in of.strides]
        super().__init__(of, head, sides, self.RATIOS)
        self._matcher = Matcher(FOREGROUND, BACKGROUND, allow_low_quality_matches=True)

    def regression(self, features: Tensor) -> tuple[Tensor, ...]:
        return (self.head.regression_head.bbox_reg(features),)

    def decode(self, box: Tensor, anchors: Tensor) -> Tensor:
        anchors = anchors.to(box.dtype)
        sides = anchors[..., 2:] - anchors[..., :2]
        middle = box[..., :2] * sides + anchors[..., :2] + sides / 2
        half = box[..., 2:].clamp(max=LARGEST).exp() * sides / 2
        return torch.cat([middle - half, middle + half], -1)

    def matched(self, boxes: Tensor, anchors: list[Tensor]) -> Tensor:
        """The object that an anchor overlaps most, where that is enough; every object has its best anchors."""
        every = torch.cat(anchors)
        if not len(boxes):
            return torch.full((len(every),), -1, dtype=torch.int64, device=every.device)
        return self._matcher(box_iou(boxes, every))


DEEPEST = 4
"""Blocks of a branch."""


def build(
    input_shape: tuple[int, ...],
    outputs: int,
    detector: str,
    net: str,
    channels: int = 256,
    finest: int = 8,
    coarsest: int = 128,
    depth: int = 4,
    scale: int = 4,
) -> Detector:
    """A detector.

    Args:
        outputs: classes.
        net: the name of the backbone.
        channels: of the pyramid and the head.
        finest, coarsest: strides of the first and the last level.
        depth: blocks of each branch of the head.
        scale: side of RetinaNet's smallest anchors, in strides.

    Raises:
        UserError: the backbone cannot carry such a pyramid, or the head is too deep.
    """
    if not 1 <= depth <= DEEPEST:
        raise UserError(f"a detector's head has 1 to {DEEPEST} blocks, h{depth} asks for {depth}")
    if finest < 2:
        raise UserError("a detector's finest level has stride 2 or more: anchors of an odd number of pixels are none")
    made = pyramid(net, input_shape, channels, finest, coarsest)
    if detector == "fcos":
        return FCOSDetector(made, channels, outputs, depth)
    if detector == "gfl":
        from kdbench.models.gfl import GFLDetector  # built on this module

        return GFLDetector(made, channels, outputs, depth)
    if detector == "obb":
        from kdbench.models.obb import OrientedDetector  # built on this module

        return OrientedDetector(made, channels, outputs, depth)
    return RetinaNetDetector(made, channels, outputs, depth, scale)
