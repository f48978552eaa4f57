"""A method in a training loop of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdbench import kinds
from kdbench.api.loop_task import LoopTask
from kdbench.api.taps import AnyNet, network
from kdbench.base.errors import UserError
from kdbench.base.given import Keys, Number, Seed, taken
from kdbench.base.seeds import derive, generator
from kdbench.contract import Batch, Method, NotApplicable, Stage, TaskInfo, Terms
from kdbench.engine import accelerate, applicability
from kdbench.engine.assemble import hyper_parameters
from kdbench.engine.task import seeded
from kdbench.objects.net import Tapped
from kdbench.specs import registry
from kdbench.specs.config import method_config
from kdbench.specs.options import EAGER

INPUT = "image"
"""What a lone tensor is called among inputs."""
TEACHER = "teacher"
"""The role of a lone teacher."""


class Distiller(nn.Module):
    """A registered method whose terms are minimised by a loop of one's own.

    ::

        distiller = kdbench.Distiller("reviewkd", teacher=t, student=s, example=(x, y), classes=10,
                                      epochs=90, steps=500)
        optimizer = torch.optim.SGD(distiller.parameters(), lr=0.1)
        for x, y in loader:
            terms = distiller(x, y)
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
            distiller.after_step()

    Terms are the engine's, weights and ramps included. ``parameters()`` are all that the method trains: the student's,
    and those that it adds (:meth:`extra_parameters`). Teachers are set to the mode the method wants, and are no part of
    it. ``state_dict()`` holds all that a resumed loop needs but :attr:`step`, which may be set.

    Args:
        method: a method or variant by name.
        student: the network: any module, one with :func:`kdbench.tap` where the method reads maps, or one of kdbench;
            where a method trains several, a list of as many of one architecture.
        teacher: the trained network, or role to network; None for a method without.
        example: a batch ``(x, y)`` as the loop draws them, for shapes: ``x`` a tensor (N, ...) of normalised inputs, or
            input name to tensor, ``y`` (N,) labels or targets.
        classes: number of classes; 1 of a regression.
        labels: (rows,) labels of all training rows, for methods that keep a memory of rows.
        epochs, steps: epochs of the whole training and steps of each, for methods whose weights follow them.
        optimizer: settings that some methods scale by, as in a task file.
        kind: of the task.
        label_range: (least, greatest) target of a regression.
        seed: of what the method draws.
        hp: hyper-parameters that are not the card's defaults.

    Raises:
        UserError: an unknown name or value, or the method cannot work this way; the message says why and what to do.
    """

    def __init__(
        self,
        method: str,
        *,
        student: AnyNet | Sequence[AnyNet],
        example: tuple[Tensor | Mapping[str, Tensor], Tensor],
        classes: int,
        teacher: AnyNet | Mapping[str, AnyNet] | None = None,
        labels: Tensor | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        optimizer: Mapping[str, Any] | None = None,
        kind: str = "classification",
        label_range: tuple[float, float] | None = None,
        seed: int = 0,
        hp: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        method, classes = taken("method", method, str), taken("classes", classes, Number)
        epochs, steps = taken("epochs", epochs, Number | None), taken("steps", steps, Number | None)
        seed = taken("seed", seed, Seed)
        hp, optimizer = taken("hp", hp, Keys | None), taken("optimizer", optimizer, Keys | None)
        _require_rows(example)
        ref = registry.method(method)
        config = method_config(ref, hp or {})
        typed = hyper_parameters(config)
        adapter = ref.adapter()
        self._needs = needs = adapter.needs(typed)
        if not isinstance(example[1], Tensor):
            raise UserError(
                f"{method} cannot work in a loop of one's own here: its targets are a tensor of one entry a row, not "
                f"{type(example[1]).__name__}; `kdbench evaluate` runs other kinds of task"
            )
        _require_labels(labels, classes if kinds.kind(kind).class_a_row else None)
        batch = _batch(*example)
        students_given: list[Any] = list(student) if isinstance(student, list | tuple) else [student]
        students = [network(net, "the student", batch.x, classes) for net in students_given]
        given = teacher if isinstance(teacher, Mapping) else {} if teacher is None else {TEACHER: teacher}
        roles = {role: network(net, f"the {role}", batch.x, classes) for role, net in given.items()}
        if {id(_module(net)) for net in given.values()} & {id(_module(net)) for net in students_given}:
            raise UserError("the student and a teacher are one module, which cannot learn from itself; give a copy")
        device = batch.y.device
        self.name, self.seed, self.step = method, seed, 0
        self.task = LoopTask(
            method, kind, classes, batch, labels, {"epochs": epochs, "steps": steps}, dict(optimizer or {}), seed,
            device, label_range,
        )  # fmt: skip
        told = cast(TaskInfo, self.task)  # its attributes are read alone
        try:
            if len(students) != needs.students:
                raise NotApplicable(
                    f"it trains {needs.students} students of one architecture, {len(students)} given; give student= a "
                    "list of as many"
                )
            if (reason := kinds.refusal(needs.kinds, kind)) is not None:
                raise NotApplicable(reason)
            if kinds.kind(kind).tiny.sentences is not None:
                raise NotApplicable(
                    f"a {kind} task's rows are sentences, of several predictions each; `kdbench evaluate` runs it"
                )
            if kinds.kind(kind).views is not None:
                raise NotApplicable(f"a {kind} task makes views of pixels of its own; `kdbench evaluate` runs it")
            _require_targets(batch, "example")
            read = applicability.roles_read(needs, list(roles))
            teachers = {role: accelerate.teacher(roles[role], needs, EAGER) for role in read}
            applicability.nets(needs, told, students[0], teachers)
            with seeded(seed, "method"):
                self.method: Method = adapter(told, students, teachers, typed).to(device)
            self.stage = _only_stage(self.method)
        except NotApplicable as reason:
            raise UserError(f"{method} cannot work in a loop of one's own here: {reason}") from reason
        self._handed: Any = None
        self._seen: Batch | None = None
        self.method.train()

    def forward(
        self,
        x: Tensor | Mapping[str, Tensor],
        y: Tensor,
        *,
        index: Tensor | None = None,
        present: Mapping[str, Tensor] | None = None,
        epoch: int | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms of a batch, 0-d each, with gradients; their sum is what to minimise.

        Args:
            x, y: as in ``example``.
            index: (N,) numbers of the rows in the training set, for methods that keep a memory of rows.
            present: input name to (N,) bool, False where a row lacks that input.
            epoch: counted from 0, where the distiller was not told ``steps``.
        """
        for what, told in (("index", index), ("present", present)):
            if what in self._needs.batch and told is None:
                raise UserError(f"{self.name} reads {what} of a batch; call the distiller with {what}=")
        given = _batch(x, y, index, present)
        _require_targets(given, "this batch")
        batch = self._viewed(given)
        rng = torch.Generator(self.task.device)
        rng.manual_seed(derive(self.seed, "step", self.stage.name, self.step))
        assert self.stage.losses is not None
        terms = self.stage.losses(batch, self.task.at(self.step, epoch, rng))
        self._handed = terms.handed if isinstance(terms, Terms) else None
        self._seen, self._epoch = batch, epoch
        return dict(terms)

    @torch.no_grad()
    def after_step(self) -> None:
        """After each step of the optimiser: what the method remembers is brought up to date, and the step is counted.

        Raises:
            UserError: no batch was seen since the last call.
        """
        if self._seen is None:
            raise UserError("after_step() follows a call with a batch and the optimiser's step")
        rng = torch.Generator(self.task.device)
        at = self.task.at(self.step, self._epoch, rng)
        self.method.after_step(replace(self._seen, handed=self._handed), at)
        self._seen = self._handed = None
        self.step += 1

    @property
    def deployed(self) -> nn.Module:
        """The network to keep."""
        return self.method.deployed

    def extra_parameters(self) -> Iterator[nn.Parameter]:
        """What the method trains beside the first student."""
        own = set(self.method.student.parameters())
        return (p for group in self.stage.groups for p in group.params if p not in own)

    def _viewed(self, batch: Batch) -> Batch:
        """The batch, of as many views as the stage asks for."""
        views = self.stage.views
        if views is None:
            return batch
        rng = generator(self.task.device, self.seed, "views", self.stage.name, self.step)
        x = dict(batch.x)
        x[views.input] = views.fn(x[views.input], rng).flatten(0, 1)
        y, index = batch.y.repeat(views.n), batch.index.repeat(views.n)
        shape, hide = x[views.input].shape[1:], views.hide
        visible, seen = (
            (None, None) if hide is None else (hide.draw(len(index), shape, rng), hide.seen(hide.grid(shape)))
        )
        present = {name: mask.repeat(views.n) for name, mask in batch.present.items()}
        return Batch(x, y, index, views.n, present, visible=visible, seen=seen)


