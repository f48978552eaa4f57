"""What some picture files have in common: modes, sizes, mean and deviation, and what of them is lost in reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kdbench.base.errors import UserError
from kdbench.data.decode.columns import MODES
from kdbench.data.decode.picture import DEEP, UNREADABLE, WHITE_16, damaged, eight_bit, opened, upright

DENSE_UP_TO = 64
"""Pictures of one size up to this are kept as pixels, others compressed."""
SHRUNK = 64
"""Pixels of a side that pictures of several sizes are brought to, until their owner says otherwise."""
WORDS = {
    "L": "grey", "1": "black and white", "P": "with a palette", "RGBA": "with an alpha channel, which is left out",
    "LA": "grey with an alpha channel, which is left out", "PA": "with a palette and an alpha channel", "CMYK": "CMYK",
}  # fmt: skip
"""Pillow's modes in words."""
SCALES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
"""Values of white in pictures of more than 8 bits: floating-point ones, and those of 8 to 16 bits."""


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        size: (height, width) of all, None where sizes differ or are large.
        channels: 1 where all are grey, else 3.
        convert: pictures of several modes are among them.
        white: value of white in those of more than 8 bits, None where nothing need be said.
        mean, std: by channel.
        notes: what is done to them when they are read, and what that loses.
    """

    size: tuple[int, int] | None
    channels: int
    convert: bool
    white: float | None
    mean: Sequence[float]
    std: Sequence[float]
    notes: Sequence[str]


def shrunk() -> tuple[int, int]:
    """Side of what networks see of compressed pictures, and what their short side is brought to before."""
    return SHRUNK, SHRUNK + SHRUNK // 8


def look(files: Iterable[tuple[str, bytes]]) -> Look:
    """Reads some picture files.

    Args:
        files: where each lies, for messages, and its content.

    Raises:
        UserError: one is no picture, damaged, or of values that cannot be scaled to 8 bits.
    """
    modes: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    pictures = [(where, content) for where, content in files]
    white = _white(pictures)
    clear = 0
    for where, content in pictures:
        try:
            picture = eight_bit(upright(opened(content, where)[0]), white)
            modes[picture.mode] += 1
            sizes.append(picture.size)
            colours = np.asarray(picture.convert("RGB"))
            clear += _in_alpha_alone(picture, colours)
            pixels = colours.astype(np.float64).reshape(-1, 3) / 255
        except UNREADABLE as error:
            raise damaged(where, error) from error
        except UserError as error:
            raise UserError(str(error) if str(error).startswith(where) else f"{where}: {error}") from error
        sums, squares, count = sums + pixels.sum(0), squares + np.square(pixels).sum(0), count + len(pixels)
    width, height = sizes[0]
    size = (height, width) if len(set(sizes)) == 1 and max(width, height) <= DENSE_UP_TO else None
    channels = 1 if modes.keys() <= {"L", "1"} else 3
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0)).clip(min=0.01)
    notes = _kept(size) if size is not None else _cropped(sizes)
    notes += _converted(modes, channels)
    if white is not None:
        notes.append(f"grey values of more than 8 bits: {white:g} is taken for white (`white` in the set's file)")
    if clear:
        notes.append(
            f"{clear} of {len(sizes)} pictures looked at are drawn in the alpha channel alone, which is left out; "
            "paint them onto a background"
        )
    return Look(
        size=size,
        channels=channels,
        convert=modes.keys() != {MODES[channels]},
        white=white,
        mean=[round(float(value), 4) for value in mean[:channels]],
        std=[round(float(value), 4) for value in std[:channels]],
        notes=notes,
    )


def _white(pictures: Sequence[tuple[str, bytes]]) -> float | None:
    """The value of white in pictures of more than 8 bits; None without any, or for the full scale of 16 bits."""
    highest: dict[bool, float] = {}
    for where, content in pictures:
        picture = opened(content, where)[0]
        if picture.mode in DEEP:
            try:
                highest[picture.mode == "F"] = max(
                    float(np.asarray(picture).max()), highest.get(picture.mode == "F", 0.0)
                )
            except UNREADABLE as error:
                raise damaged(where, error) from error
    if len(highest) == 2:
        raise UserError(
            f"{pictures[0][0]} and its like: floating-point and whole grey values; give all pictures one type"
        )
    if not highest:
        return None
    ((floating, most),) = highest.items()
    scale = next((scale for scale in SCALES[not floating :] if most <= scale), most)
    return None if scale == WHITE_16 and not floating else scale


def _in_alpha_alone(picture: Image.Image, colours: np.ndarray) -> bool:
    """Whether a picture has one colour throughout, and its shape in the alpha channel."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return False
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    return bool((colours == colours[0, 0]).all() and (alpha != alpha[0, 0]).any())


def _kept(size: tuple[int, int]) -> list[str]:
    height, width = size
    return [f"pictures of {width}x{height} pixels are kept as they are, neither resized nor cropped (`size`)"]


def _converted(modes: Mapping[str, int], channels: int) -> list[str]:
    """What pictures are brought to, and how many of those looked at are of another mode."""
    own = MODES[channels]
    others = ", ".join(f"{count} {WORDS.get(mode, mode)}" for mode, count in modes.items() if mode != own)
    said = f"; of {sum(modes.values())} looked at, {others} are converted" if others else ""
    return [f"networks see {'grey, 1 channel' if channels == 1 else 'RGB, 3 channels'} (`channels`){said}"]


def _cropped(sizes: Sequence[tuple[int, int]]) -> list[str]:
    """How pictures are brought to a square, and what that leaves out."""
    size, short = shrunk()
    shown = " to ".join(f"{width}x{height}" for width, height in dict.fromkeys((min(sizes), max(sizes))))
    (width, height), several = max(sizes), len(set(sizes)) > 1
    whole = [max(1, round(size * side / min(width, height))) for side in (height, width)]
    other = f"; `size: {whole}` with `resize: {size}` keeps them whole" if not several and width != height else ""
    kept = [(size / short) ** 2 * min(pair) / max(pair) for pair in sizes]
    return [
        f"pictures of {shown} pixels: the short side is brought to {short}, then the centre {size}x{size} is cut out, "
        f"{' to '.join(dict.fromkeys((f'{min(kept):.0%}', f'{max(kept):.0%}')))} of a picture (`size` and `resize` in "
        f"the set's file{other})"
    ]
