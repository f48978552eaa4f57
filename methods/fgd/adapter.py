"""Focal and global distillation (Yang et al., CVPR 2022): the teacher's attention weighs what is inside and outside of
the objects, and a context of the whole picture is compared beside.

Shapes: N pictures, C channels, maps of h x w cells, M boxes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch
from kdbench.methods.shared.pyramids import Pairs, PyramidMethod, aligned


def spatial_attention(x: Tensor, temperature: float) -> Tensor:
    """(N, 1, h, w) of a map: softmax over cells of the mean magnitude, times their number."""
    cells = x.shape[2] * x.shape[3]
    logits = x.abs().mean(1, keepdim=True) / temperature
    return cells * logits.flatten(1).softmax(1).view_as(logits)


def channel_attention(x: Tensor, temperature: float) -> Tensor:
    """(N, C, 1, 1) of a map: softmax over channels of the mean magnitude, times their number."""
    return x.shape[1] * (x.abs().mean((2, 3), keepdim=True) / temperature).softmax(1)


def object_masks(boxes: Tensor, image: Tensor, sizes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weights of the cells of a level, each (N, h, w): inside objects, and outside of all of them.

    Inside, 1 over the cells of the smallest covering box; outside, 1 over the number of such cells. Both ends of a box
    count; what lies beyond the map is cut, its area is not.

    Args:
        boxes: (M, 4) xyxy in pixels, of pictures ``image`` (M,).
        sizes: (N, 2) height and width of each picture before padding.
        size: h, w.
    """
    h, w = size
    scale = sizes.to(boxes)[image].flip(1).repeat(1, 2)
    x1, y1, x2, y2 = (boxes / scale * boxes.new_tensor([w, h, w, h])).unbind(1)
    left, top, right, bottom = x1.floor(), y1.floor(), x2.ceil(), y2.ceil()
    value = 1 / ((bottom + 1 - top) * (right + 1 - left))
    rows, columns = (torch.arange(n, device=boxes.device, dtype=boxes.dtype) for n in (h, w))
    within_rows = (rows >= top[:, None]) & (rows <= bottom[:, None])
    within_columns = (columns >= left[:, None]) & (columns <= right[:, None])
    each = (within_rows[:, :, None] & within_columns[:, None, :]) * value[:, None, None]
    inside = boxes.new_zeros(len(sizes), h, w)
    inside = inside.scatter_reduce(0, image[:, None, None].expand_as(each), each, "amax")
    outside = (inside == 0).to(inside)
    return inside, outside / outside.sum((1, 2), keepdim=True).clamp_min(1)


class GlobalContext(nn.Module):
    """What of a whole picture is added to each of its cells: the block of GCNet (Cao et al. 2019).

    Args:
        channels: C, of the map and of what is added.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.mask = nn.Conv2d(channels, 1, 1)
        self.add = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.LayerNorm([inner, 1, 1]), nn.ReLU(), nn.Conv2d(inner, channels, 1)
        )
        nn.init.kaiming_normal_(self.mask.weight)
        nn.init.zeros_(self.mask.bias)  # type: ignore[arg-type]
        for parameter in self.add[3].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        share = self.mask(x).flatten(2).softmax(2)
        context = (x.flatten(2) * share).sum(2)[:, :, None, None]
        return x + self.add(context)


class Focus(NamedTuple):
    """Unweighted terms of a level, 0-d: inside objects, outside, attention, relation."""

    inside: Tensor
    outside: Tensor
    attention: Tensor
    relation: Tensor


def focal_terms(
    student: Tensor, teacher: Tensor, masks: tuple[Tensor, Tensor], temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Inside, outside and attention terms of a level, each 0-d: sums over channels and cells, mean over pictures.

    Args:
        student, teacher: (N, C, h, w) of one shape; the teacher's is a constant.
        masks: see :func:`object_masks`.
    """
    teacher = teacher.detach()
    where, which = spatial_attention(teacher, temperature), channel_attention(teacher, temperature)
    weighed = where * which * (student - teacher).square()
    inside, outside = ((mask[:, None] * weighed).sum() / len(student) for mask in masks)
    own = spatial_attention(student, temperature), channel_attention(student, temperature)
    attention = ((own[0] - where).abs().sum() + (own[1] - which).abs().sum()) / len(student)
    return inside, outside, attention


class FGDLevel(nn.Module):
    """The modules of one level and its terms.

    Args:
        student, teacher: maps of the level, for their channels.
    """

    def __init__(self, student: Tensor, teacher: Tensor) -> None:
        super().__init__()
        self.align = aligned(student, teacher)
        self.context_s, self.context_t = (GlobalContext(teacher.shape[1]) for _ in range(2))

    def forward(self, student: Tensor, teacher: Tensor, masks: tuple[Tensor, Tensor], temperature: float) -> Focus:
        student = self.align(student)
        inside, outside, attention = focal_terms(student, teacher, masks, temperature)
        relation = (self.context_s(student) - self.context_t(teacher)).square().sum() / len(student)
        return Focus(inside, outside, attention, relation)


class FGD(PyramidMethod):
    """The detector's loss, and focal, attention and global terms of the levels, each summed."""

    batch_needs = frozenset({"boxes"})

    def build(self, pairs: Pairs) -> None:
        self.levels = nn.ModuleList(FGDLevel(s, t) for s, t in pairs)

    def imitation(self, pairs: Pairs, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, y = self.hp, batch.y
        levels = []
        for own, (s, t) in zip(self.levels, pairs, strict=True):
            masks = object_masks(y.boxes.to(s), y.image, y.sizes, (s.shape[2], s.shape[3]))
            levels.append(own(s, t, masks, hp.temperature))
        summed = Focus(*(torch.stack(parts).sum() for parts in zip(*levels, strict=True)))
        return {
            "inside": hp.inside_weight * summed.inside,
            "outside": hp.outside_weight * summed.outside,
            "attention": hp.attention_weight * summed.attention,
            "relation": hp.relation_weight * summed.relation,
        }
