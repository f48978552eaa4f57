"""Augmentations by name, drawn per sample.

Most work on raw pixels batched on the device: each takes (N, C, ..., H, W) uint8 or float pixels and a generator on
their device, and returns pixels of the same shape; clips get one draw for all their frames. ``resized_crop<percent>``
is the exception: stored pictures are cropped while they are decoded. The distribution equals torchvision's transform
of the same meaning (``RandomCrop(padding=4)``, ``RandomHorizontalFlip``, ``RandomResizedCrop``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.errors import UserError, nearest

Augment = Callable[[Tensor, torch.Generator], Tensor]

NAMES = ("crop<pixels>", "flip", "resized_crop<percent>")
_FORM = re.compile(r"(?P<name>crop|flip|resized_crop)(?P<amount>[1-9][0-9]?)?")


def crop(pixels: Tensor, rng: torch.Generator, pad: int) -> Tensor:
    """Zero padding of ``pad`` on each side, then a random window of the original size; (N, C, H, W)."""
    n, _, h, w = pixels.shape
    padded = F.pad(pixels, (pad, pad, pad, pad))
    dy, dx = torch.randint(2 * pad + 1, (2, n), generator=rng, device=pixels.device)
    rows = (dy[:, None] + torch.arange(h, device=pixels.device))[:, None, :, None]
    cols = (dx[:, None] + torch.arange(w, device=pixels.device))[:, None, None, :]
    samples = torch.arange(n, device=pixels.device)[:, None, None, None]
    channels = torch.arange(pixels.shape[1], device=pixels.device)[None, :, None, None]
    return padded[samples, channels, rows, cols]


def flip(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Horizontal mirror with probability one half; (N, ..., W)."""
    mirrored = torch.rand(len(pixels), generator=rng, device=pixels.device) < 0.5
    return torch.where(mirrored.view(-1, *[1] * (pixels.ndim - 1)), pixels.flip(-1), pixels)


@dataclass(frozen=True)
class Augmentation:
    """A task's augmentation.

    Attributes:
        ops: name and operation of what is done on the device, in order.
        least: smallest share of a stored picture's area that a random crop keeps; None takes the centre.
    """

    ops: tuple[tuple[str, Augment], ...] = ()
    least: float | None = None

    def without(self, names: Sequence[str]) -> list[Augment]:
        """The device operations but for ``names``."""
        return [op for name, op in self.ops if name not in names]


def augmentation(names: Sequence[str]) -> Augmentation:
    """Augmentations by name, in order.

    Raises:
        UserError: an unknown one; names the nearest.
    """
    ops: list[tuple[str, Augment]] = []
    least = None
    for name in names:
        form = _FORM.fullmatch(name)
        if form is None or (form["name"] == "flip") == bool(form["amount"]):
            raise UserError(
                f"data.augment: unknown augmentation {name!r}{nearest(name, NAMES)}; there are {', '.join(NAMES)}"
            )
        if form["name"] == "flip":
            ops.append((name, flip))
        elif form["name"] == "crop":
            ops.append((name, partial(crop, pad=int(form["amount"]))))
        else:
            least = int(form["amount"]) / 100
    return Augmentation(tuple(ops), least)
