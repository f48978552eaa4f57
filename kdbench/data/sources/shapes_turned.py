"""Generated pictures of bars, ovals and wedges on a noisy ground, with their turned boxes: nothing is downloaded.

Every number of a picture comes from one fixed seed. Some pictures are empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place
from kdbench.data.sources.shapes import OBJECTS, SIDE, TRAIN, ShapesOptions

if TYPE_CHECKING:
    from kdbench.contract import Rows
    from kdbench.data.feed.dataset import Dataset

NAMES = ("bar", "oval", "wedge")
LENGTHS, RATIOS = (14.0, 26.0), (1.3, 2.5)
"""Pixels of the longer side, and its ratio to the shorter one."""
FACTS = Facts(TRAIN, len(NAMES), {"image": (3, SIDE, SIDE)}, about="generated here", licence="none needed")


def _inside(label: int, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Pixels of a shape, by their places in its box, -1 to 1 on both axes."""
    box = (np.abs(along) <= 1) & (np.abs(across) <= 1)
    if label == 0:
        return box
    return along**2 + across**2 <= 1 if label == 1 else box & (np.abs(across) <= (along + 1) / 2)


def _part(count: int, seed: int) -> Rows:
    import torch

    from kdbench.contract import OrientedObjects, Rows

    rng = np.random.default_rng(seed)
    pixels = np.empty((count, 3, SIDE, SIDE), np.uint8)
    pictures: list[list[list[float]]] = []
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    for picture in pixels:
        ground = rng.uniform(20, 110, (3, 1, 1)) + rng.normal(0, 18, (3, SIDE, SIDE))
        taken = np.zeros((SIDE, SIDE), bool)
        found: list[list[float]] = []
        for _ in range(int(rng.integers(0, OBJECTS + 1))):
            label, length = int(rng.integers(len(NAMES))), float(rng.uniform(*LENGTHS))
            width, degrees = length / float(rng.uniform(*RATIOS)), float(rng.uniform(-90, 90))
            cx, cy = rng.uniform(length / 2, SIDE - length / 2, 2).tolist()
            colour, turn = rng.uniform(130, 255, (3, 1, 1)), np.deg2rad(degrees)
            along = ((x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)) / (length / 2)
            across = ((x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)) / (width / 2)
            box = _inside(0, along, across)
            if taken[box].any():  # shapes do not touch
                continue
            taken |= box
            ground = np.where(_inside(label, along, across), colour, ground)
            found.append([label, cx, cy, length, width, degrees])
        picture[:] = np.clip(np.rint(ground), 0, 255)
        pictures.append(found)
    return Rows({"image": torch.from_numpy(pixels)}, OrientedObjects.of(pictures, (SIDE, SIDE)))


def load(options: dict[str, Any], place: Place | None = None) -> Dataset:
    """The pictures."""
    from kdbench.data.feed.dataset import Dataset, Transform

    given = parse(ShapesOptions, options, "shapes_turned")
    return Dataset(
        name="shapes_turned",
        train=_part(given.train, seed=1),
        test=_part(given.test, seed=2),
        classes=len(NAMES),
        transforms={"image": Transform((0.3,) * 3, (0.2,) * 3)},
        properties=frozenset({"rgb"}),
        source="generated",
        class_names=NAMES,
    )
