"""Inputs that a task makes by reduction, among those of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdbench.base.errors import UserError
from kdbench.data.feed.dataset import Dataset, Derived
from kdbench.specs.reduced import Reduced, shapes


@dataclass(frozen=True)
class Reduction:
    """Pictures with each side ``by`` times as small, or enlarged back: see :class:`kdbench.specs.reduced.Reduced`."""

    by: int
    enlarge: bool
    filter: str

    def __call__(self, pixels: Tensor, rng: torch.Generator | None) -> Tensor:
        """(N, ..., H, W) uint8 to (N, ..., H / by, W / by) uint8, or to the size they had."""
        by = self.by
        if self.filter == "box":
            whole = pixels.unflatten(-1, (-1, by)).unflatten(-3, (-1, by))
            small = whole.float().mean((-3, -1)).round().to(torch.uint8)
        else:
            small = pixels[..., by // 2 :: by, by // 2 :: by]
        if not self.enlarge:
            return small.contiguous()
        blocks = small.unsqueeze(-1).unsqueeze(-3).expand(*small.shape[:-1], by, small.shape[-1], by)
        return blocks.flatten(-2).flatten(-3, -2)


def with_reduced(data: Dataset, inputs: Mapping[str, Reduced] | None) -> Dataset:
    """A data set with the inputs that a task makes of its pictures.

    Raises:
        UserError: an input cannot be made: see :func:`kdbench.specs.reduced.shapes`.
    """
    if not inputs:
        return data
    shapes(dict(inputs), {name: data.shape(name) for name in (*data.train.x, *data.derived)})
    for name, given in inputs.items():
        if given.origin in data.derived or data.train.x[given.origin].dtype is not torch.uint8:
            raise UserError(f"data.inputs.{name}.from: {given.origin!r} holds no pictures as they are; name those")
    made = {name: Reduction(given.reduce, given.enlarge, given.filter) for name, given in inputs.items()}
    return replace(
        data,
        transforms={**data.transforms, **{name: data.transforms[given.origin] for name, given in inputs.items()}},
        derived={**data.derived, **{name: Derived(given.origin, made[name]) for name, given in inputs.items()}},
        made={**data.made, **{name: given.model_dump(mode="json") for name, given in inputs.items()}},
    )
