"""Rotated digits: predict the angle in degrees. Angles are uniform in [-range, range], drawn once with a fixed seed.

``copies`` rotations of each training image and one of each test image, bilinear, about the image's centre.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kdbench.data.decode.facts import Facts
from kdbench.data.decode.options import parse
from kdbench.data.decode.place import Place
from kdbench.data.sources import digits

if TYPE_CHECKING:
    from kdbench.contract import Rows
    from kdbench.data.feed.dataset import Dataset

FACTS = Facts(2 * digits.N_TRAIN, 1, {"image": (1, 8, 8)}, about=digits.ORIGIN, licence=digits.LICENCE)


class DigitsAngleOptions(BaseModel):
    """``range``: largest angle in degrees; ``copies``: rotations of each training image."""

    model_config = ConfigDict(extra="forbid")
    range: float = Field(default=60.0, gt=0, le=180)
    copies: int = Field(default=2, ge=1, le=64)


def _rotated(grey: np.ndarray, limit: float, seed: int) -> Rows:
    import torch
    from scipy.ndimage import rotate

    from kdbench.contract import Rows

    angles = np.random.default_rng(seed).uniform(-limit, limit, len(grey))
    turned = [rotate(g.astype(np.float64), a, reshape=False, order=1) for g, a in zip(grey, angles, strict=True)]
    pixels = np.clip(np.rint(np.stack(turned)), 0, 255).astype(np.uint8)
    return Rows({"image": torch.from_numpy(pixels)[:, None]}, torch.from_numpy(angles.astype(np.float32)))


def load(options: dict[str, Any], place: Place | None = None) -> Dataset:
    """The rotated digits, from scikit-learn."""
    from kdbench.data.feed.dataset import Dataset

    given = parse(DigitsAngleOptions, options, "digits_angle")
    grey, _ = digits.images()
    train, test = grey[: digits.N_TRAIN], grey[digits.N_TRAIN :]
    return Dataset(
        name="digits_angle",
        train=_rotated(np.repeat(train, given.copies, axis=0), given.range, seed=1),
        test=_rotated(test, given.range, seed=2),
        classes=1,
        transforms={"image": digits.transform("image")},
        label_range=(-given.range, given.range),
        source="scikit-learn",
    )
