"""Task specifications: data, pair, protocol and score as data (``tasks/<name>.yaml``)."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from kdbench import kinds
from kdbench.base.errors import UserError, nearest
from kdbench.kinds.base import DATABASES, FINETUNES
from kdbench.specs.block import Block, Word
from kdbench.specs.data import Data, Subset
from kdbench.specs.pair import Pair
from kdbench.specs.protocol import Train
from kdbench.specs.score import Score

TaskName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)?$", max_length=80)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class Smoke(Block):
    """A budget small enough to see that everything runs; never ranked."""

    epochs: int = Field(default=1, ge=1)
    rows: int = Field(default=512, ge=2)


def _known_kind(name: str) -> str:
    try:
        return kinds.kind(name).name
    except UserError as error:
        raise ValueError(str(error)) from error


class TaskSpec(Block):
    """A versioned task. Rows of different versions never meet.

    ``notes`` say where its choices come from: data, pair, protocol, and what ``min_score`` of a teacher rests on. All
    tasks share the rest: seeds 0 to 4, or 0 to 2 where a run takes a day; the field's metric, of the last epoch; kd as
    baseline, or plain where kd does not apply; a smoke budget of seconds; one suite for the pairs of a data set that
    share a protocol.

    ``tuning``: the rows that ``kdbench tune`` scores, as ``data.validation``; unset, a fifth of the training rows.

    ``cpu_threads``: torch's threads on a CPU, for tasks of nets so small that more only wait for each other; the same
    seed then gives the same bits on any number of cores. None leaves torch's own number.
    """

    name: TaskName
    title: Text
    version: int = Field(ge=1)
    kind: Annotated[str, AfterValidator(_known_kind)]
    suite: Word
    ranked: bool = True
    unranked_because: Text | None = None
    baseline: Word
    data: Data
    pair: Pair
    train: Train
    score: Score
    seeds: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(min_length=1)
    smoke: Smoke = Smoke()
    tuning: Subset | None = None
    cpu_threads: int | None = Field(default=None, ge=1)
    notes: dict[str, Text] = Field(default={})

    @model_validator(mode="after")
    def _ranked_or_why_not(self) -> TaskSpec:
        if self.ranked == bool(self.unranked_because):
            raise ValueError("give unranked_because exactly when ranked is false")
        return self

    @model_validator(mode="after")
    def _seeds_differ(self) -> TaskSpec:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        return self

    @model_validator(mode="after")
    def _metrics_of_the_kind(self) -> TaskSpec:
        known = self.of_kind.metrics
        for name in self.score.metrics:
            if name not in known:
                meant = nearest(name, known) or f"; its metrics are {', '.join(known)}"
                raise ValueError(f"score: metric {name!r} is not one of a {self.kind} task{meant}")
        return self

    @model_validator(mode="after")
    def _batch_of_the_kind(self) -> TaskSpec:
        drawn = self.data.subset.rows if self.data.subset is not None else None
        step, least = min(self.train.batch, drawn or self.train.batch), self.of_kind.least_batch
        if step < least:
            key = "train.batch" if step == self.train.batch else "data.subset.rows"
            raise ValueError(
                f"{key}: {step}; the loss of a {self.kind} task compares rows of a batch, at least {least}; raise it"
            )
        return self

    @model_validator(mode="after")
    def _finetuned_where_scored(self) -> TaskSpec:
        tuned = self.score.reading(FINETUNES)
        if self.score.primary in tuned:
            raise ValueError(
                f"score.primary: {self.score.primary} is of a protocol behind training; put it into score.also, beside "
                "a primary metric of the network as it was trained"
            )
        if bool(tuned) != (self.score.finetune is not None):
            raise ValueError(
                f"{tuned[0]} needs score.finetune: {{epochs, batch, optimizer}}; write it"
                if tuned
                else "score.finetune belongs to metrics of fine-tuning, such as finetune; leave it out, or score one"
            )
        return self

    @model_validator(mode="after")
    def _external_can_be_scored(self) -> TaskSpec:
        primary = self.score.primary
        for name, external in self.score.external.items():
            if reads := sorted(kinds.metrics()[primary].reads):
                raise ValueError(
                    f"score.external.{name}: {primary} reads more than what a network answers ({', '.join(reads)}); "
                    "external test sets are for metrics that do not"
                )
            if external.moves and kinds.kind(self.kind).placed:
                raise ValueError(
                    f"score.external.{name}: it moves pixels, but not the targets of a {self.kind} task; use "
                    "noise, blur, contrast or brightness"
                )
        return self

    @model_validator(mode="after")
    def _k_where_searched(self) -> TaskSpec:
        if self.score.k is not None and not self.score.reading(DATABASES):
            raise ValueError("score.k belongs to metrics that search training rows, such as map; leave it out")
        return self

    @property
    def of_kind(self) -> kinds.Kind:
        """The kind, under the task's own rules and with its own loss."""
        found = kinds.kind(self.kind).ruled(self.score.rules or {}).trained(self.train.loss or {})
        return found if self.train.label_smoothing is None else found.smoothed(self.train.label_smoothing)

    @property
    def teacher_net(self) -> str | None:
        """Net of the first teacher."""
        return next((teacher.net for teacher in self.pair.teachers.values()), None)

    @property
    def slug(self) -> str:
        """The name in file names and URLs, with the version: ``digits__few-shot@v1``."""
        return f"{self.name.replace('/', '__')}@v{self.version}"
