"""Faster and Mask R-CNN on torchvision's parts, called one by one: one pass gives pyramid, proposals, what the second
stage says of them, and the losses (Ren et al., arXiv 1506.01497; with a pyramid Lin et al., arXiv 1612.03144; masks He
et al., arXiv 1703.06870).

Inside, classes are counted from 1 and background is 0, as torchvision has it; what is returned counts from 0, and
background comes last. Which anchors and proposals the losses are of is drawn by a generator that the pixels of the
batch seed: neither a method beside it nor a stop of the run changes a draw, and networks of a step draw alike.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import MultiScaleRoIAlign

from kdbench.base.errors import UserError
from kdbench.base.seeds import generator
from kdbench.contract import Batch, Dense, Objects, Out
from kdbench.contract.dense import Later
from kdbench.models.parts import InParts
from kdbench.models.pyramid import Pyramid, pyramid

RATIOS = (0.5, 1.0, 2.0)
"""Height to width of a cell's anchors."""
POOLED, POOLED_MASK, SAMPLES = 7, 14, 2
"""Cells of a side of a pooled proposal, of one whose mask is told, and samples of a side of a cell."""
FIRST = {"fg_iou_thresh": 0.7, "bg_iou_thresh": 0.3, "nms_thresh": 0.7}
"""Overlaps of the first stage: of an object's anchors, of background, of proposals of which the lower is left out."""
SECOND = {"fg_iou_thresh": 0.5, "bg_iou_thresh": 0.5}
"""Overlaps from which and below which a proposal is an object's and background."""
MOST_BITS = 2**63 - 1
POSITIVE = (0.5, 0.25)
"""Largest share of objects' anchors, and proposals, among those drawn."""


