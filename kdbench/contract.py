"""The types a method adapter sees, and nothing else.

An adapter is one class derived from :class:`Method` in ``methods/<name>/adapter.py``. The engine knows no method by
name: what a method needs, trains and keeps is said with the types of this module.

Shapes use N for the rows of a batch before views, V for views, C for classes (or channels of a map), D for widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from kdbench.base.fields import INPUT_WORDS
from kdbench.base.once import said_once

ANY_TEACHER = "*"
"""A teacher role in :attr:`Needs.teachers`: whichever teacher the task names first."""
ALL_TEACHERS = "**"
"""In :attr:`Needs.teachers`: every teacher the task names, at least one."""
UNSHOWN = "it has not been shown that several processes compute what one does"
"""Why a method that does not say otherwise runs in one process."""


class NotApplicable(Exception):
    """A method cannot run on this task; the message is the reason. The run is recorded as ``not_applicable``."""


class _Fields(NamedTuple):
    """The fields of :class:`Out`, absent ones too."""

    logits: Tensor | None
    maps: tuple[Tensor, ...] = ()
    preact: tuple[Tensor, ...] = ()
    stem: Tensor | None = None
    emb: Tensor | None = None


class Out(_Fields):
    """What every network returns.

    A field is given, or absent: None, and ``()`` of maps. Reading ``logits``, ``stem`` or ``emb`` where it is absent
    raises :class:`NotApplicable`, so a method reads without asking; what may do without a field asks :meth:`has`.

    Attributes:
        logits: (N, C) scores of a classifier, (N,) prediction of a regression in scaled units; absent of a teacher that
            only offers stored features.
        maps: stage outputs after the activation, shallow to deep, each (N, C, H, W) or (N, C, L).
        preact: the same stages before the activation.
        stem: output of the stem after the activation.
        emb: (N, D) pooled penultimate features, the input of the classifier.
    """

    __slots__ = ()

    @property
    def logits(self) -> Tensor:
        return _given(self, "logits", self[0])

    @property
    def stem(self) -> Tensor:
        return _given(self, "stem", self[3])

    @property
    def emb(self) -> Tensor:
        return _given(self, "emb", self[4])

    def has(self, field: str) -> bool:
        """Whether the network gave a field."""
        value = self[self._fields.index(field)]
        return value is not None and value != ()

    def float(self) -> Out:
        """The same as float32."""
        logits, maps, preact, stem, emb = self
        logits, stem, emb = (t if t is None else t.float() for t in (logits, stem, emb))
        return Out(logits, tuple(t.float() for t in maps), tuple(t.float() for t in preact), stem, emb)


def _given(out: Out, name: str, value: Tensor | None) -> Tensor:
    """A field's value; the absent one raises :class:`NotApplicable`."""
    if value is None:
        said_once(f"reading Out.{name} of a network without it raises NotApplicable; ask out.has({name!r}) first", 4)
        there = ", ".join(field for field in out._fields if out.has(field)) or "nothing"
        raise NotApplicable(f"a network that it reads gives no {name}, but {there}")
    return value


