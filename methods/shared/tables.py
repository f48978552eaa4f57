"""What a network last said of each training row, on the training device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RowTable(nn.Module):
    """One vector for each training row, zeros until it is written; a buffer and therefore part of every checkpoint.

    Args:
        n: rows of the training set.
        width: numbers a row.
    """

    rows: Tensor

    def __init__(self, n: int, width: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(n, width))

    @torch.no_grad()
    def write(self, index: Tensor, values: Tensor, views: int = 1) -> None:
        """New values of some rows.

        Args:
            index: (N*V,) row numbers, each at most once within a view; of several views the last stays.
            values: (N*V, width).
        """
        for rows, new in zip(index.chunk(views), values.chunk(views), strict=True):
            self.rows[rows] = new.to(self.rows)
