"""Task specifications: data, pair, protocol and score as data (``tasks/<name>.yaml``)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from kdbench import kinds
from kdbench.base.errors import UserError, nearest
from kdbench.base.fields import Slug, tame
from kdbench.base.yamlfile import describe
from kdbench.kinds.base import DATABASES, FINETUNES
from kdbench.specs.external import External
from kdbench.specs.reduced import Reduced

TaskName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]*(/[a-z0-9][a-z0-9_.-]*)?$", max_length=80)]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.:/-]*$", max_length=120)]
Net = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/~-]*$", max_length=200)]
"""A net's name; ids of the hub and paths hold capitals."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
AUTO = "auto"
"""Teacher's weights: trained here."""
PRUNED = "pruned:"
"""Before the role of a teacher: the student's weights are that teacher's, channels left out."""
PART, FEATURES = "#part=", "#features"
"""Behind the name of weights as a text: the part of the file that is read, and that the classifier is left as it is."""
ALL_KEYS = {"all_keys": True}
"""The ``context`` of a dump that holds every key; others leave out the unset ones of a model's ``LATER``."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WeightsFrom(_Model):
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


class _Grown(_Model):
    """A model that got keys after the first records: where they are unset, what is hashed of a task is as before.

    Attributes:
        LATER: the keys that came later; None is unset.
        BESIDE: keys that decide nothing of what is trained or ranked, and are never hashed.
    """

    LATER: ClassVar[tuple[str, ...]] = ()
    BESIDE: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_hashed(self, dump: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        body: dict[str, Any] = dump(self)
        if info.context == ALL_KEYS:
            return body
        unset = {key for key in self.LATER if key in body and body[key] is None}
        return {key: value for key, value in body.items() if key not in unset and key not in self.BESIDE}


class Subset(_Grown):
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


class Data(_Grown):
    """Where the rows come from and how training sees them.

    ``options`` are the source's own; ``augment`` names operations of ``kdbench.data.feed.augment``; ``inputs`` are made
    here of the source's pictures, such as small ones for the student; ``validation``: these training rows are scored
    instead of the test rows, and the student trains on none of them.
    """

    LATER = ("inputs", "validation")

    source: Word
    options: Annotated[dict[str, Any], AfterValidator(tame)] = {}
    subset: Subset | None = None
    augment: list[Word] = []
    inputs: dict[Word, Reduced] | None = None
    validation: Subset | None = None


class Optimizer(_Model):
    """An optimiser by its field name (``sgd``, ``adam``, ``adamw``) and settings."""

    name: Literal["sgd", "adam", "adamw"]
    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] | None = None


class Schedule(_Grown):
    """Learning rates by epoch: ``steps`` multiplies by ``factor`` after each milestone; ``cosine`` falls to 0, and so
    does ``poly``, as the share of training that is left, to a ``power``."""

    LATER = ("power",)
    name: Literal["steps", "cosine", "poly", "constant"] = "steps"
    milestones: list[int] = []
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


class Train(_Grown):
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


class TrainChange(_Grown):
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


class Student(_Grown):
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


class Teacher(_Grown):
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


class Pair(_Grown):
    """Student and teachers.

    ``ensemble``: what a method for one teacher reads where there are several of one input: ``mean`` is one network
    whose logits are the mean of theirs; unset, it reads the first.
    """

    LATER = ("ensemble",)
    student: Student
    teachers: dict[Word, Teacher] = {}
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


class Score(_Grown):
    """What is reported. ``primary`` ranks.

    ``unit``: that of the targets, for metrics in the targets' own unit; the others have theirs and need none.
    ``k``: of metrics that search training rows, how many of the first found count; unset, all do.
    ``curve_points``: at how many points of a run's curve the primary metric is computed at most, spread evenly, the
    last among them; unset, as the metric says.
    ``finetune``: how the deployed network is trained on with labels for ``finetune``, keys as of ``train``; a protocol
    of its own, no part of what the method costs.
    ``rules``: how answers are made and counted, of kinds that have rules, such as a detection's thresholds; unset, as
    the kind says. ``external``: further test sets by name, scored by the primary metric and shown beside it, never
    ranked by; a task may gain some without a new version, for they change no other number.
    """

    LATER = ("k", "curve_points", "rules", "finetune")
    BESIDE = ("external",)

    primary: str
    unit: Annotated[str, StringConstraints(max_length=12)] = ""
    report: Literal["last"] = "last"
    also: list[str] = []
    k: int | None = Field(default=None, ge=1)
    curve_points: int | None = Field(default=None, ge=0)
    rules: Annotated[dict[str, Any], AfterValidator(tame)] | None = None
    finetune: Train | None = None
    external: dict[Slug, External] = {}

    @model_validator(mode="before")
    @classmethod
    def _unit_of_the_metric(cls, given: Any) -> Any:
        """The metric's own unit where it has one; a stated one that differs is refused."""
        primary = given.get("primary") if isinstance(given, dict) else None
        metric = kinds.metrics().get(primary) if isinstance(primary, str) else None
        if metric is None or metric.unit is None:
            return given
        if (stated := given.get("unit", metric.unit)) != metric.unit:
            raise ValueError(f"unit is {stated!r}; {primary} is in {metric.unit}: leave unit out")
        return {**given, "unit": metric.unit}

    @model_validator(mode="after")
    def _known(self) -> Score:
        for name in (self.primary, *self.also):
            if name not in kinds.metrics():
                raise ValueError(f"unknown metric {name!r}{nearest(name, kinds.metrics())}")
        return self

    @property
    def higher_is_better(self) -> bool:
        """Direction of the primary metric."""
        return kinds.metrics()[self.primary].higher_is_better


class Smoke(_Model):
    """A budget small enough to see that everything runs; never ranked."""

    epochs: int = Field(default=1, ge=1)
    rows: int = Field(default=512, ge=2)


def _known_kind(name: str) -> str:
    try:
        return kinds.kind(name).name
    except UserError as error:
        raise ValueError(str(error)) from error


class TaskSpec(_Model):
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
    notes: dict[str, Text] = {}

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        if self.ranked == bool(self.unranked_because):
            raise ValueError("give unranked_because exactly when ranked is false")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        known = self.of_kind.metrics
        for name in (self.score.primary, *self.score.also):
            if name not in known:
                raise ValueError(f"metric {name!r} is not one of a {self.kind} task{nearest(name, known)}")
        tuned = [name for name in (self.score.primary, *self.score.also) if FINETUNES & known[name].reads]
        drawn = self.data.subset.rows if self.data.subset is not None else None
        step, least = min(self.train.batch, drawn or self.train.batch), self.of_kind.least_batch
        if step < least:
            key = "train.batch" if step == self.train.batch else "data.subset.rows"
            raise ValueError(
                f"{key}: {step}; the loss of a {self.kind} task compares rows of a batch, at least {least}; raise it"
            )
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
        self._externals_can_be_scored()
        searching = any(DATABASES & known[name].reads for name in (self.score.primary, *self.score.also))
        if self.score.k is not None and not searching:
            raise ValueError("score.k belongs to metrics that search training rows, such as map; leave it out")
        return self

    def _externals_can_be_scored(self) -> None:
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
