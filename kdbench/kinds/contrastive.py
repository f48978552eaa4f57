"""What kinds share whose training tells a row's two views from other rows; no kind of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from kdbench.contract import Batch, Rows, Views

EPS = 1e-8
ONE_PROCESS = "its task's loss compares the rows of a batch with one another"


def contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """NT-Xent of two views (Chen et al., ICML 2020, equation 1), 0-d, mean over both views' rows: a row's other view is
    told from all other rows.

    Args:
        one, other: (N, D) of the same rows; cosines count.
    """
    import torch
    import torch.nn.functional as F

    rows = F.normalize(torch.cat([one, other]), dim=1, eps=EPS)
    scores = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(scores, torch.arange(len(rows), device=rows.device).roll(len(one)))


def pairs(rows: Tensor, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """(N, ...) and (N, ...) of all pairs of a batch's views; a batch of one view is paired with itself."""
    views = [batch.unview(rows)[view] for view in range(batch.views)]
    yield from list(combinations(views, 2)) or [(views[0], views[0])]


def two_views() -> Views:
    """Each row twice, each time augmented by itself."""
    from kdbench.contract import Views

    return Views(2, _twice, "raw", anew=True)


def _twice(pixels: Tensor, rng: Any) -> Tensor:
    return pixels.expand(2, *pixels.shape)


def unknown(train: Rows, test: Rows) -> str:
    """Classes of test rows that no training row has, in words; "" where there are none."""
    found = sorted({*test.y.tolist()} - {*train.y.tolist()})
    return ", ".join(map(str, found[:3])) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def numbers(y: Any) -> Tensor:
    """(N,) row numbers in the place of targets, for training without them."""
    import torch

    return torch.arange(len(y), device=y.device)
