"""Masks of a picture's objects: polygons, run lengths or a map of object numbers, checked and packed in layers.

Run lengths are COCO's, compressed (a text) or not (a list), down the columns; decoding is faster-coco-eval's.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdbench.base.errors import UserError
from kdbench.data.decode.maps import values

Mask = NDArray[np.bool_]
CORNERS = 3
"""Fewest points of a polygon."""
SLACK = 1.0
"""Pixels by which boxes and polygons may stick out of their picture, as rounded coordinates do; they are cut."""


def decoded(value: Any, size: tuple[int, int], here: str) -> Mask:
    """An object's mask, (height, width).

    Args:
        value: polygons as lists of x, y, x, y ..., or ``size`` and ``counts`` of run lengths.
        size: height and width of the picture.
        here: file, row and object, for messages.

    Raises:
        UserError: it is neither, a polygon of fewer than three points or with one outside the picture, run lengths of
            another size or of another sum.
    """
    from faster_coco_eval.core import mask as coco

    if isinstance(value, Mapping):
        return _runs(value, size, here)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise UserError(f"{here}: a mask of polygons or run lengths is expected, found {short(value)}")
    for number, polygon in enumerate(value):
        try:
            corners = [float(side) for side in polygon]
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{here}, polygon {number}: x, y, x, y ... are expected, found {short(polygon)}") from error
        if len(corners) % 2 or len(corners) < 2 * CORNERS:
            raise UserError(
                f"{here}, polygon {number}: {len(corners)} numbers are no polygon, {CORNERS} points or more of two "
                "numbers each are expected"
            )
        if not np.isfinite(corners).all():
            raise UserError(f"{here}, polygon {number}: it holds a number that is not finite")
        for x, y in zip(corners[::2], corners[1::2], strict=True):
            if not (-SLACK <= x <= size[1] + SLACK and -SLACK <= y <= size[0] + SLACK):
                raise UserError(
                    f"{here}, polygon {number}: point ({x:g}, {y:g}) lies outside its picture of {size[1]}x{size[0]}"
                )
    runs = coco.frPyObjects([[float(side) for side in polygon] for polygon in value], *size)
    return np.asarray(coco.decode(coco.merge(runs))).astype(bool)


def _runs(value: Mapping[str, Any], size: tuple[int, int], here: str) -> Mask:
    from faster_coco_eval.core import mask as coco

    given, counts = value.get("size"), value.get("counts")
    if given is None or counts is None:
        raise UserError(f"{here}: run lengths have size and counts, found {', '.join(value) or 'nothing'}")
    if not _whole(given) or len(given) != 2:
        raise UserError(f"{here}: size of run lengths is height and width, found {short(given)}")
    if list(given) != list(size):
        raise UserError(
            f"{here}: its mask is of {given[1]}x{given[0]} pixels, its picture of {size[1]}x{size[0]}; masks and "
            "pictures are of one size"
        )
    if isinstance(counts, str | bytes):
        runs = _numbers(counts.encode() if isinstance(counts, str) else counts)
    elif _whole(counts):
        runs = [int(run) for run in counts]
    else:
        raise UserError(f"{here}: counts of run lengths are whole numbers or a text, found {short(counts)}")
    if runs is None or min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        told = "cannot be read" if runs is None else f"hold {min(runs)}" if min(runs) < 0 else f"sum to {sum(runs)}"
        raise UserError(f"{here}: run lengths {told}, a picture of {size[1]}x{size[0]} has {size[0] * size[1]} pixels")
    return np.asarray(coco.decode(coco.frPyObjects({"size": list(size), "counts": runs}, *size))).astype(bool)


def _whole(value: Any) -> bool:
    """Whether it is a list of whole numbers."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    return all(isinstance(one, int | float) and not isinstance(one, bool) and one % 1 == 0 for one in value)


def _numbers(text: bytes) -> list[int] | None:
    """Compressed run lengths: five bits a character from 48, the sixth says that more follow, differences of every
    second run from the third on; None where the last is cut off or a character is none of them."""
    found: list[int] = []
    value = shift = 0
    more = False
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift, more = shift + 5, bool(bits & 32)
        if not more:
            if bits & 16:
                value -= 1 << shift
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = shift = 0
    return None if more else found


def numbered(value: Any, objects: int, size: tuple[int, int], where: str) -> list[Mask]:
    """Masks of a picture's objects, in order, from a file of one channel: 0 is none, i is object i.

    Raises:
        UserError: no such file, of another size than its picture, or with numbers that no object has.
    """
    if value is None:
        raise UserError(f"{where}: no map of objects there")
    found = values(value, where)
    if found.shape != size:
        raise UserError(
            f"{where}: its map is of {found.shape[1]}x{found.shape[0]} pixels, its picture of {size[1]}x{size[0]}; "
            "both are of one size"
        )
    if (most := int(found.max(initial=0))) > objects:
        raise UserError(f"{where}: its map numbers {most} objects, the row has {objects}")
    return [found == number for number in range(1, objects + 1)]


def layered(masks: Sequence[Mask], size: tuple[int, int], content: tuple[int, int] | None = None) -> NDArray[np.int16]:
    """Masks brought to ``size`` by their nearest pixels, as numbers 1, 2 ... in as few layers as keep all of them.

    Args:
        content: height and width that the picture has within ``size``, of which the rest is padding.

    Returns:
        (L, *size), L at least 1; 0 where no object of the layer is.
    """
    layers = [np.zeros(size, np.int16)]
    for number, mask in enumerate(masks, 1):
        if mask.shape != (inner := content or size):
            rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(inner, mask.shape, strict=True))
            mask = mask[rows[:, None], columns]
        if mask.shape != size:
            mask = np.pad(mask, [(0, side - own) for side, own in zip(size, mask.shape, strict=True)])
        free = next((layer for layer in layers if not layer[mask].any()), None)
        if free is None:
            layers.append(free := np.zeros(size, np.int16))
        free[mask] = number
    return np.stack(layers)


class Layers:
    """Layers of one picture after the other, written as (N, L, height, width) int16 with the most layers of any.

    Args:
        base: path without suffix.
        size: height and width of a layer.
    """

    def __init__(self, base: Path, size: tuple[int, int]) -> None:
        self._path, self._size = base.with_name(f"{base.name}.npy"), size
        self._held: list[NDArray[np.int16]] = []

    def add(self, layers: NDArray[np.int16]) -> None:
        self._held.append(layers)

    def close(self) -> None:
        """Writes the file."""
        most = max((len(layers) for layers in self._held), default=1)
        whole = np.lib.format.open_memmap(self._path, "w+", np.int16, (len(self._held), most, *self._size))
        for place, layers in enumerate(self._held):
            whole[place, : len(layers)] = layers
        whole.flush()


class KeptLayers:
    """Layers of one picture after the other, each picture's compressed: ``<base>.bin``, and where each begins.

    Args:
        base: path without suffix.
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._blob = base.with_name(f"{base.name}.bin").open("wb")
        self._bounds = [0]

    def add(self, layers: NDArray[np.int16]) -> None:
        self._bounds.append(self._bounds[-1] + self._blob.write(zlib.compress(layers.tobytes(), 1)))

    def close(self) -> None:
        """Finishes the files."""
        self._blob.close()
        np.save(self._base.with_name(f"{self._base.name}.bounds.npy"), np.asarray(self._bounds, np.int64))


def short(value: Any) -> str:
    """A value in a line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
