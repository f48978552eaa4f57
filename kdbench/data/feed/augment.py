"""Augmentations by name, drawn per sample.

Most work on raw pixels batched on the device: each takes (N, C, ..., H, W) uint8 or float pixels and a generator on
their device, and returns pixels of the same shape; clips get one draw for all their frames. Another view of the same
picture is augmented alike by a generator in the same state: amounts are in pixels of the first view, whose (H, W) is
``base``, and are scaled to the other's size. ``resized_crop<percent>``
is the exception: stored pictures are cropped while they are decoded. The distribution equals torchvision's transform
of the same meaning (``RandomCrop(padding=4)``, ``RandomHorizontalFlip``, ``RandomResizedCrop``, ``RandomGrayscale``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.base.errors import UserError, nearest
from kdbench.data.feed.drawn import Choice

Size = tuple[int, ...]


class Augment(Protocol):
    """Pixels, a generator, and the (H, W) of the picture's first view, None for that view: pixels of equal shape.

    ``choice`` is told which of finitely many pictures was made of each row.
    """

    def __call__(
        self, pixels: Tensor, rng: torch.Generator, *, base: Size | None = None, choice: Choice | None = None
    ) -> Tensor: ...


NAMES = ("crop<pixels>", "flip", "affine<degrees>", "jitter<percent>", "grey<percent>", "resized_crop<percent>")
_FORM = re.compile(r"(?P<name>crop|flip|affine|jitter|grey|resized_crop)(?P<amount>[1-9][0-9]?)?")


def crop(
    pixels: Tensor, rng: torch.Generator, pad: int, *, base: Size | None = None, choice: Choice | None = None
) -> Tensor:
    """Zero padding of ``pad`` on each side, then a random window of the original size; (N, C, H, W).

    Where ``base`` is another size, ``pad`` and the window's place are scaled, to the nearest pixel.
    """
    n, _, h, w = pixels.shape
    places = 2 * pad + 1
    dy, dx = torch.randint(places, (2, n), generator=rng, device=pixels.device)
    if choice is not None:
        choice.add(dy * places + dx, places**2)
    below, beside = pad, pad
    if base is not None and base != (h, w):
        (dy, below), (dx, beside) = _scaled(dy, pad, h / base[0]), _scaled(dx, pad, w / base[1])
    padded = F.pad(pixels, (beside, beside, below, below))
    rows = (dy[:, None] + torch.arange(h, device=pixels.device))[:, None, :, None]
    cols = (dx[:, None] + torch.arange(w, device=pixels.device))[:, None, None, :]
    samples = torch.arange(n, device=pixels.device)[:, None, None, None]
    channels = torch.arange(pixels.shape[1], device=pixels.device)[None, :, None, None]
    return padded[samples, channels, rows, cols]


def _scaled(begin: Tensor, pad: int, scale: float) -> tuple[Tensor, int]:
    """Where windows begin in a picture ``scale`` times as large, and the padding it needs."""
    most = math.ceil(pad * scale)
    return ((begin - pad) * scale).round().long() + most, most


def flip(pixels: Tensor, rng: torch.Generator, *, base: Size | None = None, choice: Choice | None = None) -> Tensor:
    """Horizontal mirror with probability one half, at every size alike; (N, ..., W)."""
    mirrored = torch.rand(len(pixels), generator=rng, device=pixels.device) < 0.5
    if choice is not None:
        choice.add(mirrored.long(), 2)
    return torch.where(mirrored.view(-1, *[1] * (pixels.ndim - 1)), pixels.flip(-1), pixels)


MOVED, GROWN = 0.15, 0.1
"""Largest move of an affine map, as a share of half the picture, and largest change of its size."""


def affine(
    pixels: Tensor, rng: torch.Generator, degrees: int, *, base: Size | None = None, choice: Choice | None = None
) -> Tensor:
    """Turned by up to ``degrees`` each way, moved and resized a little, bilinear, 0 outside; (N, C, H, W).

    It makes no finite number of pictures, and tells ``choice`` nothing.
    """
    n = len(pixels)
    draws = torch.rand(4, n, generator=rng, device=pixels.device) * 2 - 1
    angle, size, across, down = draws[0] * math.radians(degrees), 1 + draws[1] * GROWN, *(draws[2:] * MOVED)
    cos, sin = angle.cos() / size, angle.sin() / size
    maps = torch.stack([torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)], 1)
    grid = F.affine_grid(maps, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels.float(), grid, align_corners=False)
    return moved if pixels.is_floating_point() else moved.round().to(pixels.dtype)


LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey, those of torchvision."""


def jitter(
    pixels: Tensor, rng: torch.Generator, percent: int, *, base: Size | None = None, choice: Choice | None = None
) -> Tensor:
    """Brightness, contrast, then saturation changed by up to ``percent`` each way; (N, C, ..., H, W).

    torchvision's ``ColorJitter`` without hue, which takes them in any order. Saturation is of three channels alone.
    """
    most = percent / 100
    draws = 1 + most * (torch.rand(3, len(pixels), generator=rng, device=pixels.device) * 2 - 1)
    bright, contrast, colour = draws.view(3, -1, *[1] * (pixels.ndim - 1))
    x = (pixels * bright).clamp(0, 255)
    x = torch.lerp(_grey(x).flatten(1).mean(1).view_as(contrast), x, contrast).clamp(0, 255)
    if pixels.shape[1] == len(LUMA):
        x = torch.lerp(_grey(x), x, colour).clamp(0, 255)
    return x if pixels.is_floating_point() else x.round().to(pixels.dtype)


def grey(
    pixels: Tensor, rng: torch.Generator, percent: int, *, base: Size | None = None, choice: Choice | None = None
) -> Tensor:
    """Without colours, with a probability of ``percent`` in a hundred; (N, C, ..., H, W)."""
    drawn = torch.rand(len(pixels), generator=rng, device=pixels.device) < percent / 100
    if choice is not None:
        choice.add(drawn.long(), 2)
    without = _grey(pixels)
    without = without if pixels.is_floating_point() else without.round().to(pixels.dtype)
    return torch.where(drawn.view(-1, *[1] * (pixels.ndim - 1)), without, pixels)


def _grey(pixels: Tensor) -> Tensor:
    """(N, 1, ..., H, W), float."""
    if pixels.shape[1] != len(LUMA):
        return pixels.float().mean(1, keepdim=True)
    red, green, blue = pixels.float().split(1, 1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


AMOUNTS: dict[str, tuple[Callable[..., Tensor], str]] = {
    "crop": (crop, "pad"),
    "affine": (affine, "degrees"),
    "jitter": (jitter, "percent"),
    "grey": (grey, "percent"),
}
"""Operations that take an amount, and what it is of."""
ENDLESS = ("affine", "jitter")


@dataclass(frozen=True)
class Augmentation:
    """A task's augmentation.

    Attributes:
        ops: name and operation of what is done on the device, in order.
        least: smallest share of a stored picture's area that a random crop keeps; None takes the centre.
    """

    ops: tuple[tuple[str, Augment], ...] = ()
    least: float | None = None

    def endless(self) -> list[str]:
        """Names of what makes another picture at every draw, instead of one of so many."""
        return [name for name, _ in self.ops if name.startswith(ENDLESS)] + ["resized_crop"] * (self.least is not None)

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
        elif form["name"] in AMOUNTS:
            op, amount = AMOUNTS[form["name"]]
            ops.append((name, partial(op, **{amount: int(form["amount"])})))
        else:
            least = int(form["amount"]) / 100
    return Augmentation(tuple(ops), least)
