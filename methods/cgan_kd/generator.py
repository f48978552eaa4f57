"""The road to the fakes: a conditional GAN, what the density ratio looks at, the ratio, and the set drawn with them.

Nothing here sees the student but to learn which input it reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Group, Method, Rows, Stage
from kdbench.contract import Update as UpdateFn
from kdbench.methods.cgan_kd import features
from kdbench.methods.cgan_kd.ccgan import CcGAN
from kdbench.methods.cgan_kd.fakes import Fakes
from kdbench.methods.cgan_kd.gan import ClassGAN, ConditionalGAN, to_unit
from kdbench.methods.cgan_kd.ratio import RatioNet, ratio_terms
from kdbench.methods.cgan_kd.refusals import check, check_classes, checked_range, image_input

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


class MakesFakes(Method):
    """The half of the method that trains what fakes are drawn with, and draws them."""

    def setup(self) -> None:
        task, hp = self.task, self.hp
        check(hp)
        self.pixels = image_input(task, self.student, self.teacher)
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

    def generator_stages(self) -> Iterator[Stage]:
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

    def _feature_group(self, net: nn.Module, lr: float, drops: tuple[float, ...]) -> Group:
        return Group("features", features.trained_parameters(net), features.sgd(lr), drops)

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
