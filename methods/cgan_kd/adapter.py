"""Distillation through samples of a conditional GAN (Ding, Wang, Xu, Wang, Welch, ESWA 2023).

Stages: the student on real rows alone; a GAN, its label embedding and a density ratio, all fitted to the student's
training rows; then, between two stages, fakes are drawn, subsampled, filtered and relabelled; last the student goes on
with real and fake rows, by the task's loss or by another method's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.base.errors import UserError
from kdbench.contract import At, Batch, Group, Inner, Method, Needs, Network, NotApplicable, Rows, Stage, TaskInfo
from kdbench.contract import Update as UpdateFn
from kdbench.methods.cgan_kd import features
from kdbench.methods.cgan_kd.ccgan import CcGAN
from kdbench.methods.cgan_kd.fakes import Fakes
from kdbench.methods.cgan_kd.gan import ClassGAN, ConditionalGAN, to_unit
from kdbench.methods.cgan_kd.ratio import GROUPS, RatioNet, ratio_terms

STUDENT_ONLY = ("inner", "finetune_lr")
"""Hyper-parameters that do not decide the fakes: runs that differ in them share a set."""
OWN_KINDS = frozenset({"classification", "regression"})
MIN_BATCH = 2
CHUNK = 500
"""Most images a frozen net sees at once."""


@contextmanager
def inference(*nets: nn.Module) -> Iterator[None]:
    """Nets in eval mode without gradients; every module's own mode is restored after."""
    modes = [(module, module.training) for net in nets for module in net.modules()]
    for net in nets:
        net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