class Sampler:
    """Draws of each picture as many rows as there are to be, at most a share of them positives.

    Args:
        rows: of a picture.
        share: of positives.

    Attributes:
        seed: of the next draw.
    """

    def __init__(self, rows: int, share: float) -> None:
        self.rows, self.most = rows, int(rows * share)
        self.seed = 0

    def __call__(self, labels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Which rows of each picture are drawn as positives and as negatives, of labels from 1, 0, and -1 for none."""
        rng = generator(labels[0].device, self.seed, "proposals", self.rows)
        found: tuple[list[Tensor], list[Tensor]] = ([], [])
        for own in labels:
            positive, negative = (torch.nonzero(which).squeeze(1) for which in (own >= 1, own == 0))
            kept = min(len(positive), self.most)
            for places, count, marked in zip((positive, negative), (kept, self.rows - kept), found, strict=True):
                drawn = torch.randperm(len(places), generator=rng, device=own.device)[:count]
                mask = torch.zeros(len(own), dtype=torch.bool, device=own.device)
                mask[places[drawn]] = True
                marked.append(mask)
        return found


def seed_of(x: Tensor) -> int:
    """A number that the pixels of a batch decide: their sum's bits."""
    bits = x.detach().double().sum().view(torch.int64)
    return int(bits) & MOST_BITS


class Stages(nn.Module):
    """Both stages of the head; the second takes levels of the pyramid that read the backbone.

    Args:
        of: backbone and pyramid.
        channels: of the pyramid.
        classes: without background.
        scale: side of anchors, in strides.
        proposals: of a picture that the second stage looks at; in training twice as many are drawn from.
        rows: proposals that are drawn for its loss, and twice the anchors drawn for the first stage's.
        width: of the second stage's two layers.
        blocks: convolutions of the part that tells masks; 0 for none such.
    """

    def __init__(
        self, of: Pyramid, channels: int, classes: int, scale: int, proposals: int, rows: int, width: int, blocks: int
    ) -> None:
        super().__init__()
        anchors = AnchorGenerator(tuple((stride * scale,) for stride in of.strides), (RATIOS,) * len(of.strides))
        most = {"training": 2 * proposals, "testing": proposals}
        self.rpn: Any = RegionProposalNetwork(
            anchors, RPNHead(channels, len(RATIOS)), **FIRST, batch_size_per_image=rows // 2,
            positive_fraction=POSITIVE[0], pre_nms_top_n=most, post_nms_top_n=most,
        )  # fmt: skip
        levels = [str(level) for level in range(len(of.reads))]
        self.roi: Any = RoIHeads(
            MultiScaleRoIAlign(levels, POOLED, SAMPLES), TwoMLPHead(channels * POOLED**2, width),
            FastRCNNPredictor(width, classes + 1), **SECOND, batch_size_per_image=rows,
            positive_fraction=POSITIVE[1], bbox_reg_weights=None, score_thresh=0.0, nms_thresh=1.0,
            detections_per_img=1,
        )  # fmt: skip
        self.rpn.fg_bg_sampler = Sampler(rows // 2, POSITIVE[0])
        self.roi.fg_bg_sampler = Sampler(rows, POSITIVE[1])
        self.masks: Any = None
        if blocks:
            head = MaskRCNNHeads(channels, (channels,) * blocks, 1)
            self.masks = nn.Sequential(head, MaskRCNNPredictor(channels, channels, classes + 1))
            self.mask_pool = MultiScaleRoIAlign(levels, POOLED_MASK, SAMPLES)


class TwoStageDetector(InParts):
    """Backbone, pyramid, proposals, and a head that classifies and moves them.

    Args:
        of: backbone and pyramid.
        head: both stages.
    """

    parts = ("body", "neck", "head")

    def __init__(self, of: Pyramid, head: Stages) -> None:
        super().__init__(of.body)
        self.neck = of.neck
        self.head: Any = head
        self._reads, self._strides = of.reads, of.strides

    def forward(self, batch: Batch) -> Out:
        x, y = batch.x[self.input], batch.y if isinstance(batch.y, Objects) else None
        if self.autocast is None:
            return self._answers(x, y)
        with torch.autocast(x.device.type, self.autocast):
            return self._answers(x, y).float()

    def encode(self, x: Tensor) -> Out:
        return self._answers(x, None)

    def _answers(self, x: Tensor, y: Objects | None) -> Out:
        stages = self.body(x)
        fpn = self.neck([stages.maps[stage] for stage in self._reads])
        dense = Dense(fpn, tuple(self.reduced * stride for stride in self._strides), decode=self._decoded)
        if not self.sparing or self.asked & {"proposals", "roi", "roi_box", "roi_labels"}:
            dense = self._headed(x, dense, y)
        return Out(None, stages.maps, stages.preact, stages.stem, dense=dense)

    def _headed(self, x: Tensor, dense: Dense, y: Objects | None) -> Dense:
        """With what both stages say, and the losses where there are objects."""
        size = (x.shape[-2], x.shape[-1])
        first = _First(self.head.rpn, x, dense.fpn, self.reduced)
        self.head.roi.fg_bg_sampler.seed = first.seed
        proposals: list[Tensor] = [p.detach() for p in first.proposals(size)]
        found: dict[str, Any] = {}
        second: Any = None
        if y is not None and self.training:
            targets = _targets(y)
            proposals, second = self._sampled(proposals, targets)
            found["roi_labels"] = torch.cat(second.labels)
        elif y is not None and "roi_labels" in self.asked:
            given = _targets(y)
            _, labels = self.head.roi.assign_targets_to_proposals(
                proposals, [one["boxes"] for one in given], [one["labels"] for one in given]
            )
            found["roi_labels"] = torch.cat(labels)
        if not self.sparing or self.training or self.asked & {"roi", "roi_box"}:
            logits, boxes = self._second(dense.fpn, proposals, size)
            found |= {"roi": logits.roll(-1, 1), "roi_box": boxes.unflatten(1, (-1, 4))[:, 1:]}
            if self.head.masks is not None:
                found["masks"] = functools.partial(self._masked, dense.fpn, size)
        if "roi_labels" in found:
            background = self.head.roi.box_predictor.cls_score.out_features - 1
            labels = found["roi_labels"]
            found["roi_labels"] = torch.where(labels > 0, labels - 1, background)
        if y is not None and not self.sparing:
            found["losses"] = Later(lambda: self._losses(first, proposals, second, dense.fpn, size, y, found))
        return dense._replace(proposals=tuple(proposals), **found)

    def _sampled(self, proposals: list[Tensor], targets: list[dict[str, Tensor]]) -> tuple[list[Tensor], _Second]:
        """Proposals drawn for the loss, the objects among them, and what they are of."""
        chosen, matched, labels, wanted = self.head.roi.select_training_samples(proposals, targets)
        return chosen, _Second(matched, labels, wanted)

    def _second(self, fpn: Sequence[Tensor], proposals: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """(R, K + 1) logits and (R, 4 K + 4) raw regression, background first."""
        levels = {str(level): x.float() for level, x in enumerate(fpn[: len(self._reads)])}
        pooled = self.head.roi.box_roi_pool(levels, self._seen(proposals), [size] * len(proposals))
        logits, boxes = self.head.roi.box_predictor(self.head.roi.box_head(pooled))
        return logits, boxes

    def _seen(self, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Boxes in pixels of the input."""
        return [one / self.reduced for one in boxes]

    def _mask_logits(self, fpn: Sequence[Tensor], boxes: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """(D, K + 1, m, m) logits of what lies in boxes, background first."""
        levels = {str(level): x.float() for level, x in enumerate(fpn[: len(self._reads)])}
        pooled = self.head.mask_pool(levels, self._seen(boxes), [size] * len(boxes))
        found: Tensor = self.head.masks(pooled).float()
        return found

    def _masked(
        self, fpn: Sequence[Tensor], size: tuple[int, int], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[Tensor]:
        """As ``Dense.masks``."""
        logits = self._mask_logits(fpn, boxes, size)
        return [one.squeeze(1) for one in maskrcnn_inference(logits, [own + 1 for own in labels])]

    def _mask_loss(
        self, fpn: Sequence[Tensor], size: tuple[int, int], proposals: Sequence[Tensor], second: _Second,
        targets: list[dict[str, Tensor]],
    ) -> Tensor:  # fmt: skip
        """Of the proposals that hold an object."""
        own = [torch.nonzero(labels > 0).squeeze(1) for labels in second.labels]
        boxes = [one[which] for one, which in zip(proposals, own, strict=True)]
        matched = [one[which] for one, which in zip(second.matched, own, strict=True)]
        logits = self._mask_logits(fpn, boxes, size)
        if not len(logits):
            return logits.sum() * 0
        some = [place for place, one in enumerate(boxes) if len(one)]
        shapes, labels = ([targets[place][name] for place in some] for name in ("masks", "labels"))
        found: Tensor = maskrcnn_loss(
            logits, [boxes[place] for place in some], shapes, labels, [matched[place] for place in some]
        )
        return found

    def _losses(
        self, first: _First, proposals: list[Tensor], second: _Second | None, fpn: Sequence[Tensor],
        size: tuple[int, int], y: Objects, said: dict[str, Any],
    ) -> dict[str, Tensor]:  # fmt: skip
        """Both stages' terms; of a network in eval mode those of proposals drawn now."""
        masked = self.head.masks is not None and y.masks is not None
        targets = _targets(y, masked)
        if second is None:
            self.head.roi.fg_bg_sampler.seed = first.seed
            proposals, second = self._sampled(proposals, targets)
            logits, boxes = self._second(fpn, proposals, size)
        else:
            logits, boxes = said["roi"].roll(1, 1), said["roi_box"].flatten(1)
            boxes = torch.cat([boxes.new_zeros(len(boxes), 4), boxes], 1)  # of background, which nothing reads
        classes, moved = fastrcnn_loss(logits, boxes, second.labels, second.wanted)
        terms = {**first.losses(targets), "loss_classifier": classes, "loss_box_reg": moved}
        if masked:
            terms["loss_mask"] = self._mask_loss(fpn, size, proposals, second, targets)
        return terms

    def _decoded(self, box: Tensor, anchors: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(box.shape, anchors.shape)
        flat = (one.expand(shape).reshape(-1, 4) for one in (box, anchors.to(box.dtype)))
        found: Tensor = self.head.roi.box_coder.decode_single(*flat).reshape(shape)
        return found

    def roi_head(self, fpn: Sequence[Tensor], proposals: Sequence[Tensor]) -> Tensor:
        # The pyramid's finest level tells the size of the input, of which the pooling needs the scale alone.
        size = (fpn[0].shape[-2] * self._strides[0], fpn[0].shape[-1] * self._strides[0])
        if self.autocast is None:
            return self._second(fpn, proposals, size)[0].roll(-1, 1)
        with torch.autocast(fpn[0].device.type, self.autocast):
            return self._second(fpn, proposals, size)[0].roll(-1, 1).float()


class _Second:
    """What the drawn proposals of each picture are of: numbers of objects, classes from 1, wanted regression."""

    def __init__(self, matched: list[Tensor], labels: list[Tensor], wanted: list[Tensor]) -> None:
        self.matched, self.labels, self.wanted = matched, labels, wanted


class _First:
    """What the first stage says of a batch; ``reduced`` as of a network."""

    def __init__(self, rpn: Any, x: Tensor, fpn: Sequence[Tensor], reduced: int) -> None:
        self._rpn, self.seed = rpn, seed_of(x)
        scores, deltas = rpn.head(list(fpn))
        self._cells = [one[0].numel() for one in scores]
        floats = [level.float() for level in fpn]
        anchors = rpn.anchor_generator(ImageList(x, [tuple(x.shape[-2:])] * len(x)), floats)
        self._reduced, self._anchors = reduced, [one * reduced for one in anchors]
        self._scores, self._deltas = concat_box_prediction_layers(
            [one.float() for one in scores], [one.float() for one in deltas]
        )

    def proposals(self, size: tuple[int, int]) -> list[Tensor]:
        """Of each picture; ``size`` is that of the input."""
        pictures, whole = len(self._anchors), (size[0] * self._reduced, size[1] * self._reduced)
        boxes = self._rpn.box_coder.decode(self._deltas.detach(), self._anchors).view(pictures, -1, 4)
        found: list[Tensor] = self._rpn.filter_proposals(boxes, self._scores, [whole] * pictures, self._cells)[0]
        return found

    def losses(self, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        labels, boxes = self._rpn.assign_targets_to_anchors(self._anchors, targets)
        wanted = self._rpn.box_coder.encode(boxes, self._anchors)
        self._rpn.fg_bg_sampler.seed = self.seed
        scores, moved = self._rpn.compute_loss(self._scores, self._deltas, labels, wanted)
        return {"loss_objectness": scores, "loss_rpn_box_reg": moved}


def _targets(y: Objects, masks: bool = False) -> list[dict[str, Tensor]]:
    """Objects of each picture with classes from 1, in an order of their own, so that none of them is drawn for its
    place."""
    found = []
    for one in y.listed(masks):
        order = torch.arange(len(one["labels"]), device=one["labels"].device)
        for key in (one["labels"], *one["boxes"].unbind(1)):
            order = order[key[order].argsort(stable=True)]
        ordered = {name: held[order] for name, held in one.items()}
        found.append({**ordered, "labels": ordered["labels"] + 1})
    return found


def build(
    input_shape: tuple[int, ...],
    outputs: int,
    net: str,
    channels: int = 256,
    finest: int = 4,
    coarsest: int = 64,
    scale: int = 8,
    proposals: int = 1000,
    rows: int = 512,
    width: int = 1024,
    blocks: int = 0,
) -> TwoStageDetector:
    """A detector of two stages.

    Args:
        outputs: classes, background apart.
        net: the name of the backbone.
        channels: of the pyramid.
        finest, coarsest: strides of the first and the last level.
        scale, proposals, rows, width, blocks: as of :class:`Stages`.

    Raises:
        UserError: the backbone cannot carry such a pyramid.
    """
    if finest < 2:
        raise UserError("a detector's finest level has stride 2 or more: anchors of an odd number of pixels are none")
    if rows < 4:
        raise UserError(f"a detector of two stages draws 4 rows of a picture or more, r{rows} asks for {rows}")
    made = pyramid(net, input_shape, channels, finest, coarsest, picked=True)
    return TwoStageDetector(made, Stages(made, channels, outputs, scale, proposals, rows, width, blocks))
