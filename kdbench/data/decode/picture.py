"""Picture files as people have them, as upright pictures of 8 bits."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from kdbench.base.errors import UserError

UNREADABLE = (OSError, ValueError, SyntaxError)
"""What Pillow raises on a picture that is cut off or damaged."""
DEEP = {"I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
"""Pillow's modes of one channel with more than 8 bits; it cuts them to 0 and 255 where they should be scaled."""
WHITE_16 = 65535
"""Full scale of 16 bits."""
_ORIENTATION = 0x0112
_LYING = {5, 6, 7, 8}
"""Orientations whose width is a height."""
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}
"""What a whole file ends with, of formats that Pillow reads on without an error where bytes within are wrong."""
_TAIL = 1024


def opened(file: bytes, where: str) -> tuple[Image.Image, bool]:
    """The picture, its pixels not read yet, and whether it is a JPEG file.

    Raises:
        UserError: no picture, or one of more pixels than Pillow's limit, which a small file may claim to have.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UserError(f"{where}: a picture of more than {most:.0f} million pixels; make it smaller") from error
    except UNREADABLE as error:
        raise UserError(f"{where}: {len(file)} bytes that are no picture; get the file again") from error
    return picture, picture.format == "JPEG"


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says, as viewers and `datasets` show it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about EXIF that is cut off
            turned = picture.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # cameras write EXIF that its reader fails on in many ways; such pictures are shown as stored
        return picture
    return ImageOps.exif_transpose(picture) if turned else picture


def sides(picture: Image.Image) -> tuple[int, int]:
    """Height and width of the picture once it is :func:`upright`, told without reading its pixels."""
    try:
        turned = picture.getexif().get(_ORIENTATION, 1) in _LYING
    except Exception:  # as of `upright`
        turned = False
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def eight_bit(picture: Image.Image, white: float | None) -> Image.Image:
    """A picture of more than 8 bits scaled to grey ones; any other as it is.

    Args:
        white: the value that becomes 255; None for the full scale of 16 bits, which floating-point pictures lack.

    Raises:
        UserError: values outside 0 to ``white``, or no scale for floating-point ones.
    """
    if picture.mode not in DEEP:
        return picture
    if picture.mode == "F" and white is None:
        raise UserError("floating-point grey values (F): write `white: VALUE`, the value of white, into the set's file")
    scale = WHITE_16 if white is None else white
    values = np.asarray(picture, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= scale):  # written so that NaN is refused as well
        raise UserError(f"grey values of {low:g} to {high:g} ({picture.mode}), 0 to {scale:g} are read; see `white`")
    return Image.fromarray(np.rint(values * (255 / scale)).astype(np.uint8))


def whole(file: bytes, picture: Image.Image, where: str, white: float | None) -> None:
    """Refuses a picture that cannot be read to its end.

    A JPEG file that has its end mark is not decoded: Pillow finds no other fault in one.

    Raises:
        UserError: it is cut off or damaged, or its values are not those :func:`eight_bit` takes.
    """
    end = _ENDS.get(picture.format or "")
    if end is not None and end in file[-_TAIL:]:
        return
    try:
        picture.load()
        eight_bit(picture, white)
    except UNREADABLE as error:
        raise damaged(where, error) from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def damaged(where: str, error: Exception) -> UserError:
    """The error for a picture that cannot be read to its end."""
    return UserError(f"{where}: the picture is cut off or damaged ({error}); get the file again")
