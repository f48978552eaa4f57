"""Rows of an external test set (``score.external``), as the student's network sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from kdbench.base.errors import UserError
from kdbench.base.files import canonical_json, sha256
from kdbench.base.seeds import generator
from kdbench.contract import Batch, Rows
from kdbench.data.feed.augment import crop
from kdbench.data.feed.dataset import Dataset
from kdbench.data.feed.loader import RawInOrder
from kdbench.specs.external import External

Pixels = Callable[[Tensor, torch.Generator], Tensor]


def noise(pixels: Tensor, rng: torch.Generator, amount: float) -> Tensor:
    """Normal noise of ``amount`` times the range on each value; (N, C, H, W) uint8."""
    drawn = torch.randn(pixels.shape, generator=rng) * (255 * amount)
    return (pixels + drawn).round_().clamp_(0, 255).to(torch.uint8)


def blur(pixels: Tensor, rng: torch.Generator, amount: float) -> Tensor:
    """A Gaussian of deviation ``amount`` pixels, cut at three of them or at the picture's size; (N, C, H, W) uint8."""
    most = min(pixels.shape[-2:]) - 1
    size = 2 * min(math.ceil(3 * amount), most) + 1
    return v2.gaussian_blur(pixels, [size, size], [amount, amount])


def contrast(pixels: Tensor, rng: torch.Generator, amount: float) -> Tensor:
    """Distances from the mean grey times ``amount``; (N, C, H, W) uint8."""
    return v2.adjust_contrast(pixels, amount)


def brightness(pixels: Tensor, rng: torch.Generator, amount: float) -> Tensor:
    """Pixels times ``amount``; (N, C, H, W) uint8."""
    return v2.adjust_brightness(pixels, amount)


def shift(pixels: Tensor, rng: torch.Generator, amount: float) -> Tensor:
    """Moved by up to ``amount`` pixels down or up and right or left; (N, C, H, W) uint8."""
    return crop(pixels, rng, int(amount))


def rotate(pixels: Tensor, rng: torch.Generator, amount: float) -> Tensor:
    """Turned by ``amount`` degrees, to the left or to the right by chance, bilinear; (N, C, H, W) uint8."""
    left = torch.rand(len(pixels), generator=rng) < 0.5
    turned = pixels.clone()
    for side, rows in ((amount, left), (-amount, ~left)):
        turned[rows] = v2.rotate(pixels[rows], side, interpolation=v2.InterpolationMode.BILINEAR)
    return turned


CHANGED: dict[str, Callable[[Tensor, torch.Generator, float], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "contrast": contrast,
    "brightness": brightness,
    "shift": shift,
    "rotate": rotate,
}
"""The changes of :data:`kdbench.specs.external.CHANGES`."""


class ExternalRows:
    """Batches of an external test set, in order. Iterating again gives the same.

    Args:
        data: of the task; its normalisation holds.
        rows: raw rows.
        pixels: what is done to the inputs that hold pictures.
        stream: names the draws.
        device: where batches lie.

    Attributes:
        y: (N,) all targets.
        sha256: of what decides the rows.
    """

    def __init__(
        self, data: Dataset, rows: Rows, pixels: Pixels, stream: str, device: torch.device, sha256: str
    ) -> None:
        self.y, self.sha256 = rows.y.to(device), sha256
        self._data, self._rows, self._pixels = data, rows, pixels
        self._stream, self._device = stream, device

    def __iter__(self) -> Iterator[Batch]:
        for number, (index, raw) in enumerate(RawInOrder(self._rows)):
            rng = generator("cpu", 0, "external", self._stream, number)
            x = {name: self._pixels(t, rng) if _is_picture(t) else t for name, t in raw.x.items()}
            on_device = {name: t.to(self._device) for name, t in x.items()}
            yield self._data.batch(Rows(on_device, raw.y.to(self._device)), index.to(self._device))


def rows_of(
    name: str, external: External, data: Dataset, device: torch.device, other: Dataset | None = None
) -> ExternalRows:
    """The rows of an external test set of a task.

    Args:
        name: its own, for errors and draws.
        data: of the task, with the inputs that are read.
        other: the source that its rows are of, where they are another one's.

    Raises:
        UserError: the task's rows hold no pictures, or the other source's cannot be read in their place.
    """
    where = f"score.external.{name}"
    if not any(_is_picture(x) for x in data.test.x.values()):
        raise UserError(f"{where}: rows of {data.name} hold no pictures to change or to replace; leave it out")
    said = external.model_dump(mode="json", exclude_none=True)
    if external.change is not None:
        ((change, amount),) = external.change.items()
        digest = sha256(canonical_json({"rows": data.digest("test"), **said}))
        return ExternalRows(
            data, data.test, lambda pixels, rng: CHANGED[change](pixels, rng, amount), name, device, digest
        )
    assert other is not None
    rows = _read_alike(where, data, other)
    shapes = {tuple(x.shape[-2:]) for x in data.test.x.values() if _is_picture(x)}
    size = list(next(iter(shapes)))
    digest = sha256(canonical_json({"rows": other.digest("test"), "size": size, **said}))
    return ExternalRows(data, rows, lambda pixels, rng: _resized(pixels, external.crop, size), name, device, digest)


def _read_alike(where: str, data: Dataset, other: Dataset) -> Rows:
    """The test rows of another source, with the inputs of the task's own.

    Raises:
        UserError: one is missing or of another form, or targets mean something else.
    """
    if (other.classes, other.label_range is None) != (data.classes, data.label_range is None):
        raise UserError(f"{where}: {other.name} has {other.classes} classes, {data.name} has {data.classes}")
    if data.class_names and other.class_names and data.class_names != other.class_names:
        raise UserError(f"{where}: classes of {other.name} are not those of {data.name}, or in another order")
    found: dict[str, Any] = {}
    for name, own in data.test.x.items():
        theirs = other.test.x.get(name)
        if theirs is None:
            known = ", ".join(other.test.x)
            raise UserError(f"{where}: {other.name} has no input {name!r}, which {data.name} reads; it has {known}")
        if not _is_picture(own) and theirs.shape[1:] != own.shape[1:]:
            raise UserError(
                f"{where}: rows of {name!r} are {tuple(theirs.shape[1:])} in {other.name}, "
                f"{tuple(own.shape[1:])} in {data.name}"
            )
        if _is_picture(own) and (not _is_picture(theirs) or theirs.shape[1] != own.shape[1]):
            raise UserError(
                f"{where}: {name!r} has {theirs.shape[1]} channels in {other.name}, {own.shape[1]} in {data.name}"
            )
        found[name] = theirs
    return Rows(found, other.test.y)


def _resized(pixels: Tensor, crop: int | None, size: list[int]) -> Tensor:
    """Pictures, or their middle, at another size, bilinear with anti-aliasing."""
    kept = pixels if crop is None else v2.center_crop(pixels, [crop, crop])
    return kept if list(kept.shape[-2:]) == size else v2.resize(kept, size, antialias=True)


def _is_picture(x: Any) -> bool:
    """(N, C, H, W) bytes, in memory or on disk."""
    return len(x.shape) == 4 and x.dtype is torch.uint8
