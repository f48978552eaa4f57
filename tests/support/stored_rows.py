"""Pictures kept compressed, as a data set on disk holds them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from kdbench.data.feed.stored import Geometry, Stored


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture without fine detail, so that resampling twice changes little."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def stored(rows: list[list[Image.Image]], frames: int | None, size: int = 24, resize: int = 32) -> Stored:
    files = []
    for row in rows:
        for picture in row:
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            files.append(buffer.getvalue())
    bounds = np.cumsum([0, *map(len, files)])
    first = np.cumsum([0, *map(len, rows)])
    blob = np.frombuffer(b"".join(files), np.uint8)
    return Stored(blob, bounds, first, np.arange(len(rows)), Geometry(size, resize), frames, "0" * 64, "toy train")