def _module(net: AnyNet) -> nn.Module:
    return net.module if isinstance(net, Tapped) else net


def _require_rows(example: Any) -> None:
    """Raises UserError where an example is no batch of rows."""
    pair = isinstance(example, tuple | list) and len(example) == 2
    x = example[0] if pair else None
    inputs: list[Any] = list(x.values()) if isinstance(x, Mapping) else [x]
    if not inputs or not all(isinstance(one, Tensor) and one.ndim for one in inputs):
        raise UserError("example: a batch (x, y) is asked for, x a tensor of rows, or a mapping of inputs to such")


def _require_targets(batch: Batch, what: str) -> None:
    """Raises UserError where rows of inputs are not as many as targets, or there are none."""
    rows, targets = {len(one) for one in batch.x.values()}, len(batch.y)
    if rows != {targets} or not targets:
        told = " and ".join(map(str, sorted(rows)))
        raise UserError(f"{what}: {told} rows of inputs and {targets} targets; one target a row is asked for")


def _require_labels(labels: Any, classes: int | None) -> None:
    """Raises UserError where labels are none of training rows; ``classes``: how many there are, None where none are."""
    if labels is None:
        return
    if not isinstance(labels, Tensor) or labels.ndim != 1:
        raise UserError("labels: a tensor of one entry a training row is asked for")
    if classes is not None and (
        labels.is_floating_point() or not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < classes
    ):
        raise UserError(f"labels: whole numbers from 0 to {classes - 1} are asked for, one a training row")


