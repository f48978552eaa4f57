"""Targets of pictures that hold objects: boxes and classes of any number a picture, packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kdbench.contract.maps import cut
from kdbench.contract.targets import Kept, picked

LEAST_SHARE, LEAST_SIDE = 0.4, 2.0
"""Share of an object's area and pixels of its sides that a window must show; it is left out otherwise."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of N pictures, those of one picture after those of the one before; a picture may have none.

    Attributes:
        boxes: (M, 4) float32 x0, y0, x1, y1 in pixels of the network's input.
        labels: (M,) int64 classes, 0 to C - 1.
        counts: (N,) int64, how many objects each picture has; M is their sum.
        sizes: (N, 2) float32 height and width of each picture in pixels of the network's input, padding left out.
        ignore: (M,) bool, True for what is neither target nor error (COCO's crowds); None where there is no such.
        area: (M,) float32 area in pixels of the picture as it came, None where boxes are all that is known.
        origin: (N, 2) float32 height and width of each picture as it came, None where they are ``sizes``.
        masks: (N, L, H, W) int16 in pixels of the network's input, 1 + the number of an object within its picture where
            it is, 0 elsewhere; L layers, for objects that overlap. None where boxes are all that is known. Those of a
            data set may be :class:`Kept`; a batch holds a tensor.
    """

    boxes: Tensor
    labels: Tensor
    counts: Tensor
    sizes: Tensor
    ignore: Tensor | None = None
    area: Tensor | None = None
    origin: Tensor | None = None
    masks: Tensor | Kept | None = None

    WIDTH = 4
    """Numbers of a box."""

    def __post_init__(self) -> None:
        for name, rows in (("boxes", len(self.labels)), *((n, len(self.boxes)) for n in ("labels", "ignore", "area"))):
            held = getattr(self, name)
            if held is not None and len(held) != rows:
                raise ValueError(f"{name} are {len(held)}, the other fields are of {rows} objects")
        for name in ("sizes", "origin", "masks"):
            held = getattr(self, name)
            if held is not None and len(held) != len(self.counts):
                raise ValueError(f"{name} are {len(held)}, counts are of {len(self.counts)} pictures")

    @classmethod
    def of(cls, pictures: Sequence[Sequence[Sequence[float]]], size: tuple[int, int]) -> Objects:
        """From one list a picture of ``[class, x0, y0, x1, y1]``; all pictures of one (height, width)."""
        flat = [entry for picture in pictures for entry in picture]
        boxes = torch.tensor([entry[1:] for entry in flat], dtype=torch.float32).reshape(-1, cls.WIDTH)
        labels = torch.tensor([int(entry[0]) for entry in flat], dtype=torch.int64)
        counts = torch.tensor([len(picture) for picture in pictures], dtype=torch.int64)
        return cls(boxes, labels, counts, torch.tensor(size, dtype=torch.float32).repeat(len(pictures), 1))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor | slice) -> Objects:
        places, counts = picked(self.counts, index)
        return replace(
            self,
            boxes=self.boxes[places],
            labels=self.labels[places],
            counts=counts,
            sizes=self.sizes[index],
            ignore=None if self.ignore is None else self.ignore[places],
            area=None if self.area is None else self.area[places],
            origin=None if self.origin is None else self.origin[index],
            masks=None if self.masks is None else self.masks[index].to(self.counts.device),
        )

    @property
    def layers(self) -> Tensor | None:
        """``masks`` of pictures whose masks are read, those of a batch."""
        if isinstance(self.masks, Kept):
            raise ValueError("masks that are kept on disk are read first: take the rows with [...]")
        return self.masks

    @property
    def image(self) -> Tensor:
        """(M,) int64 row of the batch that each object lies in, ascending."""
        return torch.arange(len(self), device=self.counts.device).repeat_interleave(self.counts)

    @property
    def sides(self) -> Tensor:
        """(M, 2) width and height of the boxes."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def within(self) -> Tensor:
        """(M,) int64 number of each object within its picture, from 0."""
        begins = self.counts.cumsum(0) - self.counts
        return torch.arange(len(self.labels), device=self.counts.device) - begins[self.image]

    def shapes(self) -> Tensor:
        """(M, H, W) bool, the mask of each object; read of targets that have ``masks``."""
        layers = self.layers
        assert layers is not None
        number = (self.within + 1).to(layers.dtype)
        return (layers[self.image] == number[:, None, None, None]).any(1)

    def _renumbered(self, kept: Tensor) -> Tensor | None:
        """Masks of some objects, under the numbers that they have without the others."""
        layers = self.layers
        if layers is None:
            return None
        image, most = self.image, int(self.counts.max()) if len(self.counts) else 0
        table = layers.new_zeros(len(self), most + 1)
        begins = torch.zeros_like(self.counts).index_add_(0, image, kept.to(self.counts.dtype))
        begins = begins.cumsum(0) - begins
        number = kept.to(torch.int64).cumsum(0) - begins[image]
        table[image[kept], self.within[kept] + 1] = number[kept].to(table.dtype)
        pictures = torch.arange(len(self), device=table.device)[:, None, None, None]
        return table[pictures, layers.long()]

    def keep(self, kept: Tensor) -> Objects:
        """Those objects for which (M,) ``kept`` is True; no picture is left out."""
        counts = torch.zeros_like(self.counts).index_add_(0, self.image, kept.to(self.counts.dtype))
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            counts=counts,
            ignore=None if self.ignore is None else self.ignore[kept],
            area=None if self.area is None else self.area[kept],
            masks=self._renumbered(kept),
        )

    def listed(self, masks: bool = False) -> list[dict[str, Tensor]]:
        """``boxes`` and ``labels`` of each picture, as torchvision's detectors take them; without what is ignored.

        Args:
            masks: with ``masks``, (m, H, W) uint8, too.
        """
        own = self if self.ignore is None else self.keep(~self.ignore)
        parts = own.counts.tolist()
        pairs = zip(own.boxes.split(parts), own.labels.split(parts), strict=True)
        found = [{"boxes": boxes, "labels": labels} for boxes, labels in pairs]
        if masks:
            shapes = own.shapes().to(torch.uint8).split(parts)
            found = [{**one, "masks": of} for one, of in zip(found, shapes, strict=True)]
        return found

    def to(self, device: torch.device) -> Objects:
        return replace(self, **{name: held.to(device) for name, held in self.tensors().items()})

    def repeat(self, times: int) -> Objects:
        return replace(
            self, **{name: held.repeat(times, *[1] * (held.ndim - 1)) for name, held in self.tensors().items()}
        )

    def tensors(self) -> dict[str, Tensor]:
        held = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}

    def tolist(self) -> list[Any]:
        """Of each picture ``[class, x0, y0, x1, y1]`` of each object."""
        rows = [[label, *box] for label, box in zip(self.labels.tolist(), self.boxes.tolist(), strict=True)]
        ends = self.counts.cumsum(0).tolist()
        return [rows[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    # Moves, see :class:`kdbench.contract.targets.Placed`

    def mirrored(self, which: Tensor, axis: int, side: int) -> Objects:
        low, high = 1 - axis, 3 - axis  # places of x0 and x1, or of y0 and y1, in a box
        boxes = self.boxes.clone()
        boxes[:, low], boxes[:, high] = side - self.boxes[:, high], side - self.boxes[:, low]
        masks = self.layers
        if masks is not None:
            masks = torch.where(which[:, None, None, None], masks.flip(2 + axis), masks)
        return replace(self, boxes=torch.where(which[self.image][:, None], boxes, self.boxes), masks=masks)

    def transposed(self, which: Tensor) -> Objects:
        places = [1, 0, 3, 2, *range(4, self.WIDTH)]
        turned = {
            "boxes": torch.where(which[self.image][:, None], self.boxes[:, places], self.boxes),
            "sizes": torch.where(which[:, None], self.sizes.flip(1), self.sizes),
        }
        if self.origin is not None:
            turned["origin"] = torch.where(which[:, None], self.origin.flip(1), self.origin)
        if (layers := self.layers) is not None:
            turned["masks"] = torch.where(which[:, None, None, None], layers.transpose(2, 3), layers)
        return replace(self, **turned)

    def shown(self, corners: Tensor, size: tuple[int, int]) -> Tensor:
        seen = self._cut(corners[:, self.image], size)[1].long()
        return torch.zeros(corners.shape[:2], dtype=torch.int64, device=seen.device).index_add_(1, self.image, seen) > 0

    def window(self, corners: Tensor, size: tuple[int, int]) -> Objects:
        """Objects are cut to it; one of which less than ``LEAST_SHARE`` of the area or ``LEAST_SIDE`` pixels of a side
        are left is left out."""
        boxes, seen = self._cut(corners[self.image], size)
        sizes = self.sizes.new_tensor(size).expand(len(self), 2)
        masks = None if (layers := self.layers) is None else cut(layers, corners, size)
        return replace(self, boxes=boxes, sizes=sizes, area=None, origin=None, masks=masks).keep(seen)

    def _cut(self, corners: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(..., M, 4) boxes in windows at (..., M, 2) top and left, and (..., M) whether enough of each is seen."""
        limits = self.boxes.new_tensor([size[1], size[0]] * 2)
        corner = corners.flip(-1).to(self.boxes)
        boxes = (self.boxes - torch.cat([corner, corner], -1)).clamp(min=0).minimum(limits)
        sides, whole = boxes[..., 2:] - boxes[..., :2], self.boxes[:, 2:] - self.boxes[:, :2]
        return boxes, (sides.prod(-1) >= LEAST_SHARE * whole.prod(1)) & (sides.amin(-1) >= LEAST_SIDE)

    def join(self, other: Objects) -> Objects:
        """The pictures of ``other`` behind these; what one of both lacks is filled in as its absence means."""
        if (self.masks is None) != (other.masks is None):
            raise ValueError("some pictures have masks and others have none; they cannot be joined")
        one, two = self._full(other), other._full(self)
        if one.layers is not None and two.layers is not None:
            most = max(one.layers.shape[1], two.layers.shape[1])
            one, two = (replace(held, masks=_deep(held.layers, most)) for held in (one, two))
        both = {name: torch.cat([held, two.tensors()[name].to(held)]) for name, held in one.tensors().items()}
        return replace(one, **both)

    def _full(self, other: Objects) -> Objects:
        """The same with every optional field that ``other`` holds."""
        ignore, area, origin = self.ignore, self.area, self.origin
        if ignore is None and other.ignore is not None:
            ignore = torch.zeros(len(self.labels), dtype=torch.bool, device=self.labels.device)
        if origin is None and other.origin is not None:
            origin = self.sizes
        if area is None and other.area is not None:
            scale = (self.sizes if self.origin is None else self.origin).prod(1) / self.sizes.prod(1)
            area = self.sides.prod(1) * scale[self.image]
        return replace(self, ignore=ignore, area=area, origin=origin)


def _deep(masks: Tensor | None, layers: int) -> Tensor:
    """With empty layers behind, so that there are so many."""
    assert masks is not None
    return torch.cat([masks, masks.new_zeros(len(masks), layers - masks.shape[1], *masks.shape[2:])], 1)
