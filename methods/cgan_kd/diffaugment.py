"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, arXiv 2006.10738), drawn per image.

Each function takes images (N, C, H, W) in [-1, 1] and a generator on their device, and passes gradients on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator], Tensor]


def _uniform(x: Tensor, low: float, high: float, rng: torch.Generator) -> Tensor:
    """(N, 1, 1, 1) values in [low, high)."""
    return low + (high - low) * torch.rand(len(x), 1, 1, 1, generator=rng, device=x.device, dtype=x.dtype)


def _corner(n: int, reach: tuple[int, int], rng: torch.Generator, device: torch.device) -> list[Tensor]:
    """Two (N, 1) whole numbers in [0, reach]."""
    return [torch.randint(r + 1, (n, 1), generator=rng, device=device) for r in reach]


def brightness(x: Tensor, rng: torch.Generator) -> Tensor:
    """Adds up to a quarter to either side: the mild form for tiny grey images."""
    return x + _uniform(x, -0.25, 0.25, rng)


def color(x: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness by up to a half, saturation by a factor in [0, 2], contrast by one in [0.5, 1.5]."""
    x = x + _uniform(x, -0.5, 0.5, rng)
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * _uniform(x, 0.0, 2.0, rng)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * _uniform(x, 0.5, 1.5, rng)


def translation(x: Tensor, rng: torch.Generator) -> Tensor:
    """Shifts by up to an eighth of each side, zeros coming in."""
    n, _, h, w = x.shape
    reach = (int(h / 8 + 0.5), int(w / 8 + 0.5))
    dy, dx = _corner(n, (2 * reach[0], 2 * reach[1]), rng, x.device)
    padded = F.pad(x, (reach[1], reach[1], reach[0], reach[0])).movedim(1, 3)
    rows = (dy + torch.arange(h, device=x.device))[:, :, None]
    columns = (dx + torch.arange(w, device=x.device))[:, None, :]
    return padded[torch.arange(n, device=x.device)[:, None, None], rows, columns].movedim(3, 1)


def cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    """A square of half the side, centred anywhere, becomes 0."""
    n, _, h, w = x.shape
    cy, cx = _corner(n, (h - 1, w - 1), rng, x.device)
    rows = (torch.arange(h, device=x.device) - cy).abs() < h / 4
    columns = (torch.arange(w, device=x.device) - cx).abs() < w / 4
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


AUGMENTS: dict[str, Augment] = {
    "brightness": brightness,
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def augment(x: Tensor, names: Sequence[str], rng: torch.Generator) -> Tensor:
    """The named augmentations, one after the other."""
    for name in names:
        x = AUGMENTS[name](x, rng)
    return x
