"""Who learns from whom (``pair``): student, teachers, and where their weights come from. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, model_validator

from kdbench.base.errors import nearest
from kdbench.base.yamlfile import describe
from kdbench.specs.block import Block, Grown, Net, Word
from kdbench.specs.protocol import TrainChange

AUTO = "auto"
"""Teacher's weights: trained here."""
PRUNED = "pruned:"
"""Before the role of a teacher: the student's weights are that teacher's, channels left out."""
PART, FEATURES = "#part=", "#features"
"""Behind the name of weights as a text: the part of the file that is read, and that the classifier is left as it is."""


class WeightsFrom(Block):
    """Weights as a mapping.

    Attributes:
        origin: ``from``: a file, ``hub:<owner>/<name>``, or ``timm``.
        part: which part of the file is read, such as ``model_ema`` or ``teacher``; None looks for the one that fits.
        head: ``drop`` leaves the net's own classifier as it is.
    """

    origin: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(alias="from")
    part: Annotated[str, StringConstraints(pattern=r"^[\w.-]+$", max_length=100)] | None = None
    head: Literal["load", "drop"] = "load"

    def as_text(self) -> str:
        """The same in one text, which is what a task holds."""
        part = f"{PART}{self.part}" if self.part is not None else ""
        return f"{self.origin}{part}{FEATURES if self.head == 'drop' else ''}"


def _in_one_text(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    try:
        return WeightsFrom.model_validate(given).as_text()
    except ValidationError as error:
        raise ValueError(describe(error, WeightsFrom)) from error


Weights = Annotated[str, BeforeValidator(_in_one_text), StringConstraints(min_length=1, max_length=300)]
"""Named by a text or by a mapping, see :class:`WeightsFrom`."""


class Student(Grown):
    """The student of the pair. ``weights``: what its training starts from, random weights if unset.

    ``pruned:<role>`` are those of the teacher in that role, of each convolution the channels whose filters have the
    largest L1 norms, as many as the student's net has (:mod:`kdbench.models.pruning`).

    ``inherit``: parts, such as ``neck`` and ``head``, that it starts with as the first teacher has them, whatever the
    method, plain too.
    """

    LATER = ("weights", "inherit")
    net: Net
    input: Word = "image"
    weights: Weights | None = None
    inherit: list[Word] | None = Field(default=None, min_length=1)

    @property
    def pruned_from(self) -> str | None:
        """The role of the teacher that it is cut out of, None without one."""
        given = self.weights or ""
        return given.removeprefix(PRUNED) if given.startswith(PRUNED) else None


class Teacher(Grown):
    """A teacher of the pair.

    ``weights``: ``auto`` trains it here with the task's protocol (changed by ``train``) on all rows, or names a file
    or a hub id. ``init``: weights that this training starts from. ``min_score``: below it the run is refused.
    """

    LATER = ("init",)
    net: Net
    input: Word = "image"
    weights: Weights = AUTO
    init: Weights | None = None
    seed: int = Field(default=0, ge=0)
    min_score: float | None = None
    train: TrainChange = TrainChange()

    @model_validator(mode="after")
    def _init_is_trained(self) -> Teacher:
        if self.init is not None and self.weights != AUTO:
            raise ValueError("init is what training starts from: it goes with weights auto, not with weights given")
        if any(given is not None and given.startswith(PRUNED) for given in (self.weights, self.init)):
            raise ValueError(f"{PRUNED}<role> is for the student: a teacher is cut out of no other")
        return self


class Pair(Grown):
    """Student and teachers.

    ``ensemble``: what a method for one teacher reads where there are several of one input: ``mean`` is one network
    whose logits are the mean of theirs; unset, it reads the first.
    """

    LATER = ("ensemble",)
    student: Student
    teachers: dict[Word, Teacher] = Field(default={})
    ensemble: Literal["mean"] | None = None

    @model_validator(mode="after")
    def _of_several(self) -> Pair:
        if self.student.inherit and not self.teachers:
            raise ValueError(f"student.inherit: {', '.join(self.student.inherit)} of a teacher, and there is none")
        inputs = sorted({teacher.input for teacher in self.teachers.values()})
        role = self.student.pruned_from
        if role is not None and role not in self.teachers:
            raise ValueError(
                f"student.weights {PRUNED}{role} names no teacher of the pair{nearest(role, self.teachers)}; teachers "
                f"are {', '.join(self.teachers) or 'none'}"
            )
        if self.ensemble is not None and len(self.teachers) < 2:
            raise ValueError(f"ensemble: {self.ensemble} needs at least two teachers")
        if self.ensemble is not None and len(inputs) > 1:
            raise ValueError(f"ensemble: {self.ensemble} is of teachers of one input, these read {', '.join(inputs)}")
        return self
