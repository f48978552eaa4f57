"""A part of a data set as DOTA writes it: a text file of polygons a picture, and the pictures beside them.

Text files lie in ``<part>/labelTxt`` or ``labelTxt/<part>``, pictures in ``<part>/images`` or ``images/<part>``. A line
is ``x1 y1 x2 y2 x3 y3 x4 y4 class difficult``; the lines ``imagesource:`` and ``gsd:`` before them are passed over. A
polygon becomes the smallest turned rectangle around it. Objects that are difficult are neither target nor error.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.data.decode.folders import PICTURES, content
from kdbench.data.decode.specification import SetSpec
from kdbench.data.decode.table import Row, Table

TEXTS, IMAGES = ("{part}/labelTxt", "labelTxt/{part}"), ("{part}/images", "images/{part}")
CORNERS = 4
HEADERS = ("imagesource:", "gsd:")
Point = tuple[float, float]


def listing(folder: Path, part: str) -> Path | None:
    """The folder of a part's text files, None where there is none."""
    places = [folder / place.format(part=part) for place in TEXTS]
    return next((place for place in places if place.is_dir() and next(place.glob("*.txt"), None) is not None), None)


def open_dota(spec: SetSpec, texts: Path, folder: Path, part: str) -> Table:
    """The pictures of a part with their objects, in the order of the names; those whose file is empty too.

    Args:
        texts: as of :func:`listing`.
        folder: of the set.

    Raises:
        UserError: a line that is no polygon with a class, or a picture that is missing.
    """
    files = {path: _picture(path, folder, part) for path in sorted(texts.glob("*.txt"))}
    (given,) = spec.inputs.values()
    assert spec.objects is not None
    own = spec.objects

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for path, picture in files.items():
            row: Row = {given.column: {"bytes": content(picture)} if given.column in columns else None}
            row[own.column] = [
                {own.bbox: rectangle(corners), own.category: name, "iscrowd": difficult}
                for corners, name, difficult in polygons(path)
            ]
            if spec.id is not None:
                row[spec.id] = path.stem
            yield path.name, row

    return Table(str(texts), [*files, *files.values()], len(files), read)


def polygons(path: Path) -> list[tuple[list[Point], str, bool]]:
    """Corners, class, and whether it is difficult, of each object of a text file.

    Raises:
        UserError: a line is of another form, or its polygon has no area.
    """
    found = []
    for number, line in enumerate(content(path).decode(errors="replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith(HEADERS):
            continue
        here = f"{path}:{number}"
        try:
            numbers = [float(word) for word in words[: 2 * CORNERS]]
        except ValueError:
            numbers = []
        if len(numbers) != 2 * CORNERS or len(words) not in (2 * CORNERS + 1, 2 * CORNERS + 2):
            raise UserError(f"{here}: eight numbers, a class and 0 or 1 are expected, found {line.strip()[:60]!r}")
        if not all(map(math.isfinite, numbers)):
            raise UserError(f"{here}: it holds a number that is not finite")
        corners = list(zip(numbers[::2], numbers[1::2], strict=True))
        if min(rectangle(corners)[2:4]) <= 0:
            raise UserError(f"{here}: the polygon has no area; leave it out")
        found.append((corners, words[2 * CORNERS], words[2 * CORNERS + 1 :] not in ([], ["0"])))
    return found


def rectangle(corners: Sequence[Point]) -> list[float]:
    """Centre x and y, sides and degrees counter-clockwise as seen, of the smallest rectangle around some points.

    A side of it lies along an edge of their hull, and so along two of the points.
    """
    best: tuple[float, list[float]] | None = None
    for (x0, y0), (x1, y1) in combinations(corners, 2):
        length = math.hypot(x1 - x0, y1 - y0)
        if not length:
            continue
        cos, sin = (x1 - x0) / length, (y1 - y0) / length
        along = [x * cos + y * sin for x, y in corners]
        across = [y * cos - x * sin for x, y in corners]
        width, height = max(along) - min(along), max(across) - min(across)
        if best is None or width * height < best[0]:
            u, v = (max(along) + min(along)) / 2, (max(across) + min(across)) / 2
            degrees = -math.degrees(math.atan2(sin, cos))  # y points down
            best = width * height, [u * cos - v * sin, u * sin + v * cos, width, height, degrees]
    return best[1] if best is not None else [*corners[0], 0.0, 0.0, 0.0]


def _picture(path: Path, folder: Path, part: str) -> Path:
    """The picture that is called like a text file.

    Raises:
        UserError: it is missing.
    """
    places: list[Any] = [folder / place.format(part=part) / path.stem for place in IMAGES]
    for place in places:
        for suffix in sorted(PICTURES):
            if os.path.isfile(found := f"{place}{suffix}"):
                return Path(found)
    raise UserError(f"{path}: its picture is missing; it is looked for as {places[0]}.png")
