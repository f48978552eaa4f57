"""Columns that stay compressed in a memory-mapped file and are decoded when a batch is drawn: photographs and clips."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.data.decode.columns import MODES
from kdbench.data.decode.fit import Fit
from kdbench.data.decode.inputs import height_width
from kdbench.data.decode.picture import UNREADABLE, eight_bit, upright

RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop (Szegedy et al. 2015, as in torchvision's RandomResizedCrop)."""
TRIES = 10


@dataclass(frozen=True)
class Geometry:
    """How a picture of any size becomes one of a given size.

    Attributes:
        size: pixels of each side of the result, or (height, width).
        resize: the short side is brought to this before the centre is cut out (test rows); where the result is no
            square, the picture is scaled to cover one of its shape whose short side is this. None of whole pictures.
        fit: of these, how they become one of the size.
    """

    size: int | tuple[int, int]
    resize: int | None
    fit: Fit | None = None

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) of the result."""
        return height_width(self.size)

    @property
    def aspect(self) -> float:
        """Width over height of the result."""
        height, width = self.sides
        return width / height

    def centre(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The box, in source pixels, that ends up in the picture: resize the short side, cut out the centre."""
        if self.resize is None:  # of rows made in training, which are of the size already
            return 0.0, 0.0, float(width), float(height)
        high, wide = self.sides
        short = min(high, wide)
        scale = max(self.resize * wide / short / width, self.resize * high / short / height)
        w, h = max(wide, int(width * scale)), max(high, int(height * scale))
        left, top = round((w - wide) / 2), round((h - high) / 2)
        return (
            left * width / w,
            top * height / h,
            (left + wide) * width / w,
            (top + high) * height / h,
        )


def random_box(
    width: int, height: int, least: float, rng: np.random.Generator, aspect: float = 1.0
) -> tuple[int, int, int, int]:
    """A box of at least ``least`` of the area, of a width-to-height ratio in ``RATIO``, as torchvision draws it.

    Args:
        aspect: width over height of what the box becomes; ratios are multiples of it.

    Returns:
        left, top, right, bottom.
    """
    for _ in range(TRIES):
        area = width * height * rng.uniform(least, 1.0)
        ratio = aspect * math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    if width / height < aspect * RATIO[0]:
        w, h = width, round(width / (aspect * RATIO[0]))
    elif width / height > aspect * RATIO[1]:
        w, h = round(height * aspect * RATIO[1]), height
    else:
        w, h = width, height
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