class Targets(Protocol):
    """Targets that are no tensor of one entry a row; the engine asks no more of them than this."""

    def __len__(self) -> int:
        """Rows."""

    def __getitem__(self, index: Tensor | slice) -> Self:
        """The targets of some rows, in the order of ``index``."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""

    def repeat(self, times: int) -> Self:
        """Those of all rows, ``times`` one after the other: view-major, as inputs are."""

    def tensors(self) -> Mapping[str, Tensor]:
        """All that they hold, by name: what a digest covers, and what is copied."""

    def tolist(self) -> list[Any]:
        """One entry a row, as plain values."""

    def join(self, other: Self) -> Self:
        """The rows of ``other`` behind these."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Targets of which each row has its own number, such as the words of a sentence; a row may have none.

    Attributes:
        values: (M, ...) of all rows, one row after the other.
        counts: (N,) int64, how many each row has; M is their sum.
    """

    values: Tensor
    counts: Tensor

    def __post_init__(self) -> None:
        if int(self.counts.sum()) != len(self.values):
            raise ValueError(f"counts sum to {int(self.counts.sum())}, there are {len(self.values)} values")

    @classmethod
    def of(cls, rows: Sequence[Sequence[Any]], dtype: torch.dtype) -> Ragged:
        """From one list a row."""
        flat = [value for row in rows for value in row]
        return cls(torch.tensor(flat, dtype=dtype), torch.tensor([len(row) for row in rows], dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: Tensor | slice) -> Ragged:
        rows = torch.arange(len(self), device=self.counts.device)[index]
        counts = self.counts[rows]
        begins = (self.counts.cumsum(0) - self.counts)[rows]
        ahead = (counts.cumsum(0) - counts).repeat_interleave(counts)
        within = torch.arange(int(counts.sum()), device=rows.device) - ahead
        return Ragged(self.values[begins.repeat_interleave(counts) + within], counts)

    @property
    def row(self) -> Tensor:
        """(M,) the row each value belongs to."""
        return torch.arange(len(self), device=self.counts.device).repeat_interleave(self.counts)

    def to(self, device: torch.device) -> Ragged:
        return Ragged(self.values.to(device), self.counts.to(device))

    def repeat(self, times: int) -> Ragged:
        return Ragged(self.values.repeat(times, *[1] * (self.values.ndim - 1)), self.counts.repeat(times))

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.values, "counts": self.counts}

    def tolist(self) -> list[Any]:
        return [part.tolist() for part in self.values.split(self.counts.tolist())]

    def join(self, other: Ragged) -> Ragged:
        return Ragged(torch.cat([self.values, other.values]), torch.cat([self.counts, other.counts]))


@dataclass(frozen=True)
class Batch:
    """Rows of a data set as the networks see them.

    Attributes:
        x: input name to tensor of N*V rows, view-major (all rows of view 0 first).
        y: (N*V,) labels, or scaled regression targets; of other kinds of task :class:`Targets` of N*V rows.
        index: (N*V,) row numbers in the training set, for memory banks.
        views: V.
        present: input name to (N*V,) bool, for inputs some rows lack; an input not named here is always present.
        handed: in ``after_step``, what the losses of the step handed over (:class:`Terms`); None before, or if nothing.
    """

    x: Mapping[str, Tensor]
    y: Any
    index: Tensor
    views: int = 1
    present: Mapping[str, Tensor] = field(default_factory=dict)
    handed: Any = None

    def __len__(self) -> int:
        return len(self.index)

    def unview(self, rows: Tensor) -> Tensor:
        """(N*V, ...) to (V, N, ...)."""
        return rows.unflatten(0, (self.views, rows.shape[0] // self.views))

    def view(self, v: int) -> Batch:
        """The N rows of view ``v`` as a batch of one view."""
        rows = len(self) // self.views
        part = slice(v * rows, (v + 1) * rows)
        return Batch(
            {name: t[part] for name, t in self.x.items()},
            self.y[part],
            self.index[part],
            1,
            {name: t[part] for name, t in self.present.items()},
        )


class Rows(NamedTuple):
    """Raw rows: what a data source holds before augmentation and normalisation.

    Attributes:
        x: input name to (N, ...) tensor; images are uint8 (N, C, H, W), other inputs float32.
        y: (N,) int64 labels or float32 targets, or :class:`Targets`; what a method sees of targets is always scaled,
            as in a batch.
    """

    x: Mapping[str, Tensor]
    y: Any


class At(NamedTuple):
    """Where training stands.

    Attributes:
        step: optimiser steps of this stage already done.
        epoch: epochs of this stage already done, counted from 0.
        epochs: epochs of this stage (0 for a stage counted in steps).
        t: fraction of this stage already done, in [0, 1).
        rng: generator on the training device, seeded by (run seed, stage, step).
    """

    step: int
    epoch: int
    epochs: int
    t: float
    rng: torch.Generator


@dataclass(frozen=True)
class Needs:
    """What a method asks of a task. Checked against what the task offers before any work.

    Attributes:
        kinds: task kinds it can run on, for what it reads of targets or class scores; None for any kind.
        inputs: ``same`` if student and teachers must see one picture, at whatever size, ``other`` if they must not.
        teachers: roles it reads, ``()`` for none, ``(ANY_TEACHER,)`` for the task's first, ``(ALL_TEACHERS,)`` for all.
        students: networks of the student's architecture it trains; the first is deployed unless ``deployed`` differs.
        student, teacher: what it reads of networks: fields of :class:`Out`, or ``classifier``, ``norm``, ``tail``.
        batch: what it reads of a batch beyond ``x`` and ``y``: ``index``, ``present``.
        data: properties the task's data must have, e.g. ``rotation_safe``, ``rgb``.
        views: views of each row a batch must hold.
        min_batch: smallest number of rows (before views) a step is defined for.
        teacher_batchnorm: ``batch`` if the teacher normalises with the statistics of the batch.
        trains_teacher: the method itself updates the teacher.
        changes_student: the deployed network is not the plain student (it keeps an extra module).
        one_process: why a run cannot be shared by several processes, each with some rows of every batch; None for a
            method whose losses are means over rows, or of rows from ``TaskInfo.gather``, whose stages have ``losses``,
            and which draws for the rows of the joined batch.
    """

    kinds: frozenset[str] | None = frozenset({"classification"})
    inputs: Literal["any", "same", "other"] = "any"
    teachers: tuple[str, ...] = (ANY_TEACHER,)
    students: int = 1
    student: frozenset[str] = frozenset({"logits"})
    teacher: frozenset[str] = frozenset({"logits"})
    batch: frozenset[str] = frozenset()
    data: frozenset[str] = frozenset()
    views: int = 1
    min_batch: int = 1
    teacher_batchnorm: Literal["eval", "batch"] = "eval"
    trains_teacher: bool = False
    changes_student: bool = False
    one_process: str | None = UNSHOWN

    def words(self) -> list[str]:
        """What it asks for beyond labels and the student's own output, in short words: the card's ``needs``."""
        roles = ["teacher" if role in (ANY_TEACHER, ALL_TEACHERS) else f"{role} teacher" for role in self.teachers]
        found = [f"{self.students} students"] * (self.students > 1) + roles
        found += [word] if (word := INPUT_WORDS[self.inputs]) is not None else []
        found += [f"teacher {what}" for what in sorted(self.teacher) if self.teachers and what != "logits"]
        found += [f"student {what}" for what in sorted(self.student - {"logits"})]
        found += [f"row {what}" for what in sorted(self.batch)] + sorted(self.data)
        found += [f"{self.views} views"] * (self.views > 1)
        found += [f"batch of {self.min_batch}"] * (self.min_batch > 1)
        found += ["trains the teacher"] * self.trains_teacher + ["changes the student"] * self.changes_student
        return found


@dataclass(frozen=True)
class Views:
    """Several views of each row.

    Attributes:
        n: number of views.
        fn: (pixels (N, C, H, W), generator) -> (n, N, C, H, W). ``raw`` pixels are uint8 before the task's
            augmentation, which is then drawn anew for each view; ``final`` ones are augmented and normalised float.
        where: which of the two.
        replaces: augmentations of the task that ``fn`` takes over, e.g. ``("flip",)``.
        input: the input it is applied to.
        host: ``fn`` works on CPU pixels and is run in worker processes ahead of time (PIL operations); ``raw`` only.
    """

    n: int
    fn: Callable[[Tensor, torch.Generator], Tensor]
    where: Literal["raw", "final"] = "final"
    replaces: tuple[str, ...] = ()
    input: str = "image"
    host: bool = False

    def __post_init__(self) -> None:
        if self.host and self.where != "raw":
            raise ValueError("views made on the host are views of raw pixels; set where to 'raw'")


@dataclass(frozen=True)
class Group:
    """Parameters that share an optimiser.

    Attributes:
        name: unique within a stage.
        params: the parameters.
        optimizer: settings that differ from the task's optimiser, e.g. ``{"weight_decay": 1e-5}``. With a ``name``
            other than the task's it starts from that optimiser's defaults, e.g. ``{"name": "adam", "lr": 1e-3}``.
        schedule: ``task`` follows the task's learning-rate schedule, ``constant`` does not; or the fractions of the
            stage after each of which the rate is divided by 10.
    """

    name: str
    params: Sequence[nn.Parameter]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    schedule: Literal["task", "constant"] | tuple[float, ...] = "task"


class Terms(dict[str, Tensor]):
    """Named terms of a step, and what ``after_step`` needs of how they were computed and finds in ``batch.handed``.

    Args:
        terms: by name.
        handed: tensors in any container; without gradients, and of several processes from gathered rows.
    """

    def __init__(self, terms: Mapping[str, Tensor], handed: Any = None) -> None:
        super().__init__(terms)
        self.handed = handed


Losses = Callable[[Batch, At], "dict[str, Tensor]"]
Update = Callable[..., None]
"""``update(loss, group=None)``: zero-grad, backward and step of one named group, or of all groups of the stage."""
Step = Callable[[Callable[[], Batch], At, Update], "dict[str, Tensor]"]
"""``step(draw, at, update)``: an update that needs several batches or backward passes; returns terms to log."""


@dataclass(frozen=True)
class Stage:
    """One phase of a method's training.

    Attributes:
        name: unique within the method, a slug.
        losses: named terms, already weighted, summed by the engine; what varies by step lies in tensors or ``at``; or
        step: the whole update, when one sum is not enough. Exactly one of the two.
        groups: parameters it trains.
        epochs, steps: its length; exactly one of the two.
        batch: rows of a batch, the task's when None.
        extra: raw rows trained on beside the task's own, e.g. generated ones.
        views: several views of each row.
        ledger: line of the cost ledger it belongs to (``distill``, ``generator_train``, ``generate``, ``bank_init``,
            ``warmup_phase``, ``peer_students``, ``finetune``, ``teacher_train``, ``teacher_cache``).
        once: what it makes can be reused by other students of the task.
    """

    name: str
    groups: Sequence[Group]
    losses: Losses | None = None
    step: Step | None = None
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    extra: Rows | None = None
    views: Views | None = None
    ledger: str = "distill"
    once: bool = False

    def __post_init__(self) -> None:
        if (self.losses is None) == (self.step is None):
            raise ValueError(f"stage {self.name!r}: give exactly one of losses and step")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"stage {self.name!r}: give exactly one of epochs and steps")


class Network(nn.Module):
    """A network of the zoo: reads its own input of a batch and returns :class:`Out`.

    A subclass implements :meth:`encode`. ``input`` is set by the task (``pair.student.input``), so that a
    low-resolution student, a cross-modal teacher and an ordinary pair are one case. ``autocast`` is set by the engine
    (``engine.precision``): the type its forward computes in; what it returns is float32 all the same.
    """

    input: str = "image"
    autocast: torch.dtype | None = None

    def forward(self, batch: Batch) -> Out:
        """The network's :class:`Out` for the rows of ``batch``."""
        x = batch.x[self.input]
        if self.autocast is None:
            return self.encode(x)
        with torch.autocast(x.device.type, self.autocast):
            return self.encode(x).float()

    def encode(self, x: Tensor) -> Out:
        """:class:`Out` for a tensor of normalised inputs."""
        raise NotApplicable(f"{type(self).__name__} has no encoder")

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, from ``emb`` to ``logits``."""
        raise NotApplicable(f"{type(self).__name__} offers no classifier")

    def norm(self, stage: int) -> tuple[Tensor, Tensor]:
        """Scale and shift, each (C,), of the batch norm whose output is ``preact[stage]``."""
        raise NotApplicable(f"{type(self).__name__} offers no stage norms")

    def tail(self, stage: int) -> nn.Module:
        """A freshly initialised copy of what follows ``maps[stage]``: maps it to :class:`Out`.

        Its ``classifier`` is a linear layer that may be replaced by one of other outputs.
        """
        raise NotApplicable(f"{type(self).__name__} offers no stage tails")

    def extra_tail(self) -> nn.Module:
        """A fresh tail of the last map with one more stage of its kind before the head."""
        raise NotApplicable(f"{type(self).__name__} offers no stage tails")


class TaskInfo(Protocol):
    """What a method may know of a task.

    Attributes:
        kind: name of a kind of task (:mod:`kdbench.kinds`).
        classes: number of classes, or of outputs of a network; 1 for a regression.
        n_train: rows of the training set.
        train_labels: (n_train,) labels on the training device, scaled as in a batch; :class:`Targets` of other kinds.
        label_range: (min, max) of targets, scaled as in a batch; None without one.
        raw_shape: input name to shape of one raw row.
        epochs: epochs of the task's protocol.
        steps: optimiser steps of one epoch.
        batch: rows of a batch.
        optimizer: the task's optimiser settings (``lr``, ``weight_decay`` ...), for methods that scale by them.
        device: training device.
    """

    kind: str
    classes: int
    n_train: int
    train_labels: Any
    label_range: tuple[float, float] | None
    raw_shape: Mapping[str, tuple[int, ...]]
    epochs: int
    steps: int
    batch: int
    optimizer: Mapping[str, Any]
    device: torch.device

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """The task's own loss, 0-d: cross-entropy, mean squared error of scaled targets, or what its kind says."""

    def probe(self, net: nn.Module) -> Out:
        """``net`` on two training rows (eval, no grad, mode restored): read sizes from it, never type them."""

    def rows(self, index: Tensor) -> Rows:
        """Raw training rows by number, no augmentation."""

    def wrap(self, raw: Rows, index: Tensor | None = None) -> Batch:
        """Raw rows through the test transform, as a batch."""

    def alike(self, one: str, other: str) -> bool:
        """Whether two inputs show one picture in one form, each at its own size: views of one are made of both."""

    def extend(self, extra: Rows) -> TaskInfo:
        """The same task with ``extra`` raw rows behind its training rows (labels, size and steps follow)."""

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of the joined batch, view-major, from this process's (N*V, ...), with gradients; unchanged in a run of
        one process. A loss of gathered rows is computed alike by every process and counts once."""

    def rng(self, name: str) -> torch.Generator:
        """A generator on the CPU, seeded by (run seed, method, name)."""

    def keep(
        self,
        name: str,
        make: Callable[[], dict[str, Tensor]],
        scope: Literal["run", "task"] = "run",
        ledger: str = "generate",
        uses: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """``make()``, or what it gave before: of this run (``run``) or of any run of this task and configuration
        (``task``). What a generator computes between two yields goes through here, so that a resumed run repeats it.
        ``uses`` names the hyper-parameters that decide a ``task`` artefact, all of them when None: runs that differ in
        others share it. Of several processes one alone makes it: ``make`` gathers nothing."""

    def recall(
        self, name: str, ledger: str = "generate", uses: Sequence[str] | None = None
    ) -> dict[str, Tensor] | None:
        """What ``keep(name, ..., scope="task")`` stored before, None when nothing is there. A method that finds it
        yields the ``once`` stages that lead to it with ``steps=0``; the ledger then cites what they took."""

    def build_student(self) -> Network:
        """One more network of the student's architecture, freshly initialised."""


