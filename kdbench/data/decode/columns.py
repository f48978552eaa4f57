"""Writers of decoded columns: each takes one row's value after the other and checks it, then closes its files.

A column of numbers is ``<part>.<input>.npy``; a stored one is ``.bin`` (all files, one after the other),
``.bounds.npy`` and ``.first.npy``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdbench.base.errors import UserError
from kdbench.data.decode import video
from kdbench.data.decode.fit import Fit
from kdbench.data.decode.inputs import ClipInput, ImageInput, Input, PictureInput, SoundInput, VectorInput, height_width
from kdbench.data.decode.picture import UNREADABLE, damaged, eight_bit, opened, sides, upright, whole
from kdbench.data.decode.sound import log_mel

MODES = {1: "L", 3: "RGB"}
BLOCK = 1000
"""Pictures summed at a time."""


class Dense:
    """Rows of one shape in one array.

    Args:
        base: path without suffix.
        rows: at most this many.
        shape: of one row.
    """

    def __init__(self, base: Path, rows: int, shape: tuple[int, ...], dtype: type) -> None:
        self.path = base.with_name(base.name + ".npy")
        self.array = np.lib.format.open_memmap(self.path, mode="w+", dtype=dtype, shape=(rows, *shape))
        if hasattr(os, "posix_fallocate"):  # else a full disk ends the process with SIGBUS at some row
            with self.path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        self.count = 0

    def add(self, values: NDArray[Any]) -> None:
        """Appends a row."""
        self.array[self.count] = values
        self.count += 1

    def close(self) -> None:
        """Writes what was added and no more."""
        self.array.flush()
        if self.count < len(self.array):
            kept = np.array(self.array[: self.count])
            np.save(self.path, kept)


class Writer:
    """Turns the values of one input into a column.

    Args:
        given: the input.
        base: path without suffix.
        rows: at most this many.

    Attributes:
        came: (height, width) of the picture added last, as it came.
    """

    def __init__(self, given: Input, base: Path, rows: int) -> None:
        self.given = given
        self.jpeg = False
        self.came = (0, 0)
        self.dense = None if isinstance(given, PictureInput | ClipInput) else Dense(base, rows, *_layout(given))
        self._base = base
        self._blob = None if self.dense is not None else base.with_name(base.name + ".bin").open("wb")
        self._bounds, self._first = [0], [0]

    def add(self, row: dict[str, Any], at: str) -> bytes:
        """Appends a row.

        Args:
            at: file and row, for messages.

        Returns:
            The bytes that identify the content whatever the file's format: pixels, numbers or samples; of a JPEG file,
            whose pixels depend on the decoder, the file.

        Raises:
            UserError: the value is not what the input holds; names file, row and column.
        """
        value = row[self.given.column]
        file = value.get("path") if isinstance(value, dict) else None  # as `datasets` keeps it beside the bytes
        where = f"{at}{f' ({file})' if file else ''}, column {self.given.column!r}"
        if self.dense is None:
            return self._keep(value, where)
        given = self.given
        if isinstance(given, ImageInput):
            file = file_content(value, where)
            pixels, jpeg = self._image(file, given, where)
            self.jpeg |= jpeg
            self.dense.add(pixels)
            return file if jpeg else pixels.tobytes()
        if isinstance(given, VectorInput):
            numbers = vector(value, given, where)
            self.dense.add(numbers)
            return numbers.tobytes()
        assert isinstance(given, SoundInput)
        wave = samples(value, row[given.rate_column], given, where)
        self.dense.add(
            log_mel(wave, rate=given.rate, samples=given.samples, window=given.window, hop=given.hop, bands=given.bands)
        )
        return wave.tobytes()

    def _image(self, file: bytes, given: ImageInput, where: str) -> tuple[NDArray[np.uint8], bool]:
        """(channels, height, width) pixels, and whether the file is a JPEG file."""
        picture, jpeg = opened(file, where)
        mode = MODES[given.channels]
        try:
            picture = eight_bit(upright(picture), given.white)
        except UNREADABLE as error:
            raise damaged(where, error) from error
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if picture.mode != mode and not given.convert:
            channels = len(picture.getbands())
            raise UserError(
                f"{where}: a {channels}-channel picture ({picture.mode}), {given.channels} channels expected"
            )
        self.came = (picture.height, picture.width)
        self._is_of_size(where)
        try:
            pixels = np.asarray(Fit.of(given).picture(picture.convert(mode)))
        except UNREADABLE as error:
            raise damaged(where, error) from error
        return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), jpeg

    def _is_of_size(self, where: str) -> None:
        """Refuses a picture of another size, where one is expected."""
        given = self.given
        if not isinstance(given, ImageInput | PictureInput) or given.fit != "exact":
            return
        height, width = height_width(given.size)
        if self.came != (height, width):
            found = f"{self.came[1]}x{self.came[0]}"
            how = "`kind: picture` reads any size" if given.kind == "image" else "`fit: scale` reads any size"
            raise UserError(f"{where}: a picture of {found} pixels, {width}x{height} expected; {how}")

    def _keep(self, value: Any, where: str) -> bytes:
        """Writes a row's pictures, of a video every frame."""
        assert self._blob is not None
        files, content = self._pictures(value, where)
        begin = len(self._bounds)
        for file in files:
            self._blob.write(file)
            self._bounds.append(self._bounds[-1] + len(file))
        count = len(self._bounds) - begin
        if isinstance(self.given, ClipInput) and count < (1 if self.given.loop else self.given.frames):
            raise UserError(f"{where}: a video of {count} frames, the clip takes {self.given.frames}")
        self._first.append(self._first[-1] + count)
        return content

    def _pictures(self, value: Any, where: str) -> tuple[Iterable[bytes], bytes]:
        """The picture files of a row, and what identifies it."""
        if not isinstance(self.given, ClipInput):
            value = [value]
        elif not isinstance(value, list):
            content = file_content(value, where, "video")
            return video.pictures(content, self.given.keep, where), content
        files = [file_content(picture, where) for picture in value]
        white = self.given.white if isinstance(self.given, PictureInput) else None
        for file in files:
            picture, jpeg = opened(file, where)
            self.came = sides(picture)
            self._is_of_size(where)
            whole(file, picture, where, white)
            self.jpeg |= jpeg
        return files, b"".join(files)

    def moments(self) -> tuple[list[int], list[int]] | None:
        """Of a closed column of pictures of one size, the sum of each channel's values and of their squares."""
        if self.dense is None or not isinstance(self.given, ImageInput):
            return None
        pixels = np.load(self.dense.path, mmap_mode="r")
        sums, squares = np.zeros((2, self.given.channels), np.int64)
        for begin in range(0, len(pixels), BLOCK):
            block = pixels[begin : begin + BLOCK].astype(np.uint16)
            sums += block.sum((0, 2, 3), dtype=np.int64)
            squares += np.square(block).sum((0, 2, 3), dtype=np.int64)
        return sums.tolist(), squares.tolist()

    def close(self) -> None:
        """Finishes the files."""
        if self.dense is not None:
            self.dense.close()
            return
        assert self._blob is not None
        self._blob.close()
        for suffix, numbers in (("bounds", self._bounds), ("first", self._first)):
            np.save(self._base.with_name(f"{self._base.name}.{suffix}.npy"), np.asarray(numbers, dtype=np.int64))


