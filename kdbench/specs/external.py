"""Further test sets of a task (``score.external``): its own test rows changed, or those of another source. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from kdbench.base.errors import nearest
from kdbench.base.fields import tame
from kdbench.specs.block import Block, Word


@dataclass(frozen=True)
class Change:
    """What can be done to pictures.

    Attributes:
        about: what an amount means.
        low, high: the smallest and the largest amount; both are possible.
        whole: amounts are whole numbers.
        moves: pixels come to lie elsewhere, which targets that lie on the picture would have to follow.
    """

    about: str
    low: float
    high: float
    whole: bool = False
    moves: bool = False


CHANGES: Mapping[str, Change] = {
    "noise": Change("standard deviation of normal noise on each pixel, of its range", 0.001, 1.0),
    "blur": Change("standard deviation in pixels of a Gaussian that pictures are blurred with", 0.1, 20.0),
    "contrast": Change("distances from the mean grey are multiplied by this", 0.0, 10.0),
    "brightness": Change("pixels are multiplied by this, to at most white", 0.0, 10.0),
    "shift": Change(
        "pixels that pictures are moved by at most, each way; black follows", 1, 64, whole=True, moves=True
    ),
    "rotate": Change("degrees by which pictures are turned, to the left or to the right", 0.1, 180.0, moves=True),
}
"""Changes of pictures by name."""


def _known(given: dict[str, float]) -> dict[str, float]:
    if len(given) != 1:
        raise ValueError("a change is one name and its amount, such as {noise: 0.2}")
    for name, amount in given.items():
        if name not in CHANGES:
            raise ValueError(f"unknown change {name!r}{nearest(name, CHANGES)}; changes are {', '.join(CHANGES)}")
        rule = CHANGES[name]
        if not rule.low <= amount <= rule.high or (rule.whole and amount != int(amount)):
            number = "a whole number" if rule.whole else "a number"
            raise ValueError(f"{name}: {amount:g} ({rule.about}) must be {number} from {rule.low:g} to {rule.high:g}")
    return given


class External(Block):
    """A test set beside a task's own: scored after training by the primary metric, never ranked by.

    Exactly one of ``change`` and ``source``.

    Attributes:
        change: a name of :data:`CHANGES` and its amount, of the task's own test rows; draws are equal in every run.
        source: a data source whose test rows are scored, its pictures brought to the size that the student reads.
        options: of that source.
        crop: pixels of a side that are kept of its pictures, around their middle; unset, all.
    """

    change: Annotated[dict[str, float], AfterValidator(_known)] | None = None
    source: Word | None = None
    options: Annotated[dict[str, Any], AfterValidator(tame)] = Field(default={})
    crop: int | None = Field(default=None, ge=1, le=4096)

    @model_validator(mode="after")
    def _one_of_both(self) -> External:
        if (self.change is None) == (self.source is None):
            raise ValueError("an external test set has one of change and source")
        if self.source is None and (self.options or self.crop is not None):
            raise ValueError("options and crop are those of a source; leave them out beside change")
        return self

    @property
    def moves(self) -> bool:
        """Whether pixels come to lie elsewhere than targets on the picture say; a source's pictures are resized."""
        return self.source is not None or any(CHANGES[name].moves for name in self.change or {})

    @property
    def words(self) -> str:
        """What it is, in a few words."""
        if self.change is None:
            return f"test rows of {self.source}" + (f", the middle {self.crop} pixels" if self.crop else "")
        return ", ".join(f"{name} {amount:g}: {CHANGES[name].about}" for name, amount in self.change.items())
