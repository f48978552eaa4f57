"""Augmentations of pictures whose targets are places in them: each moves pixels and targets by one draw, a whole batch
at once.

Each takes (N, C, H, W) pixels, :class:`Placed` targets of N pictures and a generator on their device. Places are
continuous: a pixel is the square from its number to the next, so that a mirrored x is W - x.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from kdbench.base.errors import UserError, nearest
from kdbench.contract import Placed
from kdbench.contract.maps import cut

Of = TypeVar("Of", bound=Placed)
Move = Callable[[Tensor, Of, torch.Generator], tuple[Tensor, Of]]
Moves = tuple[Move[Placed], ...]
NAMES = ("flip", "flipv", "turn90", "window<pixels>")
_FORM = re.compile(r"(?P<name>flipv?|turn90)|window(?P<pixels>[1-9][0-9]{1,3})")
TRIES = 10
"""Windows drawn for a picture, of which the first that shows a target is taken, or the last."""


def _half(n: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """(N,) bool, True with probability one half."""
    return torch.rand(n, generator=rng, device=like.device) < 0.5


def _of_pictures(drawn: Tensor, pixels: Tensor) -> Tensor:
    return drawn.view(-1, *[1] * (pixels.ndim - 1))


def mirror(pixels: Tensor, targets: Of, mirrored: Tensor, axis: int) -> tuple[Tensor, Of]:
    """Some pictures mirrored left to right (``axis`` 1) or top to bottom (0).

    Args:
        mirrored: (N,) bool.
    """
    moved = torch.where(_of_pictures(mirrored, pixels), pixels.flip(2 + axis), pixels)
    return moved, targets.mirrored(mirrored, axis, pixels.shape[2 + axis])


def flip(pixels: Tensor, targets: Of, rng: torch.Generator) -> tuple[Tensor, Of]:
    """Mirrored left to right with probability one half."""
    return mirror(pixels, targets, _half(len(pixels), pixels, rng), 1)


def flipv(pixels: Tensor, targets: Of, rng: torch.Generator) -> tuple[Tensor, Of]:
    """Mirrored top to bottom with probability one half."""
    return mirror(pixels, targets, _half(len(pixels), pixels, rng), 0)


def transposed(pixels: Tensor, targets: Of, which: Tensor) -> tuple[Tensor, Of]:
    """Some square pictures with their axes exchanged."""
    return torch.where(_of_pictures(which, pixels), pixels.transpose(2, 3), pixels), targets.transposed(which)


def turn90(pixels: Tensor, targets: Of, rng: torch.Generator) -> tuple[Tensor, Of]:
    """Turned by 0, 90, 180 or 270 degrees with equal chances; squares alone.

    Raises:
        UserError: the pictures are no squares.
    """
    if pixels.shape[2] != pixels.shape[3]:
        raise UserError(
            f"data.augment: turn90 needs square pictures, these are {pixels.shape[3]}x{pixels.shape[2]}; write flip, "
            "flipv instead"
        )
    turns = torch.randint(4, (len(pixels),), generator=rng, device=pixels.device)
    pixels, targets = mirror(pixels, targets, turns >= 2, 0)  # half a turn is both mirrors
    pixels, targets = mirror(pixels, targets, turns >= 2, 1)
    pixels, targets = transposed(pixels, targets, turns % 2 == 1)  # a quarter is a transposition and a mirror
    return mirror(pixels, targets, turns % 2 == 1, 1)


def window(pixels: Tensor, targets: Of, rng: torch.Generator, side: int) -> tuple[Tensor, Of]:
    """A random window of ``side`` pixels, of the picture's own side where that is shorter."""
    n, _, height, width = pixels.shape
    size = (min(side, height), min(side, width))
    draws = torch.rand(TRIES, n, 2, generator=rng, device=pixels.device)
    spares = (height - size[0] + 1, width - size[1] + 1)
    spare = torch.stack([torch.full((), spare, device=pixels.device) for spare in spares])
    corners = (draws * spare).long().minimum(spare - 1)  # (TRIES, N, 2) top and left
    some = targets.shown(corners, size)
    chosen = torch.where(some.any(0), some.int().argmax(0), TRIES - 1)
    corner = corners[chosen, torch.arange(n, device=pixels.device)]
    return cut(pixels, corner, size), targets.window(corner, size)


def moves(names: Sequence[str]) -> Moves:
    """Augmentations of pictures with their targets by name, in order.

    Raises:
        UserError: an unknown one; names the nearest.
    """
    plain: dict[str, Move[Placed]] = {"flip": flip, "flipv": flipv, "turn90": turn90}
    found: list[Move[Placed]] = []
    for name in names:
        form = _FORM.fullmatch(name)
        if form is None:
            raise UserError(
                f"data.augment: unknown augmentation {name!r} of pictures with their targets{nearest(name, NAMES)}; "
                f"there are {', '.join(NAMES)}"
            )
        found.append(partial(window, side=int(form["pixels"])) if form["pixels"] else plain[form["name"]])
    return tuple(found)


def moved_size(names: Sequence[str], size: Sequence[int]) -> tuple[int, int]:
    """Height and width of pictures of ``size`` after augmentations."""
    height, width = size
    for form in filter(None, map(_FORM.fullmatch, names)):
        if form["pixels"]:
            height, width = min(height, int(form["pixels"])), min(width, int(form["pixels"]))
    return height, width
