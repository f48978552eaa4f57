"""The 1797 8x8 grey digits that ship with scikit-learn (test part of UCI optdigits, BSD licence).

1000 training and 797 test rows by a fixed permutation (numpy ``default_rng(0)``). Inputs:

- ``image`` (1, 8, 8) uint8;
- ``image_lr``: the image averaged over 2x2 pixels and brought back to 8x8 by repetition;
- ``profiles`` (2, 8): means of its columns and of its rows.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kdbench.base.plugins import module_folder
from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kdbench.data.feed.dataset import Dataset, Transform

N_TRAIN = 1000
FILE = "datasets/data/digits.csv.gz"
"""Of the images, in scikit-learn's folder: 64 pixels in 0..16 and the label, one image a line."""
LICENCE = "BSD (scikit-learn's digits)"
ORIGIN = "ships with scikit-learn"
FACTS = Facts(
    N_TRAIN, 10, {"image": (1, 8, 8), "image_lr": (1, 8, 8), "profiles": (2, 8)}, about=ORIGIN, licence=LICENCE
)
_GREY = ((0.305,), (0.376,))
NORMALISATION: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "image": _GREY,
    "image_lr": _GREY,
    "profiles": ((0.305, 0.305), (0.282, 0.113)),
}
"""Mean and deviation of each input, by channel."""


class DigitsOptions(BaseModel):
    """``inputs``: which inputs networks may read; ``image`` is always there."""

    model_config = ConfigDict(extra="forbid")
    inputs: list[Literal["image", "image_lr", "profiles"]] = ["image"]


def images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images, (1797, 8, 8) uint8 in 0..255, and labels, training rows first.

    Read from scikit-learn's file: to import scikit-learn takes as long as torch does.
    """
    with gzip.open(module_folder("sklearn") / FILE, "rt", encoding="utf-8") as file:
        rows = np.loadtxt(file, delimiter=",")
    pixels, labels = rows[:, :-1], rows[:, -1]
    order = np.random.default_rng(0).permutation(len(labels))
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return grey[order], labels[order].astype(np.int64)


def low_resolution(pixels: Tensor, rng: torch.Generator | None) -> Tensor:
    """(N, 1, H, W) uint8 averaged over 2x2 pixels, repeated to (N, 1, H, W) uint8."""
    import torch
    import torch.nn.functional as F

    return F.interpolate(F.avg_pool2d(pixels.float(), 2).round().to(torch.uint8), scale_factor=2)


def profiles(pixels: Tensor, rng: torch.Generator | None) -> Tensor:
    """(N, 1, 8, 8) uint8 to (N, 2, 8) means of columns and of rows, in [0, 1]."""
    import torch

    grey = pixels[:, 0].float() / 255
    return torch.stack([grey.mean(1), grey.mean(2)], dim=1)


DERIVED = {"image_lr": low_resolution, "profiles": profiles}


def transform(name: str) -> Transform:
    """The normalisation of an input."""
    from kdbench.data.feed.dataset import Transform

    return Transform(*NORMALISATION[name])


def load(options: dict[str, Any], place: Place | None = None) -> Dataset:
    """The digits, from scikit-learn."""
    import torch

    from kdbench.contract import Rows
    from kdbench.data.feed.dataset import Dataset, Derived

    wanted = [name for name in parse(DigitsOptions, options, "digits").inputs if name in DERIVED]
    grey, labels = images()
    x, y = torch.from_numpy(grey)[:, None], torch.from_numpy(labels)
    return Dataset(
        name="digits",
        train=Rows({"image": x[:N_TRAIN]}, y[:N_TRAIN]),
        test=Rows({"image": x[N_TRAIN:]}, y[N_TRAIN:]),
        classes=10,
        transforms={name: transform(name) for name in ("image", *wanted)},
        derived={name: Derived("image", DERIVED[name]) for name in wanted},
        source="scikit-learn",
    )