def _batch(
    x: Tensor | Mapping[str, Tensor],
    y: Tensor,
    index: Tensor | None = None,
    present: Mapping[str, Tensor] | None = None,
) -> Batch:
    inputs = {INPUT: x} if isinstance(x, Tensor) else dict(x)
    if index is None:
        index = torch.arange(len(y), device=y.device)
    return Batch(inputs, y, index, 1, present or {})


def _only_stage(method: Method) -> Stage:
    """The one stage of a method.

    Raises:
        NotApplicable: it has several, or one that is not a sum of terms over a batch.
    """
    if type(method).stages is Method.stages:  # its length is the loop's own
        return Stage("distill", losses=method.losses, groups=method.groups(), epochs=1)
    stages = method.stages()
    stage = next(stages)
    if stage.step is not None or stage.extra is not None:
        raise NotApplicable(f"its stage {stage.name!r} makes updates of its own; `kdbench evaluate` runs it")
    if stage.views is not None and stage.views.where == "raw":
        raise NotApplicable("it makes views of pixels before they are augmented; `kdbench evaluate` runs it")
    if stage.partners is not None:
        raise NotApplicable("it draws a second row for each of a batch; `kdbench evaluate` runs it")
    if next(stages, None) is not None:
        raise NotApplicable("it trains in several stages; `kdbench evaluate` runs it")
    return stage
