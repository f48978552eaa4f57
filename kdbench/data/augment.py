"""Augmentations of raw pixels, batched on the device, drawn per sample.

Each takes (N, C, H, W) uint8 or float pixels and a generator on their device, and returns pixels of the same shape.
The distribution equals torchvision's transform of the same meaning (``RandomCrop(padding=4)``, ``RandomHorizontalFlip``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.errors import UserError, nearest

Augment = Callable[[Tensor, torch.Generator], Tensor]


def crop4(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Zero padding of 4 on each side, then a random window of the original size."""
    n, _, h, w = pixels.shape
    padded = F.pad(pixels, (4, 4, 4, 4))
    dy, dx = torch.randint(9, (2, n), generator=rng, device=pixels.device)
    rows = (dy[:, None] + torch.arange(h, device=pixels.device))[:, None, :, None]
    cols = (dx[:, None] + torch.arange(w, device=pixels.device))[:, None, None, :]
    samples = torch.arange(n, device=pixels.device)[:, None, None, None]
    channels = torch.arange(pixels.shape[1], device=pixels.device)[None, :, None, None]
    return padded[samples, channels, rows, cols]


def flip(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Horizontal mirror with probability one half."""
    mirrored = torch.rand(len(pixels), generator=rng, device=pixels.device) < 0.5
    return torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)


AUGMENTS: dict[str, Augment] = {"crop4": crop4, "flip": flip}


def augments(names: Sequence[str]) -> list[tuple[str, Augment]]:
    """Augmentations by name, in order.

    Raises:
        UserError: an unknown one; names the nearest.
    """
    for name in names:
        if name not in AUGMENTS:
            raise UserError(f"data.augment: unknown augmentation {name!r}{nearest(name, AUGMENTS)}")
    return [(name, AUGMENTS[name]) for name in names]
