"""The pictures of :mod:`kdbench.data.sources.shapes` with the class of every pixel, ground among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place
from kdbench.data.sources import shapes

if TYPE_CHECKING:
    from kdbench.contract import Rows
    from kdbench.data.feed.dataset import Dataset

NAMES = ("ground", *shapes.NAMES)
FACTS = Facts(
    shapes.TRAIN, len(NAMES), {"image": (3, shapes.SIDE, shapes.SIDE)}, about="generated here", licence="none needed"
)


def _part(count: int, seed: int) -> Rows:
    import torch

    from kdbench.contract import Maps, Rows

    pixels, _, maps = shapes.drawn(count, seed)
    return Rows({"image": torch.from_numpy(pixels)}, Maps(torch.from_numpy(maps)))


def load(options: dict[str, Any], place: Place | None = None) -> Dataset:
    """The pictures."""
    from kdbench.data.feed.dataset import Dataset, Transform

    given = parse(shapes.ShapesOptions, options, "shapes_maps")
    return Dataset(
        name="shapes_maps",
        train=_part(given.train, seed=1),
        test=_part(given.test, seed=2),
        classes=len(NAMES),
        transforms={"image": Transform((0.3,) * 3, (0.2,) * 3)},
        properties=frozenset({"rgb"}),
        source="generated",
        class_names=NAMES,
    )
