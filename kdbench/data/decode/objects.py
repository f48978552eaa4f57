"""Objects of a picture's row: boxes, classes, areas and crowds, checked and packed.

A row holds them as `datasets` writes COCO's: a mapping of lists (``bbox``, ``category``, ``area``, ``iscrowd``), or a
list of mappings.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdbench.base.errors import UserError, nearest
from kdbench.data.decode.fit import Fit
from kdbench.data.decode.masks import SLACK, KeptLayers, Layers, Mask, decoded, layered, numbered, short
from kdbench.data.decode.specification import ObjectsColumn
from kdbench.data.decode.table import Stated

ARRAYS = ("boxes", "labels", "counts", "sizes", "ignore", "area", "origin")
"""Of a decoded part, ``<part>.y.<name>.npy``: fields of :class:`kdbench.contract.Objects`."""
MASKS = "masks"
"""The same of masks, where objects have any."""
LONGEST = 10
"""Side of a turned box, in longer sides of its picture: an object may go on outside, of a tile above all."""


class ObjectsWriter:
    """Packs the objects of one row after the other.

    Args:
        given: the column.
        fit: how pictures are brought to one size.
        base: path without suffix; an array of each name is ``<base>.<name>.npy``.
        kept: masks are written compressed, to be read when a batch is drawn.
    """

    def __init__(self, given: ObjectsColumn, fit: Fit, base: Path, kept: bool = False) -> None:
        self.given = given
        self._base = base
        self._fit, self._size = fit, fit.size
        self._boxes: list[list[float]] = []
        self._labels: list[int] = []
        self._crowds: list[bool] = []
        self._areas: list[float] = []
        self._counts: list[int] = []
        self._came: list[tuple[int, int]] = []
        self._sizes: list[tuple[int, int]] = []
        self._layers: Layers | KeptLayers | None = None
        if given.masked:
            masks = base.with_name(f"{base.name}.{MASKS}")
            self._layers = KeptLayers(masks) if kept else Layers(masks, self._size)
        self._turned_ones = given.boxes == "cxcywhr"

    def add(self, value: Any, came: tuple[int, int], at: str, instances: Any = None) -> bytes:
        """Appends a row's objects, none where it has none.

        Args:
            came: height and width of the picture as it came.
            at: file and row, for messages.
            instances: the row's map of object numbers, where masks are such.

        Returns:
            What identifies them.

        Raises:
            UserError: a box outside its picture or without area, a class that there is not, lists of unequal lengths,
                a size said of a picture that is not its own.
        """
        where = f"{at}, column {self.given.column!r}"
        if isinstance(value, Stated):
            value, said = value
            if said is not None and said != came:
                lies = " (a picture whose EXIF orientation says that it lies on its side is turned upright)"
                raise UserError(
                    f"{at}: its objects are those of a picture of {said[1]}x{said[0]}, the picture has "
                    f"{came[1]}x{came[0]}{lies if said == came[::-1] else ''}; bring it, or its boxes, to one size"
                )
        entries = _entries(value, self.given, where)
        if self.given.empty == "drop":
            entries = [entry for entry in entries if not self._is_empty(entry[self.given.bbox], came)]
        content: list[Any] = []
        content_size = self._fit.content(came)
        boxes: list[Sequence[float]] = []
        for number, entry in enumerate(entries):
            here = f"{where}, object {number}"
            box = (self._turned if self._turned_ones else self._box)(entry[self.given.bbox], came, here)
            boxes.append(box)
            label = self._label(entry[self.given.category], here)
            sides = box[2:4] if self._turned_ones else (box[2] - box[0], box[3] - box[1])
            area = _area(entry.get("area"), came, here)
            area = sides[0] * sides[1] if area is None else area
            crowd = _crowd(entry.get("iscrowd"), here)
            scale = (content_size[1] / came[1], content_size[0] / came[0])
            scaled = [box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]]
            self._boxes.append([*scaled, *box[4:]])
            self._labels.append(label)
            self._areas.append(area)
            self._crowds.append(crowd)
            content.append([label, *box, area, crowd])
        masks = self._masks(entries, boxes, came, where, instances)
        if self._layers is not None:
            self._layers.add(layered(masks, self._size, content_size))
            content.append([hashlib.sha256(np.packbits(mask).tobytes()).hexdigest() for mask in masks])
        self._counts.append(len(entries))
        self._came.append(came)
        self._sizes.append(content_size)
        return repr(content).encode()

    def _is_empty(self, value: Any, came: tuple[int, int]) -> bool:
        """Whether a box of numbers has a side of 0, or of less than is kept."""
        try:
            sides = _sides(value)
        except (TypeError, ValueError):
            return False
        if len(sides) != 4:
            return False
        far = [sides[0] + sides[2], sides[1] + sides[3]] if self.given.boxes == "xywh" else sides[2:]
        turned = far[0] < sides[0] or far[1] < sides[1]
        return (
            all(map(math.isfinite, (*sides, *far)))
            and not turned
            and not _seen((*sides[:2], *far), came, self._fit.content(came))
        )

    def _masks(
        self,
        entries: list[Mapping[str, Any]],
        boxes: Sequence[Sequence[float]],
        came: tuple[int, int],
        where: str,
        instances: Any,
    ) -> list[Mask]:
        """Of a row's objects, in the size of the picture as it came.

        Args:
            boxes: theirs, x0, y0, x1, y1.
        """
        if self.given.instances is not None:
            return numbered(instances, len(entries), came, f"{where}, {self.given.instances!r}")
        if self.given.segments is None:
            return []
        pairs = [(entry[self.given.segments], f"{where}, object {number}") for number, entry in enumerate(entries)]
        masks = [decoded(value, came, here) for value, here in pairs]
        for box, mask, (_, here) in zip(boxes, masks, pairs, strict=True):
            left, top = (max(0, math.floor(side - SLACK)) for side in box[:2])
            right, bottom = (math.ceil(side + SLACK) for side in box[2:])
            if mask.any() and not mask[top:bottom, left:right].any():
                raise UserError(f"{here}: its mask and its box {_said(box)} as x0, y0, x1, y1 share no pixel")
        return masks

    def _turned(self, value: Any, came: tuple[int, int], here: str) -> tuple[float, ...]:
        """Centre, sides and degrees of a turned box, the longer side first, the angle within [-90, 90)."""
        try:
            x, y, width, height, degrees = _sides(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{here}: a turned box of five numbers is expected, found {short(value)}") from error
        if not all(map(math.isfinite, (x, y, width, height, degrees))):
            raise UserError(f"{here}: box {short(value)} holds a number that is not finite")
        if width <= 0 or height <= 0:
            raise UserError(f"{here}: box {value!r} has no area; leave it out")
        if max(width, height) > LONGEST * max(came):
            raise UserError(f"{here}: box {value!r} is too large for its picture of {came[1]}x{came[0]}")
        if not (0 <= x <= came[1] and 0 <= y <= came[0]):
            raise UserError(f"{here}: the centre of box {value!r} lies outside its picture of {came[1]}x{came[0]}")
        if self._fit.fill is None and self._size[0] * came[1] != self._size[1] * came[0]:
            raise UserError(
                f"{here}: turned boxes are not squeezed; give `size` the shape of the pictures, or write `fit: pad`"
            )
        if height > width:
            width, height, degrees = height, width, degrees + 90
        return x, y, width, height, (degrees + 90) % 180 - 90

    def _box(self, value: Any, came: tuple[int, int], here: str) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in pixels of the picture as it came."""
        try:
            one, two, three, four = _sides(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{here}: a box of four numbers is expected, found {short(value)}") from error
        if not all(map(math.isfinite, (one, two, three, four))):
            raise UserError(f"{here}: box {short(value)} holds a number that is not finite")
        if self.given.boxes == "xywh":
            three, four = one + three, two + four
        height, width = came
        said = _said((one, two, three, four))
        if three <= one or four <= two or not _seen((one, two, three, four), (height, width), self._fit.content(came)):
            turned = three < one or four < two
            how = "leave it out" if turned or self.given.instances is not None else "leave it out by `empty: drop`"
            raise UserError(
                f"{here}: box {said} as x0, y0, x1, y1 has no area; {how}, or change `boxes: {self.given.boxes}` of "
                "the set"
            )
        if one < -SLACK or two < -SLACK or three > width + SLACK or four > height + SLACK:
            raise UserError(f"{here}: box {said} as x0, y0, x1, y1 lies outside its picture of {width}x{height}")
        cut = max(one, 0.0), max(two, 0.0), min(three, float(width)), min(four, float(height))
        if cut[2] <= cut[0] or cut[3] <= cut[1]:
            raise UserError(f"{here}: box {said} as x0, y0, x1, y1 lies outside its picture of {width}x{height}")
        return cut

    def _label(self, value: Any, here: str) -> int:
        names = self.given.classes
        if isinstance(value, str):
            if value not in names:
                raise UserError(f"{here}: {value!r} is no class of the set{nearest(value, names)}")
            return names.index(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(names):
            raise UserError(f"{here}: class {value!r} is not one of 0 to {len(names) - 1}")
        return value

    def close(self) -> None:
        """Writes the arrays."""
        came = np.asarray(self._came, dtype=np.float32).reshape(-1, 2)
        arrays: dict[str, NDArray[Any]] = {
            "boxes": np.asarray(self._boxes, dtype=np.float32).reshape(-1, 5 if self._turned_ones else 4),
            "labels": np.asarray(self._labels, dtype=np.int64),
            "counts": np.asarray(self._counts, dtype=np.int64),
            "sizes": np.asarray(self._sizes, dtype=np.float32).reshape(-1, 2),
            "ignore": np.asarray(self._crowds, dtype=bool),
            "area": np.asarray(self._areas, dtype=np.float32),
            "origin": came,
        }
        for name, array in arrays.items():
            np.save(self._base.with_name(f"{self._base.name}.{name}.npy"), array)
        if self._layers is not None:
            self._layers.close()


def _sides(value: Any) -> list[float]:
    """The numbers of a box; of what is no list of numbers a TypeError or ValueError."""
    if isinstance(value, str | bytes | Mapping) or any(isinstance(side, bool) for side in value):
        raise TypeError("no list of numbers")
    try:
        return [float(side) for side in value]
    except OverflowError as error:
        raise ValueError("a whole number beyond any that is kept") from error


def _said(box: Sequence[float]) -> str:
    return f"({', '.join(f'{side:g}' for side in box)})"


def _seen(box: Sequence[float], came: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether x0, y0, x1, y1 still have sides as they are kept, in 32 bits and the network's pixels."""
    scale = np.array([size[1] / came[1], size[0] / came[0]] * 2)
    x0, y0, x1, y1 = (np.asarray(box) * scale).astype(np.float32)
    return bool(x1 > x0 and y1 > y0)


def _area(value: Any, came: tuple[int, int], here: str) -> float | None:
    """Square pixels that a row says of an object, None where it says nothing.

    Raises:
        UserError: it is no number, below 0 or more than the picture has.
    """
    if value is None:
        return None
    most = (came[0] + 2 * SLACK) * (came[1] + 2 * SLACK)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise UserError(
            f"{here}: area {short(value)} is no number of pixels that a picture of {came[1]}x{came[0]} has; leave area "
            "out where it is not known"
        )
    return float(value)


def _crowd(value: Any, here: str) -> bool:
    """Whether an object is a crowd, which is neither target nor error.

    Raises:
        UserError: it says neither 0 nor 1.
    """
    if value is not None and (not isinstance(value, int | float) or value not in (0, 1)):
        raise UserError(f"{here}: iscrowd is {short(value)}, 0 or 1 is expected")
    return bool(value)


def _entries(value: Any, given: ObjectsColumn, where: str) -> list[Mapping[str, Any]]:
    """One mapping an object."""
    needed = (given.bbox, given.category, *([given.segments] if given.segments else []))
    if value is None:
        return []
    if isinstance(value, Mapping):
        if missing := [name for name in needed if name not in value]:
            raise UserError(
                f"{where}: objects without {missing[0]!r}{nearest(missing[0], value)}; there are {', '.join(value)}"
            )
        held = {name: many for name, many in value.items() if many is not None}
        lists = {name: many for name, many in held.items() if isinstance(many, Sequence) and not isinstance(many, str)}
        if scalars := [name for name in needed if name in held and name not in lists]:
            raise UserError(f"{where}: {scalars[0]} is {held[scalars[0]]!r}; a list of one entry an object is expected")
        lengths = {name: len(lists.get(name, ())) for name in (*needed, *({"area", "iscrowd"} & lists.keys()))}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{count} {name}" for name, count in lengths.items())
            raise UserError(f"{where}: objects have {told}; as many of each are expected")
        return [{name: lists[name][place] for name in lengths} for place in range(lengths[given.bbox])]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UserError(f"{where}: a list of objects is expected, found {type(value).__name__}")
    for number, entry in enumerate(value):
        if missing := [name for name in needed if not isinstance(entry, Mapping) or name not in entry]:
            raise UserError(f"{where}, object {number}: without {missing[0]!r}")
    return list(value)
