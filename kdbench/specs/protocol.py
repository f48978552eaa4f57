"""How a task's networks are trained (``train``): epochs, batch, optimiser, schedule. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from kdbench.base.fields import tame
from kdbench.specs.block import Block, Grown


class Optimizer(Block):
    """An optimiser by its field name (``sgd``, ``adam``, ``adamw``) and settings."""

    name: Literal["sgd", "adam", "adamw"]
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] | None = None


class Schedule(Grown):
    """Learning rates by epoch: ``steps`` multiplies by ``factor`` after each milestone; ``cosine`` falls to 0, and so
    does ``poly``, as the share of training that is left, to a ``power``."""

    LATER = ("power",)
    name: Literal["steps", "cosine", "poly", "constant"] = "steps"
    milestones: list[int] = Field(default=[])
    factor: float = Field(default=0.1, gt=0, lt=1)
    warmup: int = Field(default=0, ge=0)
    power: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _of_poly(self) -> Schedule:
        if (self.power is not None) != (self.name == "poly"):
            raise ValueError("power belongs to schedule 'poly', which needs one, such as 0.9")
        return self

    @model_validator(mode="after")
    def _sorted(self) -> Schedule:
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if self.milestones and self.name != "steps":
            raise ValueError(f"milestones belong to schedule 'steps', not {self.name!r}")
        return self


class Train(Grown):
    """The training protocol of plain and of every method.

    ``clip``: gradients of a larger norm, over all parameters of an update, are scaled to it; unset, none are.
    ``label_smoothing``: share of each target that the task's own loss spreads evenly over all classes, of kinds that
    have it; unset, none.

    ``loss``: the task's own loss, of kinds that have several; unset, as the kind says.
    """

    LATER = ("clip", "label_smoothing", "loss")
    epochs: int = Field(ge=1, le=100_000)
    batch: int = Field(ge=1, le=65_536)
    optimizer: Optimizer
    schedule: Schedule = Schedule(name="constant")
    clip: float | None = Field(default=None, gt=0)
    label_smoothing: float | None = Field(default=None, gt=0, lt=1)
    loss: Annotated[dict[str, Any], AfterValidator(tame)] | None = None


class TrainChange(Grown):
    """Keys of :class:`Train` that a teacher trains with instead of the student's: an unset one is the task's own.

    Attributes:
        STANDS_FOR: the block of the task whose keys these are.
    """

    STANDS_FOR: ClassVar[str] = "train"
    LATER = ("clip", "label_smoothing")
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    batch: int | None = Field(default=None, ge=1, le=65_536)
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    clip: float | None = Field(default=None, gt=0)
    label_smoothing: float | None = Field(default=None, gt=0, lt=1)
