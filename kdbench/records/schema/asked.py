"""What was run: the method, the task, and how the student was trained."""

from __future__ import annotations

from typing import Literal

from kdbench.base.fields import (
    OTHER,
    YOURS,
    Above0,
    Amount,
    Count,
    Link,
    MethodName,
    Part,
    Positive,
    Settings,
    Sha256,
    Slug,
    TaskName,
    Text,
    Unit,
    Version,
    Word,
)
from kdbench.specs.tuned import Sampler


class Paper(Part):
    """Where a method was published."""

    title: Text
    url: Link
    bibkey: Word


class MethodUsed(Part):
    """The method: ``name`` is the card's, ``variant`` its named parameter set; rows are ranked under the latter if any.

    ``params`` are complete after defaults. ``needs`` holds those fields of :class:`kdbench.contract.Needs` that are not
    None, sets sorted.
    """

    name: MethodName
    variant: MethodName | None = None
    adapter_version: Version
    params: Settings
    params_source: Literal["paper", "official_code", "tuned", "default"]
    paper: Paper | None = None
    needs: dict[Slug, bool | int | str | tuple[str, ...]]


class ComputeMatch(Part):
    """For ``plain@M``: the published cell whose recipe cost over plain's stretched this run."""

    method: MethodName
    ratio: Above0
    spec_hash: Sha256


class SearchUsed(Part):
    """The search of hyper-parameters whose best ``values`` the run took, by key; none where the given ones were.

    ``trials`` of it, chosen by ``sampler``, scored on training rows with ``seeds``, took ``hours`` of training.
    ``entry`` is the hash of the tuned entry.
    """

    trials: Positive
    sampler: Sampler
    seeds: tuple[Count, ...]
    hours: Amount
    entry: Sha256
    values: Settings


class DataUsed(Part):
    """Rows of one split; ``sha256`` is of the content or of the index file that names the rows."""

    name: Slug
    split: Slug
    n: Positive
    sha256: Sha256
    source: Word


class TaskUsed(Part):
    """The task as it was. ``metric_min`` and ``metric_max`` bound the primary metric, null where it has no bound.

    ``chance``: what the best answer that ignores the input scores on the test rows; null where that is not known.
    """

    name: TaskName
    version: Positive
    kind: Slug
    suite: Slug
    ranked: bool
    baseline: MethodName
    metric_primary: Slug
    higher_is_better: bool
    unit: Unit = ""
    metric_min: float | None = None
    metric_max: float | None = None
    chance: float | None = None
    data: tuple[DataUsed, ...]

    @property
    def other_data(self) -> str | None:
        """The name that rows went by which are not known as the task's, None for the task's own."""
        return next((used.name for used in self.data if OTHER in used.name or YOURS in used.name), None)

    @property
    def label(self) -> str:
        """``name@v<version>``, the key of every table."""
        return f"{self.name}@v{self.version}"


class Protocol(Part):
    """How the student was trained. ``steps`` is set when the length is not whole epochs (compute-matched plain).

    ``optimizer`` holds its name and settings beside ``lr`` and ``weight_decay``.
    """

    epochs: Count
    steps: Positive | None = None
    batch: Positive
    optimizer: Settings
    lr: Amount
    schedule: Settings
    weight_decay: Amount
    augment: tuple[Word, ...]
    amp: Literal["off", "tf32", "bf16", "fp16"]
    compile: bool
    cuda_graphs: bool = False
    channels_last: bool
    fold_teacher: bool = False
    teacher_dtype: Literal["fp32", "bf16"] | None = None
    fused: bool = False
    teacher_store: bool = False
    teacher_ahead: Positive = 1
    eval_every: Positive
    selection: Literal["last", "best_on_val"]
