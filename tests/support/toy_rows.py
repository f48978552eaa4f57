"""Made-up pictures that tell their row and place, as a data set, and whether two batches of them are equal."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kdbench.contract import Batch, Rows
from kdbench.data.feed.dataset import Dataset, Transform

PLAIN = Transform((0.0,), (1.0,))


def numbered(n: int = 20, size: int = 6, channels: int = 1) -> Tensor:
    """Pictures whose every pixel tells its picture and place."""
    return (torch.arange(n * channels * size * size) % 251 + 1).to(torch.uint8).view(n, channels, size, size)


def toy(n: int = 20, **more: object) -> Dataset:
    rows = Rows({"image": numbered(n)}, torch.arange(n) % 4)
    data = Dataset("toy", rows, rows, 4, {"image": PLAIN})
    return replace(data, **more)  # type: ignore[arg-type]


def equal(a: Batch, b: Batch) -> bool:
    same = all(torch.equal(a.x[name], b.x[name]) for name in a.x)
    return same and a.x.keys() == b.x.keys() and torch.equal(a.y, b.y) and torch.equal(a.index, b.index)
