"""Patches of pictures: cut, and hidden from networks.

N pictures of C channels; L patches of a picture, h rows and w columns of them, P = patch x patch x C numbers each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from kdbench.base.errors import UserError

PICTURE = 3
"""Axes of a row that is a picture: (channels, height, width)."""


@dataclass(frozen=True)
class Hide:
    """Patches of a picture that networks do not see.

    Attributes:
        patch: pixels of a patch's side.
        share: of a picture's patches, between 0 and 1; as many of every picture, rounded up as MAE's code does.
    """

    patch: int
    share: float

    def grid(self, shape: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of patches of pictures of a shape (C, H, W).

        Raises:
            UserError: no picture, or one that the patches do not divide; or none is hidden, or none seen.
        """
        if len(shape) != PICTURE or any(side % self.patch for side in shape[1:]):
            raise UserError(
                f"patches of {self.patch} pixels do not divide inputs of shape {tuple(shape)}; choose a divisor of "
                "height and width, or another input"
            )
        found = shape[1] // self.patch, shape[2] // self.patch
        if not 0 < self.seen(found) < found[0] * found[1]:
            raise UserError(
                f"of the {found[0] * found[1]} patches of a picture a share of {self.share:g} hidden leaves "
                f"{self.seen(found)} to see; at least one has to be seen and one hidden: change the share or the patch"
            )
        return found

    def seen(self, grid: tuple[int, int]) -> int:
        """Patches of a picture that are seen."""
        return int(grid[0] * grid[1] * (1 - self.share))

    def draw(self, rows: int, shape: Sequence[int], rng: torch.Generator) -> Tensor:
        """(N, 1, h, w) bool: the patches that are seen, of each picture of a shape (C, H, W) drawn by itself."""
        grid = self.grid(shape)
        noise = torch.rand(rows, grid[0] * grid[1], generator=rng, device=rng.device)
        return lowest(noise, self.seen(grid)).view(rows, 1, *grid)


def lowest(noise: Tensor, count: int) -> Tensor:
    """(N, L) bool, where the ``count`` lowest numbers of each row of (N, L) are."""
    found = torch.zeros_like(noise, dtype=torch.bool)
    return found.scatter_(1, noise.argsort(dim=1, stable=True)[:, :count], True)


def patched(pictures: Tensor, patch: int) -> Tensor:
    """(N, C, H, W) as (N, L, P): patches by the picture's rows, the numbers of each by row, column and channel."""
    cut = pictures.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (N, C, h, patch, w, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def kept(rows: Tensor, visible: Tensor, seen: int) -> Tensor:
    """Of (N, L, D) those of the patches that are seen, (N, K, D), in order.

    Args:
        visible: (N, 1, h, w) bool, as many of every row.
        seen: K; a selection by the mask itself would make the host wait for the device to count it.
    """
    places = visible.flatten(1).byte().argsort(dim=1, descending=True, stable=True)[:, :seen]
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[2]))


def spread(rows: Tensor, visible: Tensor, blank: Tensor) -> Tensor:
    """(N, L, D): (N, K, D) back in their places of (N, 1, h, w), and ``blank``, (D,), in those that are hidden."""
    seen = visible.flatten(1)
    filled = blank.to(rows).expand(*seen.shape, -1)
    return filled.masked_scatter(seen[..., None], rows)


def grown(visible: Tensor, height: int, width: int) -> Tensor:
    """(N, 1, height, width) of (N, 1, h, w): what is seen of a finer map.

    Raises:
        UserError: the map is coarser than the patches, or no multiple of them.
    """
    rows, columns = visible.shape[2:]
    if height % rows or width % columns:
        raise UserError(
            f"a map of {height} x {width} has no places for {rows} x {columns} patches; hide larger patches, or choose "
            "a net that halves less often"
        )
    return visible.repeat_interleave(height // rows, 2).repeat_interleave(width // columns, 3)


def hidden_error(predicted: Tensor, told: Tensor, visible: Tensor, standardise: bool) -> Tensor:
    """Mean squared error of hidden patches, 0-d (MAE, section 3; SparK, section 3.4).

    Args:
        predicted, told: (N, L, P); the latter are constants.
        visible: (N, 1, h, w) bool; a hidden patch may be several of the L.
        standardise: a told patch less its mean, by its deviation (variance without bias, and 1e-6).
    """
    if standardise:
        told = (told - told.mean(dim=2, keepdim=True)) / (told.var(dim=2, keepdim=True) + 1e-6).sqrt()
    times = isqrt(predicted.shape[1] // visible[0].numel())
    hidden = ~grown(visible, *(times * side for side in visible.shape[2:])).flatten(1)
    return ((predicted - told).square().mean(dim=2) * hidden).sum() / hidden.sum()
