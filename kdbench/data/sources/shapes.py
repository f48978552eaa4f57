"""Generated pictures of discs, squares and triangles on a noisy ground, with their boxes: nothing is downloaded.

Every number of a picture comes from one fixed seed. Some pictures are empty.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place

if TYPE_CHECKING:
    from kdbench.contract import Rows
    from kdbench.data.feed.dataset import Dataset

SIDE, LEAST, MOST, OBJECTS = 64, 8, 26, 4
"""Pixels of a picture's side and of a shape's, and the most shapes of a picture."""
NAMES = ("disc", "square", "triangle")
TRAIN, TEST = 128, 64
FACTS = Facts(TRAIN, len(NAMES), {"image": (3, SIDE, SIDE)}, about="generated here", licence="none needed")


class ShapesOptions(BaseModel):
    """``train`` and ``test``: numbers of pictures. ``masks``: whether shapes come with theirs."""

    model_config = ConfigDict(extra="forbid")
    train: int = Field(default=TRAIN, ge=2, le=10_000)
    test: int = Field(default=TEST, ge=2, le=10_000)
    masks: bool = False


def _shape(label: int, side: int) -> np.ndarray:
    """(side, side) bool, touching all four edges."""
    y, x = (np.arange(side) + 0.5) / side * 2 - 1, (np.arange(side)[:, None] + 0.5) / side * 2 - 1
    if label == 0:
        return x**2 + y**2 <= 1
    if label == 1:
        return np.ones((side, side), bool)
    return np.abs(y) <= (x + 1) / 2 + 1 / side


def drawn(count: int, seed: int) -> tuple[np.ndarray, list[list[list[float]]], np.ndarray]:
    """(N, 3, SIDE, SIDE) pictures, ``[class, x0, y0, x1, y1]`` of their shapes, and (N, SIDE, SIDE) which shape is
    where: 0 for none, else 1 and its class."""
    rng = np.random.default_rng(seed)
    pixels = np.empty((count, 3, SIDE, SIDE), np.uint8)
    pictures: list[list[list[float]]] = []
    maps = np.zeros((count, SIDE, SIDE), np.uint8)
    for picture, at in zip(pixels, maps, strict=True):
        ground = rng.uniform(20, 110, (3, 1, 1)) + rng.normal(0, 18, (3, SIDE, SIDE))
        taken = np.zeros((SIDE, SIDE), bool)
        found: list[list[float]] = []
        for _ in range(int(rng.integers(0, OBJECTS + 1))):
            label, side = int(rng.integers(len(NAMES))), int(rng.integers(LEAST, MOST + 1))
            left, top = (int(v) for v in rng.integers(0, SIDE - side + 1, 2))
            colour = rng.uniform(130, 255, (3, 1, 1))
            place = (slice(top, top + side), slice(left, left + side))
            if taken[place].any():  # shapes do not touch
                continue
            taken[place] = True
            inside = _shape(label, side)
            ground[(slice(None), *place)] = np.where(inside, colour, ground[(slice(None), *place)])
            at[place] = np.where(inside, 1 + label, 0)
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            found.append([label, left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1])
        picture[:] = np.clip(np.rint(ground), 0, 255)
        pictures.append(found)
    return pixels, pictures, maps


def _part(count: int, seed: int, masks: bool) -> Rows:
    import torch

    from kdbench.contract import Objects, Rows

    pixels, pictures, maps = drawn(count, seed)
    y = Objects.of(pictures, (SIDE, SIDE))
    if masks:
        numbers = np.zeros((count, 1, SIDE, SIDE), np.int16)
        for (plane,), at, shapes in zip(numbers, maps, pictures, strict=True):
            for number, (_, *box) in enumerate(shapes, 1):
                left, top, right, bottom = (int(side) for side in box)
                plane[top:bottom, left:right] = np.where(at[top:bottom, left:right], number, 0)
        y = replace(y, masks=torch.from_numpy(numbers))
    return Rows({"image": torch.from_numpy(pixels)}, y)


def load(options: dict[str, Any], place: Place | None = None) -> Dataset:
    """The pictures."""
    from kdbench.data.feed.dataset import Dataset, Transform

    given = parse(ShapesOptions, options, "shapes")
    return Dataset(
        name="shapes",
        train=_part(given.train, 1, given.masks),
        test=_part(given.test, 2, given.masks),
        classes=len(NAMES),
        transforms={"image": Transform((0.3,) * 3, (0.2,) * 3)},
        properties=frozenset({"rgb"}),
        source="generated",
        class_names=NAMES,
    )
