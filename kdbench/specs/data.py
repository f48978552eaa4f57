"""The rows of a task (``data``): where they come from and how training sees them. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from kdbench.base.fields import tame
from kdbench.specs.block import Grown, Word
from kdbench.specs.reduced import Reduced


class Subset(Grown):
    """Part of the training set, drawn by the run's seed unless ``seed`` is given. Exactly one of the others.

    ``per_class`` and ``fraction`` are of each class, ``rows`` of all rows, whatever they hold.
    """

    LATER = ("rows",)
    per_class: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, lt=1)
    rows: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_rule(self) -> Subset:
        if sum(rule is not None for rule in (self.per_class, self.fraction, self.rows)) != 1:
            raise ValueError("a subset has one of per_class, fraction and rows; the others are null")
        return self


class Data(Grown):
    """Where the rows come from and how training sees them.

    ``options`` are the source's own; ``augment`` names operations of ``kdbench.data.feed.augment``; ``inputs`` are made
    here of the source's pictures, such as small ones for the student; ``validation``: these training rows are scored
    instead of the test rows, and the student trains on none of them.
    """

    LATER = ("inputs", "validation")

    source: Word
    options: Annotated[dict[str, Any], AfterValidator(tame)] = Field(default={})
    subset: Subset | None = None
    augment: list[Word] = Field(default=[])
    inputs: dict[Word, Reduced] | None = None
    validation: Subset | None = None
