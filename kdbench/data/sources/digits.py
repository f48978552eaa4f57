"""The 1797 8x8 grey digits that ship with scikit-learn (test part of UCI optdigits, BSD licence).

1000 training and 797 test rows by a fixed permutation (numpy ``default_rng(0)``). Inputs:

- ``image`` (1, 8, 8) uint8;
- ``image_lr``: the image averaged over 2x2 pixels and brought back to 8x8 by repetition;
- ``profiles`` (2, 8): means of its columns and of its rows.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.datasets import load_digits
from torch import Tensor

from kdbench.contract import Rows
from kdbench.data.dataset import Dataset, Derived, Transform
from kdbench.data.options import parse
from kdbench.data.place import Place

N_TRAIN = 1000
IMAGE = Transform(mean=(0.305,), std=(0.376,))
PROFILES = Transform(mean=(0.305, 0.305), std=(0.282, 0.113))


class Options(BaseModel):
    """``inputs``: which inputs networks may read; ``image`` is always there."""

    model_config = ConfigDict(extra="forbid")
    inputs: list[Literal["image", "image_lr", "profiles"]] = ["image"]


def images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All images, (1797, 8, 8) uint8 in 0..255, and labels, training rows first."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return grey[order], labels[order].astype(np.int64)


def low_resolution(pixels: Tensor, rng: torch.Generator | None) -> Tensor:
    """(N, 1, H, W) uint8 averaged over 2x2 pixels, repeated to (N, 1, H, W) uint8."""
    return F.interpolate(F.avg_pool2d(pixels.float(), 2).round().to(torch.uint8), scale_factor=2)


def profiles(pixels: Tensor, rng: torch.Generator | None) -> Tensor:
    """(N, 1, 8, 8) uint8 to (N, 2, 8) means of columns and of rows, in [0, 1]."""
    grey = pixels[:, 0].float() / 255
    return torch.stack([grey.mean(1), grey.mean(2)], dim=1)


DERIVED = {"image_lr": (low_resolution, IMAGE), "profiles": (profiles, PROFILES)}


def load(options: dict[str, Any], place: Place | None = None) -> Dataset:
    """The digits, from scikit-learn."""
    wanted = [name for name in parse(Options, options, "digits").inputs if name in DERIVED]
    grey, labels = images()
    x, y = torch.from_numpy(grey)[:, None], torch.from_numpy(labels)
    return Dataset(
        name="digits",
        train=Rows({"image": x[:N_TRAIN]}, y[:N_TRAIN]),
        test=Rows({"image": x[N_TRAIN:]}, y[N_TRAIN:]),
        classes=10,
        transforms={"image": IMAGE} | {name: DERIVED[name][1] for name in wanted},
        derived={name: Derived("image", DERIVED[name][0]) for name in wanted},
        source="scikit-learn",
    )
