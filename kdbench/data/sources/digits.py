"""The 1797 8x8 grey digits that ship with scikit-learn (test part of UCI optdigits, BSD licence).

1000 training and 797 test rows by a fixed permutation (numpy ``default_rng(0)``). Inputs: ``image`` (1, 8, 8) uint8.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from sklearn.datasets import load_digits

from kdbench.contract import Rows
from kdbench.data.dataset import Dataset, Transform
from kdbench.data.options import parse

N_TRAIN = 1000
IMAGE = Transform(mean=(0.305,), std=(0.376,))


class Options(BaseModel):
    """``inputs``: which inputs to make."""

    model_config = ConfigDict(extra="forbid")
    inputs: list[Literal["image"]] = ["image"]


def images() -> tuple[np.ndarray, np.ndarray]:
    """All images, (1797, 8, 8) uint8 in 0..255, and labels, training rows first."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    grey = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return grey[order], labels[order].astype(np.int64)


def load(options: dict[str, Any], folder: Path | None) -> Dataset:
    """The digits; ``folder`` is not needed."""
    parse(Options, options, "digits")
    grey, labels = images()
    x, y = torch.from_numpy(grey)[:, None], torch.from_numpy(labels)
    return Dataset(
        name="digits",
        train=Rows({"image": x[:N_TRAIN]}, y[:N_TRAIN]),
        test=Rows({"image": x[N_TRAIN:]}, y[N_TRAIN:]),
        classes=10,
        transforms={"image": IMAGE},
        source="scikit-learn",
    )