class CGANKD(Method):
    """The student on real and processed fake rows, alone or through an inner method."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        """Its own needs, joined with those of the inner method."""
        reads = {"logits"} | ({"emb"} if hp.subsample and hp.features == "teacher" else set())
        why = "the stages of its generator make updates of their own"
        own = Needs(kinds=OWN_KINDS, inputs="same", teacher=frozenset(reads), min_batch=MIN_BATCH, one_process=why)
        if hp.inner is None:
            return own
        inner = hp.inner.needs()
        return replace(
            inner,
            kinds=OWN_KINDS & (inner.kinds or OWN_KINDS),
            inputs="same",
            teachers=tuple(dict.fromkeys((*own.teachers, *inner.teachers))),
            student=own.student | inner.student,
            teacher=own.teacher | inner.teacher,
            min_batch=max(own.min_batch, inner.min_batch),
            one_process=why,
        )

    def setup(self) -> None:
        task, hp = self.task, self.hp
        check(hp)
        self.pixels = image_input(task, self.student, self.teacher)
        self.inner_method: Method | None = None
        self.label_features: features.LabelFeatures | None = None
        self.label_range = (0.0, 1.0)
        self.gan: ConditionalGAN
        if task.kind == "classification":
            check_classes(task.classes, hp.filter)
            self.gan = ClassGAN(task, self.pixels, hp)
        else:
            self.label_range = checked_range(task)
            self.gan = self._scalar_gan()
        self.own_features: nn.Module | None = None
        self.ratio: RatioNet | None = None
        if hp.subsample:
            self.ratio = RatioNet(self.gan.told, self._feature_width(), hp.ratio_widths, hp.ratio_dropout)

    def _scalar_gan(self) -> CcGAN:
        """The GAN of a regression; its label net inverts the teacher's last layer, or that of a net of its own."""
        task, hp = self.task, self.hp
        labels = self._shares(task.train_labels)
        if hp.features == "teacher":
            width = self.teacher.classifier.in_features
            return CcGAN(task, self.pixels, labels, self._teacher_back, width, hp)
        self.label_features = features.LabelFeatures(task.raw_shape[self.pixels], hp.embed_width)
        return CcGAN(task, self.pixels, labels, self.label_features.back, hp.embed_width, hp)

    def _feature_width(self) -> int:
        """Width of what the density ratio looks at; makes its extractor if that is not the teacher."""
        if self.hp.features == "teacher":
            return self.task.probe(self.teacher).emb.shape[1]
        shape = self.task.raw_shape[self.pixels]
        if self.task.kind == "classification":
            self.own_features = features.ClassFeatures(self.task, shape)
        else:
            self.own_features = features.SparseAutoencoder(shape, self.hp.channels)
        return math.prod(shape)

    # Stages

    def stages(self) -> Iterator[Stage]:
        yield Stage(
            "vanilla",
            [self._student_group(1.0)],
            losses=self._plain_losses,
            epochs=self.task.epochs,
            ledger="warmup_phase",
        )
        uses = [field.name for field in dataclasses.fields(self.hp) if field.name not in STUDENT_ONLY]
        fakes = self.task.recall("fakes", uses=uses)
        for stage in self._generator_stages():
            yield stage if fakes is None else replace(stage, steps=0, epochs=None)
        if fakes is None:
            fakes = self.task.keep("fakes", self.make_fakes, scope="task", uses=uses)
        yield from self._student_stages(Rows({self.pixels: fakes["x"]}, fakes["y"]))

    def _generator_stages(self) -> Iterator[Stage]:
        """All that makes samples possible; none of it sees the student."""
        hp = self.hp
        once = partial(Stage, ledger="generator_train", once=True)
        if self.label_features is not None:
            group = self._feature_group(self.label_features, 0.01, (0.3, 0.6))
            step = partial(self._feature_step, self.label_features)
            yield once("embed-images", [group], step=step, epochs=hp.feature_epochs, batch=hp.feature_batch)
        if isinstance(self.gan, CcGAN):
            yield self.gan.embed_stage(hp.embed_steps)
        yield self.gan.stage(hp.gan_steps)
        if self.own_features is not None:
            group = self._feature_group(self.own_features, hp.feature_lr, tuple(hp.feature_drops))
            step = partial(self._feature_step, self.own_features)
            yield once("features", [group], step=step, epochs=hp.feature_epochs, batch=hp.feature_batch)
        if self.ratio is not None:
            settings = {"name": "adam", "lr": hp.ratio_lr, "betas": (0.5, 0.999), "weight_decay": 1e-4}
            group = Group("ratio", list(self.ratio.parameters()), settings, tuple(hp.ratio_drops))
            yield once("ratio", [group], step=self._ratio_step, steps=hp.ratio_steps, batch=hp.ratio_batch)

    def _student_stages(self, fakes: Rows) -> Iterator[Stage]:
        """The student on real and fake rows, at the fraction ``finetune_lr`` of the task's learning rate."""
        inner: Inner | None = self.hp.inner
        if inner is None:
            group = self._student_group(self.hp.finetune_lr)
            yield Stage("mixed", [group], losses=self._plain_losses, epochs=self.task.epochs, extra=fakes)
            return
        teachers = self.teachers if inner.needs().teachers else {}
        students: list[Network] = list(self.students)  # type: ignore[arg-type]
        self.inner_method = inner.build(self.task.extend(fakes), students, teachers)
        for stage in self.inner_method.stages():
            groups = [self._slowed(group) for group in stage.groups]
            extra = fakes if stage.extra is None else joined(fakes, stage.extra)
            yield replace(stage, name=f"mixed-{stage.name}", groups=groups, extra=extra)

    def _student_group(self, factor: float) -> Group:
        return Group("student", list(self.students.parameters()), {"lr": factor * self.task.optimizer["lr"]})

    def _slowed(self, group: Group) -> Group:
        """A group of the inner method; one with an optimiser of its own keeps its rate."""
        name = self.task.optimizer["name"]
        if group.optimizer.get("name", name) != name:
            return group
        rate = group.optimizer.get("lr", self.task.optimizer["lr"])
        return replace(group, optimizer={**group.optimizer, "lr": self.hp.finetune_lr * rate})

    def _feature_group(self, net: nn.Module, lr: float, drops: tuple[float, ...]) -> Group:
        return Group("features", features.trained_parameters(net), features.sgd(lr), drops)

    def _plain_losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        terms = [self.task.loss(student(batch), batch) for student in self.students]
        return {"task": torch.stack(terms).sum()}

    def after_step(self, batch: Batch, at: At) -> None:
        if self.inner_method is not None:
            self.inner_method.after_step(batch, at)

    @property
    def deployed(self) -> nn.Module:
        return self.student if self.inner_method is None else self.inner_method.deployed

    # Features and density ratio

    def _teacher_back(self, embedding: Tensor) -> Tensor:
        """Labels (N,) in [0, 1] of the teacher's penultimate features (N, width)."""
        return self._shares(self.teacher.classifier(embedding).squeeze(1))

    def _shares(self, labels: Tensor) -> Tensor:
        """Labels as in a batch to [0, 1] of the label range."""
        low, high = self.label_range
        return (labels - low) / (high - low)

    def _feature_step(self, net: Any, draw: Any, at: At, update: UpdateFn) -> dict[str, Tensor]:
        index = torch.randint(self.task.n_train, (self.hp.feature_batch,), generator=at.rng, device=at.rng.device)
        loss = net.loss(to_unit(self.gan.raw(index)), self.gan.labels(index))
        update(loss, "features")
        return {"features": loss}

    def phi(self, raw: Tensor) -> Tensor:
        """Features (N, F) of pixels (N, C, H, W) uint8, real or fake, without gradients."""
        if self.own_features is not None:
            with inference(self.own_features):
                return torch.cat([self.own_features(to_unit(part)) for part in raw.split(CHUNK)])
        return self._ask_teacher(raw, "emb")

    def _ask_teacher(self, raw: Tensor, what: str) -> Tensor:
        """The teacher's ``logits`` or ``emb`` for pixels (N, C, H, W) uint8, through the task's test transform."""
        labels = self.task.train_labels[:1].expand(len(raw))  # a batch has labels; the teacher reads none
        with inference(self.teacher):
            return torch.cat(
                [
                    getattr(self.teacher(self.task.wrap(Rows({self.pixels: x}, y))), what)
                    for x, y in zip(raw.split(CHUNK), labels.split(CHUNK), strict=True)
                ]
            )

    def _density(self, raw: Tensor, labels: Tensor) -> Tensor:
        """Density ratios (N,) of pixels (N, C, H, W) uint8 and their labels (N,)."""
        assert self.ratio is not None
        with inference(self.ratio):
            return self.ratio(self.phi(raw), self.gan.condition(labels)).squeeze(1)

    def _ratio_step(self, draw: Any, at: At, update: UpdateFn) -> dict[str, Tensor]:
        """One update of the density ratio: real rows, and fakes made for the same labels."""
        assert self.ratio is not None
        index = self.gan.ratio_rows(self.hp.ratio_batch, at.rng)
        labels = self.gan.labels(index)
        real, fake = self.phi(self.gan.raw(index)), self.phi(self.gan.sample(labels, at.rng))
        condition = self.gan.condition(labels)
        terms = ratio_terms(self.ratio(real, condition), self.ratio(fake, condition), self.hp.ratio_penalty)
        update(terms["softplus"] + terms["penalty"], "ratio")
        return terms

    # Fakes

    def make_fakes(self) -> dict[str, Tensor]:
        """The set the student trains on, see :meth:`Fakes.make`."""
        teacher = partial(self._ask_teacher, what="logits")
        density = None if self.ratio is None else self._density
        return Fakes(self.task, self.gan, self.hp, teacher, density, self.label_range).make(self.task.rng("fakes"))


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both."""
    return Rows({name: torch.cat([x, second.x[name]]) for name, x in first.x.items()}, torch.cat([first.y, second.y]))


def check(hp: Any) -> None:
    """Raises :class:`UserError` for hyper-parameters that do not go together."""
    if hp.relabel and not hp.filter:
        raise UserError("method.relabel=true needs method.filter=true: only filtered fakes get the teacher's label")
    if wrong := [width for width in hp.ratio_widths if width % GROUPS or width < 4 * GROUPS]:
        raise UserError(
            f"method.ratio_widths: {wrong[0]} is not a multiple of {GROUPS} of at least {4 * GROUPS}; "
            "its group norm would leave nothing to tell rows apart"
        )


def check_classes(classes: int, filters: bool) -> None:
    """Raises :class:`NotApplicable` for a filter that nothing can pass."""
    if classes < 2 and filters:
        raise NotApplicable("of a single class the teacher's loss is 0 on every fake, so none is below its quantile")


def image_input(task: TaskInfo, student: Network, teacher: Network) -> str:
    """Name of the one image input that student and teacher read.

    Raises:
        NotApplicable: there are others, or it is not a square image.
    """
    names = list(task.raw_shape)
    if len(names) > 1 or student.input != teacher.input:
        raise NotApplicable(f"its generator makes rows of one image input, the task has {', '.join(names)}")
    shape = task.raw_shape[names[0]]
    if len(shape) != 3 or shape[1] != shape[2]:
        raise NotApplicable(f"its generator makes square images, input {names[0]!r} has shape {tuple(shape)}")
    return names[0]


def checked_range(task: TaskInfo) -> tuple[float, float]:
    """The label range of a regression.

    Raises:
        NotApplicable: the task names none, or a training label lies outside.
    """
    if task.label_range is None:
        raise NotApplicable("the task names no range of its labels")
    low, high = task.label_range
    slack = 1e-5 * (high - low)
    if float(task.train_labels.min()) < low - slack or float(task.train_labels.max()) > high + slack:
        raise NotApplicable("a training label lies outside the range that the task names")
    return low, high
