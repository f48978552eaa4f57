"""A few test pictures with what a network answers to them, for people to look at."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdbench.contract import Rows
from kdbench.data.feed.dataset import take
from kdbench.data.feed.loader import InOrder
from kdbench.engine.task import Task
from kdbench.records.examples import Example, Examples

SHOWN = 3
LARGEST = 512
"""Pixels of a picture's longer side, above which it is not kept."""


def of(task: Task, net: nn.Module) -> Examples | None:
    """The test pictures in the middle of each third, as the student reads them; None where nothing is drawn on such.

    Args:
        net: the deployed network.
    """
    test = task.data.test
    read = getattr(net, "input", None) or task.spec.pair.student.input
    if len(test.y) < SHOWN or read not in test.x:
        return None
    rows = torch.tensor([len(test.y) * (2 * place + 1) // (2 * SHOWN) for place in range(SHOWN)])
    chosen = take(test, rows)
    raw = chosen.x[read]
    if not _is_picture(raw):
        return None
    here = Rows({name: x.to(task.device) for name, x in chosen.x.items()}, chosen.y.to(task.device))
    marks = task.marked(net, InOrder(task.data, here))
    if not marks:
        return None
    sides = _sides(chosen.y, raw)
    examples = tuple(
        Example(row, f"{row}.png", width, height, tuple(there), tuple(found))
        for row, (height, width), (there, found) in zip(rows.tolist(), sides, marks, strict=True)
    )
    pictures = {one.picture: _png(raw[place, :, : one.height, : one.width]) for place, one in enumerate(examples)}
    return Examples(task.data.class_names, examples, pictures)


def _sides(y: Any, raw: Tensor) -> list[tuple[int, int]]:
    """Height and width of pictures, without padding where targets tell of it."""
    known: Tensor | None = getattr(y, "sizes", None)
    if known is None:
        return [(raw.shape[-2], raw.shape[-1])] * len(raw)
    return [(int(height), int(width)) for height, width in known.tolist()]


def _is_picture(raw: Tensor) -> bool:
    fits = raw.dtype is torch.uint8 and raw.ndim == 4
    return fits and raw.shape[1] in (1, 3) and max(raw.shape[-2:]) <= LARGEST


def _png(pixels: Tensor) -> bytes:
    """(C, H, W) uint8 as a file."""
    from PIL import Image

    values: np.ndarray = pixels.permute(1, 2, 0).cpu().numpy()
    stream = io.BytesIO()
    Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values).save(stream, "PNG", optimize=True)
    return stream.getvalue()
