"""Targets of which a part, masks of objects, stays compressed on disk and is read when rows are drawn."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.contract import Kept, Rows


@dataclass(frozen=True)
class StoredMasks:
    """Layers of objects' masks, each picture's compressed by zlib.

    Attributes:
        blob: all pictures' one after the other.
        bounds: (pictures + 1,) where each begins.
        rows: (N,) picture numbers of this view.
        size: (height, width) of a layer.
        digest: identifies the content.
        name: of the data set and part, for errors.
    """

    blob: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    rows: NDArray[np.int64]
    size: tuple[int, int]
    digest: str
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """(n, L, height, width) int16 on the CPU, L the most layers that any of these has.

        Raises:
            UserError: one cannot be read; names its row.
        """
        chosen = self.rows[index] if isinstance(index, slice) else self.rows[index.cpu().numpy()]
        read = [self._layers(int(row)) for row in chosen]
        made = np.zeros((len(read), max(map(len, read), default=1), *self.size), np.int16)
        for place, layers in enumerate(read):
            made[place, : len(layers)] = layers
        return torch.from_numpy(made)

    def _layers(self, row: int) -> NDArray[np.int16]:
        try:
            content = zlib.decompress(self.blob[self.bounds[row] : self.bounds[row + 1]].tobytes())
            return np.frombuffer(content, np.int16).reshape(-1, *self.size)
        except (zlib.error, ValueError) as error:
            raise UserError(f"{self.name} row {row}: its masks cannot be read ({error}); get the data again") from error

    def select(self, index: Tensor) -> StoredMasks:
        return replace(self, rows=self.rows[index.cpu().numpy()])


def kept(y: Any) -> dict[str, Kept]:
    """The parts of targets that are read when rows are drawn, by name."""
    if not is_dataclass(y):
        return {}
    held = {one.name: getattr(y, one.name) for one in fields(y)}
    return {name: part for name, part in held.items() if isinstance(part, Kept)}


def without(y: Any) -> Any:
    """Targets without the parts that are :func:`kept`."""
    parts = kept(y)
    return replace(y, **dict.fromkeys(parts)) if parts else y


def chosen(y: Any, index: Tensor) -> Any:
    """Targets of some rows; what is kept stays where it is."""
    parts = kept(y)
    return (
        replace(without(y)[index], **{name: part.select(index) for name, part in parts.items()}) if parts else y[index]
    )


def columns(rows: Rows) -> dict[str, Kept]:
    """Parts of the targets as columns beside inputs, whose names have no dot before them."""
    return {f".{name}": part for name, part in kept(rows.y).items()}


def filled(y: Any, drawn: dict[str, Tensor]) -> Any:
    """Targets of drawn rows with what was read of :func:`columns`, which is taken out of ``drawn``."""
    parts = {name: drawn.pop(name) for name in [name for name in drawn if name.startswith(".")]}
    return replace(y, **{name[1:]: part for name, part in parts.items()}) if parts else y
