"""Decoupled features (Guo et al., CVPR 2021): pyramid levels are imitated inside and outside of objects apart, and so
are class scores of proposals that hold an object and of those that do not.

Shapes: N pictures, C channels, levels of h x w cells, M boxes, R proposals, K classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Needs
from kdbench.methods.shared.logits import row_divergence
from kdbench.methods.shared.pyramids import ACROSS_ROWS, Pairs, PyramidMethod, proposed

SLACK = 1e-6
"""Added to the size of a box in units of the finest level's, as the official code does."""
STARTS = 1e-4
"""Of the adaptation's first weights, in units of a normal deviate that is cut at 2."""


def levels_of(boxes: Tensor, levels: int, smallest: float) -> Tensor:
    """(M,) int64, the level of each box: each twice the size of the one before, the first below twice ``smallest``.

    Args:
        boxes: (M, 4) x0, y0, x1, y1 in pixels.
        smallest: pixels, the root of an area from which the first level's octave begins.
    """
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return ((sides.prod(1).sqrt() / smallest + SLACK).log2().floor()).clamp(0, levels - 1).long()


def own_cells(boxes: Tensor, image: Tensor, rows: int, size: tuple[int, int], stride: int) -> Tensor:
    """(N, h, w) 1 at the cells of a level inside its boxes, 0 elsewhere.

    A box that ends in the row or column of cells it begins in has its first cell alone.

    Args:
        boxes: (M, 4), those of the level, in pixels, of pictures ``image`` (M,).
        rows: N.
        size: h, w.
    """
    limits = boxes.new_tensor([size[1], size[0]])
    low = (boxes[:, :2] / stride).trunc().minimum(limits - 1)
    high = (boxes[:, 2:] / stride).trunc().minimum(limits)
    high = torch.where((high > low).all(1, keepdim=True), high, low + 1)  # else the first cell alone
    inside = []
    for axis, cells in ((1, size[0]), (0, size[1])):
        place = torch.arange(cells, device=boxes.device, dtype=boxes.dtype)
        inside.append((place >= low[:, axis : axis + 1]) & (place < high[:, axis : axis + 1]))
    each = (inside[0][:, :, None] & inside[1][:, None, :]).to(boxes)
    return boxes.new_zeros(rows, *size).scatter_reduce(0, image[:, None, None].expand_as(each), each, "amax")


def masked_gap(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """sum M (S - T)^2 / max(1, 2 C sum M), 0-d.

    Args:
        student, teacher: (N, C, h, w) of one shape; the teacher's is a constant.
        mask: (N, h, w), M.
    """
    gap = (mask[:, None] * (student - teacher.detach()).square()).sum()
    return gap / (2 * student.shape[1] * mask.sum()).clamp_min(1)


def mean_divergence(student: Tensor, teacher: Tensor, which: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean divergence of the (R, K + 1) logits of some proposals, 0-d; 0 where there are none.

    Args:
        which: (R,) bool.
    """
    return (row_divergence(student, teacher, temperature) * which).sum() / which.sum().clamp_min(1)


class DeFeat(PyramidMethod):
    """The detector's loss, and the decoupled terms of the levels and, where they have a weight, of the proposals."""

    batch_needs = frozenset({"boxes"})
    one_process = ACROSS_ROWS

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        pyramids = super().needs(hp)
        if not _of_head(hp):
            return pyramids
        own, theirs = frozenset({"proposals", "roi", "roi_labels"}), frozenset({"roi_head"})
        return replace(pyramids, student=pyramids.student | own, teacher=pyramids.teacher | theirs)

    def build(self, pairs: Pairs) -> None:
        self.adapt = nn.ModuleList(nn.Conv2d(s.shape[1], t.shape[1], 3, padding=1) for s, t in pairs)
        for conv in self.adapt:
            nn.init.trunc_normal_(conv.weight, std=1.0, a=-2.0, b=2.0)  # type: ignore[arg-type]
            with torch.no_grad():
                conv.weight.mul_(STARTS)  # type: ignore[operator]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def imitation(self, pairs: Pairs, batch: Batch, at: At) -> dict[str, Tensor]:
        """Terms of the levels."""
        hp, y = self.hp, batch.y
        boxes = y.boxes.to(pairs[0][0])
        level = levels_of(boxes, len(pairs), hp.smallest)
        gaps: tuple[list[Tensor], list[Tensor]] = ([], [])
        for number, (adapt, (s, t)) in enumerate(zip(self.adapt, pairs, strict=True)):
            own = level == number
            mask = own_cells(boxes[own], y.image[own], len(s), (s.shape[2], s.shape[3]), self._strides[number])
            adapted = adapt(s)
            for found, cells in zip(gaps, (mask, 1 - mask), strict=True):
                found.append(masked_gap(adapted, t, cells))
        inside, outside = (self._decay(at) * torch.stack(found).mean() for found in gaps)
        return {"neck": hp.neck_weight * inside, "neck_back": hp.neck_back_weight * outside}

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        pairs = self.pairs(out, target)
        paired = {id(s) for s, _ in pairs}
        levels = zip(out.dense.fpn, out.dense.strides, strict=True)
        self._strides = [stride for level, stride in levels if id(level) in paired]
        terms = {"task": self.task.loss(out, batch), **self.imitation(pairs, batch, at)}
        if _of_head(hp):
            own, theirs = proposed(out, target, self.teacher)
            objects = out.dense.roi_labels < own.shape[1] - 1
            for name, which in (("head", objects), ("head_back", ~objects)):
                weight = self._decay(at) * getattr(hp, f"{name}_weight")
                terms[name] = weight * mean_divergence(own, theirs, which, hp.temperature)
        return terms

    def _decay(self, at: At) -> float:
        """Of all terms."""
        return 1 - at.epoch / at.epochs if self.hp.decay == "linear" and at.epochs else 1.0


def _of_head(hp: Any) -> bool:
    """Whether proposals are read: those that the student's loss is of, on which the teacher's head runs too."""
    return bool(hp.head_weight or hp.head_back_weight)