class Inner(Protocol):
    """An inner method, built by an outer one (cGAN-KD around ReviewKD)."""

    name: str

    def needs(self) -> Needs:
        """Needs of the inner method under its own hyper-parameters."""

    def build(self, task: TaskInfo, students: Sequence[Network], teachers: Mapping[str, Network]) -> Method:
        """The inner method."""


class Method(nn.Module):
    """Base of every adapter.

    Args:
        task: what may be known of the task.
        students: ``needs(hp).students`` networks of the student's architecture, students[0] with plain's weights.
        teachers: role to frozen network, in eval mode.
        hp: the card's hyper-parameters, typed and frozen.

    Raises:
        NotApplicable: from :meth:`setup`, when the pair cannot serve the method; the message is the reason.
    """

    def __init__(self, task: TaskInfo, students: Sequence[Network], teachers: Mapping[str, Network], hp: Any) -> None:
        super().__init__()
        self.task = task
        self.students = nn.ModuleList(students)
        self.teachers = dict(teachers)  # a plain dict: teachers are not parameters of the method
        self.hp = hp
        if _sets_itself_up(type(self)):
            said_once(
                f"{type(self).__name__} has __init__ and setup; Method calls setup() now, move the former into it"
            )
        else:
            self.setup()

    def setup(self) -> None:
        """Makes the method's own modules, sized by ``task.probe(net)``, and refuses what cannot serve it."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        """What the method asks of a task under these hyper-parameters."""
        return Needs()

    @property
    def student(self) -> Network:
        """students[0]."""
        return self.students[0]  # type: ignore[return-value]

    @property
    def teacher(self) -> Network:
        """The first teacher."""
        return next(iter(self.teachers.values()))

    @property
    def deployed(self) -> nn.Module:
        """What is scored and kept."""
        return self.student

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        """Named terms, 0-d, already weighted; the engine minimises their sum.

        A dict, or :class:`Terms`, which also hands :meth:`after_step` what it needs.
        """
        raise NotApplicable(f"{type(self).__name__} defines neither losses nor stages")

    def after_step(self, batch: Batch, at: At) -> None:
        """After each optimiser step of a stage with ``losses``, without gradients: memory banks, moving averages.
        What the losses handed over is ``batch.handed``. Of several processes each writes alike: rows that ``losses``
        gathered, not those of ``batch``."""

    def groups(self) -> list[Group]:
        """Parameters by optimiser; one group of all of them unless overridden."""
        return [Group("student", [p for p in self.parameters() if p.requires_grad])]

    def stages(self) -> Iterator[Stage]:
        """Phases in order; one phase of the task's epochs unless overridden.

        A generator: code between two yields runs when the earlier stage is done; its results go through
        ``task.keep``. When a stage starts, resumed or not, the engine calls ``self.train()``, once; teachers are no
        modules of the method and stay as they are. A module to be held in eval mode through a stage is held by an
        overridden ``train()``, or by its losses around each use.
        """
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=self.task.epochs)


def _sets_itself_up(cls: type[Method]) -> bool:
    """Whether a ``setup`` is an older adapter's own, which its ``__init__`` calls."""
    return any({"__init__", "setup"} <= vars(base).keys() for base in cls.__mro__ if base is not Method)
