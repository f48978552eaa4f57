"""Frames of video files, through the optional package av (PyAV), which brings FFmpeg."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image

from kdbench.base.errors import UserError

QUALITY = 95
"""Of the JPEG pictures that frames are kept as; videos are lossy already."""
WHOLE = 0.95
"""Share of the frames, or of the time, told in a file's header below which it counts as cut off."""
SLACK = 0.1
"""Seconds that the last frame may begin before that time."""


def pictures(file: bytes, short: int, where: str) -> Iterator[bytes]:
    """The frames of a video in order, as JPEG pictures.

    Args:
        file: a video file; the first video stream of it is read.
        short: frames whose shorter side has more pixels are brought to this.
        where: file and row, for messages.

    Raises:
        UserError: av is not installed; the bytes are no video, are damaged or cut off.
    """
    av = _library(where)
    if not file:
        raise UserError(f"{where}: a video of zero bytes; get the file again")
    count, last = 0, 0.0
    try:
        with av.open(io.BytesIO(file)) as container:
            if not container.streams.video:
                raise UserError(f"{where}: a file without a video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            told, seconds = stream.frames, (container.duration or 0) / av.time_base
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise UserError(f"{where}: the video is cut off or damaged; get the file again")
                for frame in packet.decode():
                    count, last = count + 1, float(frame.time or 0.0)
                    yield _jpeg(frame.to_image(), short)
    except av.FFmpegError as error:
        raise UserError(f"{where}: no video, or a damaged one ({error.strerror}); get the file again") from error
    if (count < WHOLE * told) if told else (last < WHOLE * seconds - SLACK):
        raise UserError(f"{where}: the video is cut off after {count} frames; get the file again")


def _jpeg(picture: Image.Image, short: int) -> bytes:
    scale = short / min(picture.size)
    if scale < 1:
        width, height = (max(short, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _library(where: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"{where}: a video file, read by the package av: pip install 'kdbench[video]', or give lists of pictures"
        ) from error
    return av
