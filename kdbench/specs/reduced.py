"""Inputs that a task makes of another one's pictures, each side some times as small (``data.inputs``). No torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints

from kdbench.base.errors import UserError, nearest
from kdbench.specs.block import Block

FILTERS = {
    "box": "the mean of the pixels that become one, rounded to a whole grey value",
    "nearest": "the pixel in their middle, of an even number the one after it",
}
"""How pixels become one."""


def _known(given: Any) -> Any:
    if given not in FILTERS:
        raise ValueError(f"unknown filter {given!r}{nearest(str(given), FILTERS)}; filters are {', '.join(FILTERS)}")
    return given


class Reduced(Block):
    """An input made of another one's pictures after their augmentation, normalised as these are.

    Attributes:
        origin: ``from``: an input of the data source.
        reduce: how many pixels of a side become one.
        enlarge: brought back to the size they had, each pixel repeated; False leaves them small.
        filter: one of :data:`FILTERS`.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    origin: Annotated[str, StringConstraints(min_length=1, max_length=120)] = Field(alias="from")
    reduce: int = Field(ge=2, le=4096)
    enlarge: bool = False
    filter: Annotated[str, BeforeValidator(_known)] = "box"

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one row, from that of a row of the input it is made of, (channels, ..., height, width).

        Args:
            name: its own, for errors.

        Raises:
            UserError: no picture, one smaller than the reduction, or one that it does not divide.
        """
        where = f"data.inputs.{name}"
        if len(shape) < 3:
            raise UserError(f"{where}: {self.origin!r} has rows of shape {shape}; reduce pictures")
        high, wide = shape[-2:]
        words = f"pictures of {self.origin!r} are {high}x{wide}"
        if min(high, wide) < self.reduce:
            raise UserError(f"{where}: {words}, smaller than the {self.reduce} pixels of a side that become one")
        if high % self.reduce or wide % self.reduce:
            fits = [str(by) for by in range(2, min(high, wide) + 1) if not high % by and not wide % by]
            use = f"use one of {', '.join(fits)}" if fits else "no reduction does"
            raise UserError(f"{where}: {words}, which reduce: {self.reduce} does not divide; {use}")
        return shape if self.enlarge else (*shape[:-2], high // self.reduce, wide // self.reduce)


def shapes(inputs: dict[str, Reduced], given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of a source's inputs and of those made of them.

    Raises:
        UserError: one is of the name of a source's input, is made of none, or cannot be made; names the nearest.
    """
    made = dict(given)
    for name, reduced in inputs.items():
        if name in given:
            raise UserError(f"data.inputs.{name}: the data source has an input of this name; choose another")
        if reduced.origin not in given:
            known = f"{nearest(reduced.origin, given)}; its inputs are {', '.join(given)}"
            raise UserError(f"data.inputs.{name}.from: the data source has no input {reduced.origin!r}{known}")
        made[name] = reduced.shape(name, given[reduced.origin])
    return made
