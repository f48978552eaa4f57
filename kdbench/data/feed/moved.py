"""Augmentations of pictures with objects: each moves pixels and boxes by one draw, a whole batch at once.

Each takes (N, C, H, W) pixels, :class:`Objects` of N pictures and a generator on their device. Boxes are continuous: a
pixel is the square from its number to the next, so that a mirrored x is W - x.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kdbench.base.errors import UserError, nearest
from kdbench.contract import Objects

Move = Callable[[Tensor, Objects, torch.Generator], tuple[Tensor, Objects]]
Moves = tuple[Move, ...]
NAMES = ("flip", "flipv", "turn90", "window<pixels>")
_FORM = re.compile(r"(?P<name>flipv?|turn90)|window(?P<pixels>[1-9][0-9]{1,3})")
LEAST_SHARE, LEAST_SIDE = 0.4, 2.0
"""Share of an object's area and pixels of its sides that a window must show; it is left out otherwise."""
TRIES = 10
"""Windows drawn for a picture with objects, of which the first that shows one is taken, or the last."""


def _half(n: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """(N,) bool, True with probability one half."""
    return torch.rand(n, generator=rng, device=like.device) < 0.5


def _of_pictures(drawn: Tensor, pixels: Tensor) -> Tensor:
    return drawn.view(-1, *[1] * (pixels.ndim - 1))


def mirror(pixels: Tensor, objects: Objects, mirrored: Tensor, axis: int) -> tuple[Tensor, Objects]:
    """Some pictures mirrored left to right (``axis`` 1) or top to bottom (0).

    Args:
        mirrored: (N,) bool.
    """
    side, low, high = pixels.shape[2 + axis], 1 - axis, 3 - axis  # places of x0 and x1, or of y0 and y1, in a box
    boxes = objects.boxes.clone()
    boxes[:, low], boxes[:, high] = side - objects.boxes[:, high], side - objects.boxes[:, low]
    moved = torch.where(mirrored[objects.image][:, None], boxes, objects.boxes)
    return torch.where(_of_pictures(mirrored, pixels), pixels.flip(2 + axis), pixels), replace(objects, boxes=moved)


def flip(pixels: Tensor, objects: Objects, rng: torch.Generator) -> tuple[Tensor, Objects]:
    """Mirrored left to right with probability one half."""
    return mirror(pixels, objects, _half(len(pixels), pixels, rng), 1)


def flipv(pixels: Tensor, objects: Objects, rng: torch.Generator) -> tuple[Tensor, Objects]:
    """Mirrored top to bottom with probability one half."""
    return mirror(pixels, objects, _half(len(pixels), pixels, rng), 0)


def transposed(pixels: Tensor, objects: Objects, which: Tensor) -> tuple[Tensor, Objects]:
    """Some square pictures with their axes exchanged."""
    boxes = torch.where(which[objects.image][:, None], objects.boxes[:, [1, 0, 3, 2]], objects.boxes)
    moved = torch.where(_of_pictures(which, pixels), pixels.transpose(2, 3), pixels)
    turned = {"boxes": boxes, "sizes": torch.where(which[:, None], objects.sizes.flip(1), objects.sizes)}
    if objects.origin is not None:
        turned["origin"] = torch.where(which[:, None], objects.origin.flip(1), objects.origin)
    return moved, replace(objects, **turned)


def turn90(pixels: Tensor, objects: Objects, rng: torch.Generator) -> tuple[Tensor, Objects]:
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
    pixels, objects = mirror(pixels, objects, turns >= 2, 0)  # half a turn is both mirrors
    pixels, objects = mirror(pixels, objects, turns >= 2, 1)
    pixels, objects = transposed(pixels, objects, turns % 2 == 1)  # a quarter is a transposition and a mirror
    return mirror(pixels, objects, turns % 2 == 1, 1)


def window(pixels: Tensor, objects: Objects, rng: torch.Generator, side: int) -> tuple[Tensor, Objects]:
    """A random window of ``side`` pixels, of the picture's own side where that is shorter.

    Objects are cut to it; one of which less than ``LEAST_SHARE`` of the area or ``LEAST_SIDE`` pixels of a side are
    left is left out.
    """
    n, _, height, width = pixels.shape
    high, wide = min(side, height), min(side, width)
    draws = torch.rand(TRIES, n, 2, generator=rng, device=pixels.device)
    spare = torch.tensor([height - high + 1, width - wide + 1], device=pixels.device)
    begins = (draws * spare).long().minimum(spare - 1)  # (TRIES, N, 2) top and left
    corner = begins.flip(2).to(objects.boxes).repeat(1, 1, 2)[:, objects.image]
    limits = objects.boxes.new_tensor([wide, high, wide, high])
    cut = (objects.boxes - corner).clamp(min=0).minimum(limits)  # (TRIES, M, 4)
    sides, whole = cut[..., 2:] - cut[..., :2], objects.boxes[:, 2:] - objects.boxes[:, :2]
    shown = (sides.prod(2) >= LEAST_SHARE * whole.prod(1)) & (sides.amin(2) >= LEAST_SIDE)
    seen = torch.zeros(TRIES, n, dtype=torch.int64, device=pixels.device).index_add_(1, objects.image, shown.long())
    some = seen > 0
    chosen = torch.where(some.any(0), some.int().argmax(0), TRIES - 1)
    top, left = begins[chosen, torch.arange(n, device=pixels.device)].unbind(1)
    rows = (top[:, None] + torch.arange(high, device=pixels.device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(wide, device=pixels.device))[:, None, None, :]
    pictures = torch.arange(n, device=pixels.device)[:, None, None, None]
    channels = torch.arange(pixels.shape[1], device=pixels.device)[None, :, None, None]
    own, every = chosen[objects.image], torch.arange(len(objects.boxes), device=pixels.device)
    sizes = objects.sizes.new_tensor([high, wide]).expand(n, 2)
    moved = replace(objects, boxes=cut[own, every], sizes=sizes, area=None, origin=None)
    return pixels[pictures, channels, rows, columns], moved.keep(shown[own, every])


def moves(names: Sequence[str]) -> Moves:
    """Augmentations of pictures with objects by name, in order.

    Raises:
        UserError: an unknown one; names the nearest.
    """
    plain: dict[str, Move] = {"flip": flip, "flipv": flipv, "turn90": turn90}
    found: list[Move] = []
    for name in names:
        form = _FORM.fullmatch(name)
        if form is None:
            raise UserError(
                f"data.augment: unknown augmentation {name!r} of pictures with objects{nearest(name, NAMES)}; there "
                f"are {', '.join(NAMES)}"
            )
        found.append(partial(window, side=int(form["pixels"])) if form["pixels"] else plain[form["name"]])
    return tuple(found)