def _layout(given: Input) -> tuple[tuple[int, ...], type]:
    """Shape and type of one row."""
    if isinstance(given, ImageInput):
        return (given.channels, *height_width(given.size)), np.uint8
    if isinstance(given, VectorInput):
        return (given.size,), np.float32
    assert isinstance(given, SoundInput)
    return (given.bands, 1 + (given.samples - given.window) // given.hop), np.float32


def file_content(value: Any, where: str, what: str = "picture") -> bytes:
    """The bytes of a picture or video file, as parquet files of the hub hold them."""
    found = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(found, bytes):
        raise UserError(f"{where}: no {what} there, but {type(found).__name__}")
    if not found:
        raise UserError(f"{where}: a {what} of zero bytes; get the file again")
    return found


def vector(value: Any, given: VectorInput, where: str) -> NDArray[np.float32]:
    """A stored feature; NaN throughout where an optional one is not there."""
    if value is None and given.optional:
        return np.full(given.size, np.nan, np.float32)
    try:
        found = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {given.size} numbers are expected, found {type(value).__name__}") from error
    if found.shape != (given.size,):
        raise UserError(f"{where}: {given.size} numbers are expected, found shape {found.shape}")
    if not np.isfinite(found).all():
        raise UserError(f"{where}: number {int(np.flatnonzero(~np.isfinite(found))[0])} is not finite")
    return found


def samples(value: Any, rate: Any, given: SoundInput, where: str) -> NDArray[np.int16]:
    """A row's waveform."""
    if rate != given.rate:
        raise UserError(f"{where}: {rate} samples a second, {given.rate} expected")
    try:
        wave = np.asarray(value if value is not None else [])
    except ValueError as error:  # lists of different lengths
        raise UserError(f"{where}: a list of int16 samples is expected") from error
    if wave.ndim != 1 or not len(wave) or wave.dtype.kind not in "iu":
        raise UserError(f"{where}: a list of int16 samples is expected, found {wave.size} of type {wave.dtype}")
    if wave.max() > 32767 or wave.min() < -32768:
        raise UserError(f"{where}: sample {int(np.abs(wave).argmax())} is outside int16")
    return wave.astype(np.int16)
