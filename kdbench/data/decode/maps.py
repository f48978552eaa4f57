"""Maps of a picture's row: a class at every pixel, checked and brought to the picture's size.

A map is a picture file of one channel whose values are classes, or numbers of objects. What it says is a byte a pixel:
0 to C - 1, or :data:`IGNORED`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdbench.base.errors import UserError
from kdbench.data.decode.columns import Dense, file_content
from kdbench.data.decode.fit import Fit
from kdbench.data.decode.picture import UNREADABLE, damaged, opened
from kdbench.data.decode.specification import MapColumn

IGNORED = 255
"""As of :data:`kdbench.contract.maps.IGNORED`, which would load torch."""
OUTSIDE, INSIDE, BORDER = range(3)
"""Classes that numbers of objects are turned into."""
_UNKNOWN = -1


class MapsWriter:
    """Writes the map of one row after the other, ``<base>.npy``, (N, height, width) uint8.

    Args:
        given: the column.
        fit: how pictures are brought to one size.
        base: path without suffix.
        rows: at most this many.
    """

    def __init__(self, given: MapColumn, fit: Fit, base: Path, rows: int) -> None:
        self.given = given
        self._fit = fit
        self._dense = Dense(base, rows, fit.size, np.uint8)

    def add(self, value: Any, came: tuple[int, int], at: str) -> bytes:
        """Appends a row's map.

        Args:
            came: height and width of the picture as it came.
            at: file and row, for messages.

        Returns:
            What identifies it.

        Raises:
            UserError: no map, one of another size than its picture, or a value that is no class.
        """
        where = f"{at}, column {self.given.column!r}"
        found = classes(values(value, where), self.given, where) if value is not None else None
        if found is None:
            raise UserError(f"{where}: no map there; leave rows without one out, or give it one of ignored pixels")
        if found.shape != came:
            there, wanted = ("x".join(map(str, reversed(shape))) for shape in (found.shape, came))
            raise UserError(f"{where}: a map of {there} pixels, its picture has {wanted}; give both one size")
        if found.shape != (content := self._fit.content(came)):
            scaled = Image.fromarray(found).resize(content[::-1], Image.Resampling.NEAREST)
            found = np.asarray(scaled)
        if content != self._fit.size:
            beside = [(0, side - own) for side, own in zip(self._fit.size, content, strict=True)]
            found = np.pad(found, beside, constant_values=IGNORED)
        self._dense.add(found)
        return found.tobytes()

    def close(self) -> None:
        """Finishes the file."""
        self._dense.close()


def values(value: Any, where: str) -> NDArray[Any]:
    """(height, width) whole numbers of a map's file; of a palette its places."""
    picture, _ = opened(file_content(value, where, "map"), where)
    if len(picture.getbands()) != 1 or picture.mode == "F":
        raise UserError(
            f"{where}: a map of {len(picture.getbands())} channels ({picture.mode}), one of whole numbers is expected: "
            "each value a class, no colours"
        )
    try:
        return np.asarray(picture).astype(np.int64)
    except UNREADABLE as error:
        raise damaged(where, error) from error


def classes(found: NDArray[Any], given: MapColumn, where: str) -> NDArray[np.uint8]:
    """(height, width) classes of a map's values.

    Raises:
        UserError: a value that stands for no class and is not ignored.
    """
    if given.holds == "instances":
        return bordered(found)
    known = given.values if given.values is not None else range(len(given.classes))
    table = np.full(1 + max(*known, *given.ignore, 0), _UNKNOWN, np.int64)
    table[list(given.ignore)] = IGNORED
    table[list(known)] = range(len(given.classes))
    bad = (found < 0) | (found >= len(table))
    said = table[np.where(bad, 0, found)]
    bad |= said == _UNKNOWN
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        line = ", ".join(map(str, known[:5])) + (", ..." if len(known) > 5 else "")
        raise UserError(
            f"{where}: value {found[row, column]} at row {row}, column {column} is no class of the map; classes are "
            f"{line}, ignored are {', '.join(map(str, given.ignore)) or 'none'}"
        )
    return said.astype(np.uint8)


def bordered(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """Outside, inside and border of numbered objects: border is a pixel next to one of another number, or of none."""
    from scipy.ndimage import maximum_filter, minimum_filter

    border = maximum_filter(numbers, 3, mode="nearest") != minimum_filter(numbers, 3, mode="nearest")
    return np.where(border, BORDER, np.where(numbers > 0, INSIDE, OUTSIDE)).astype(np.uint8)