@dataclass(frozen=True)
class Stored:
    """Compressed pictures, one or ``frames`` of them a row; (N, C, H, W) or (N, 3, T, H, W) uint8 when read.

    Rows made in training may stand behind those of the file; they are held in memory, of their final size already.

    Attributes:
        blob: all files one after the other.
        bounds: (files + 1,) where each file begins.
        first: (N + 1,) which files belong to a row.
        rows: row numbers of this view of the column.
        frames: length of a clip, None for single pictures.
        digest: identifies the content.
        name: of the data set and part, for errors.
        names: a file with a line on where each row came from, for errors; None where it is not known.
        white: value of white in pictures of more than 8 bits, None for the full scale of 16.
        channels: C, 1 for grey or 3 for RGB.
        behind: (M, C, H, W) or (M, 3, T, H, W) uint8 rows behind the file's, None without any.
    """

    blob: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    first: NDArray[np.int64]
    rows: NDArray[np.int64]
    geometry: Geometry
    frames: int | None
    digest: str
    name: str
    behind: NDArray[np.uint8] | None = None
    names: Path | None = None
    white: float | None = None
    channels: int = 3
    dtype: torch.dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W) or (N, 3, T, H, W)."""
        frames = () if self.frames is None else (self.frames,)
        return (len(self.rows), self.channels, *frames, *self.geometry.sides)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, index: Tensor) -> Stored:
        """Some rows of the column."""
        return replace(self, rows=self.rows[index.cpu().numpy()])

    def append(self, pixels: Tensor) -> Stored:
        """The column with more rows behind it: (M, C, H, W) or (M, 3, T, H, W) uint8 pixels."""
        more = pixels.to("cpu", torch.uint8).numpy()
        behind = more if self.behind is None else np.concatenate([self.behind, more])
        begin = len(self.first) - 1 + len(behind) - len(more)
        return replace(self, behind=behind, rows=np.concatenate([self.rows, begin + np.arange(len(more))]))

    def to(self, *_: Any) -> Stored:
        """Stored columns stay where they are; what is read from them is moved."""
        return self

    def __getitem__(self, index: Tensor) -> Tensor:
        """Rows in test geometry: centre crop, the middle frames."""
        return self.read(index, None, 1.0)

    def read(self, index: Tensor, rng: np.random.Generator | None, least: float, like: Stored | None = None) -> Tensor:
        """Rows by number.

        Args:
            rng: draws a crop and, of a clip, a window of frames for each row; None takes the centre of both.
            least: smallest share of the area that a drawn crop keeps.
            like: another column of the same pictures, whose draws these are; ``rng`` is in the state it began with.

        Raises:
            UserError: a picture cannot be decoded; names its row.
        """
        rows = [self._row(int(self.rows[i]), rng, least, like or self) for i in index.tolist()]
        return torch.from_numpy(np.ascontiguousarray(np.stack(rows)))  # layout decides the last bits of a convolution

    def _row(self, row: int, rng: np.random.Generator | None, least: float, like: Stored) -> NDArray[np.uint8]:
        held = row - (len(self.first) - 1)
        if held >= 0:
            return self._held(held, rng, least, like)
        files = np.arange(self.first[row], self.first[row + 1])
        if self.frames is not None:
            files = self._window(files, rng, like)
        pictures = [self._open(int(file), row) for file in files]
        width, height = pictures[0].size
        aspect = like.geometry.aspect
        box = self.geometry.centre(width, height) if rng is None else random_box(width, height, least, rng, aspect)
        fit = self.geometry.fit if rng is None else None
        try:
            pixels = [
                self._resized(picture, box) if fit is None else _array(fit.picture(picture)) for picture in pictures
            ]
        except UNREADABLE as error:
            raise self._unreadable(row, error) from error
        clip = np.stack(pixels).transpose(3, 0, 1, 2)
        return clip[:, 0] if self.frames is None else clip

    def _held(self, row: int, rng: np.random.Generator | None, least: float, like: Stored) -> NDArray[np.uint8]:
        """A row in memory; a crop is drawn for it as for a stored one."""
        assert self.behind is not None
        pixels = self.behind[row]
        if rng is None:
            return pixels
        (high, wide), (base_high, base_wide) = self.geometry.sides, like.geometry.sides
        left, top, right, bottom = random_box(base_wide, base_high, least, rng, like.geometry.aspect)
        across, down = wide / base_wide, high / base_high
        box = (left * across, top * down, right * across, bottom * down)
        clip = pixels[:, None] if self.frames is None else pixels
        images = (frame if self.channels > 1 else frame[..., 0] for frame in clip.transpose(1, 2, 3, 0))
        frames = [self._resized(Image.fromarray(image), box) for image in images]
        resized = np.stack(frames).transpose(3, 0, 1, 2)
        return resized[:, 0] if self.frames is None else resized

    def _resized(self, picture: Image.Image, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        height, width = self.geometry.sides
        return _array(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))

    def _window(self, files: NDArray[np.int64], rng: np.random.Generator | None, like: Stored) -> NDArray[np.int64]:
        """``frames`` consecutive files, about the middle of the window that ``like`` draws; a short video is looped."""
        assert self.frames is not None
        assert like.frames is not None
        spare, drawn = (max(0, len(files) - frames) for frames in (self.frames, like.frames))
        begin = spare // 2
        if rng is not None:
            shift = (like.frames - self.frames) // 2 if like.frames != self.frames else 0
            begin = min(spare, max(0, int(rng.integers(drawn + 1)) + shift))
        return files[(begin + np.arange(self.frames)) % len(files)]

    def _open(self, file: int, row: int) -> Image.Image:
        content = self.blob[self.bounds[file] : self.bounds[file + 1]].tobytes()
        try:
            return eight_bit(upright(Image.open(io.BytesIO(content))), self.white).convert(MODES[self.channels])
        except (*UNREADABLE, UserError) as error:
            raise self._unreadable(row, error) from error

    def _unreadable(self, row: int, error: Exception) -> UserError:
        lines = self.names.read_bytes().split(b"\n") if self.names is not None and self.names.is_file() else []
        file = f" ({lines[row].decode('utf-8', 'replace')})" if row < len(lines) else ""
        return UserError(f"{self.name} row {row}{file}: a picture cannot be decoded ({error}); get the data again")


def _array(picture: Image.Image) -> NDArray[np.uint8]:
    """(H, W, C)."""
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]
