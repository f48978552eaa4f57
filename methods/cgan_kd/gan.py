"""The class-conditional GAN, and what it shares with the one for scalar labels: losses, one training step, samples."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, Stage, TaskInfo, Update
from kdbench.methods.cgan_kd.deep import SIDE, DeepDiscriminator, DeepGenerator
from kdbench.methods.cgan_kd.diffaugment import augment
from kdbench.methods.cgan_kd.networks import Condition, SmallDiscriminator, SmallGenerator
from kdbench.methods.cgan_kd.residual import ResidualDiscriminator, ResidualGenerator


def architecture(nets: str, side: int) -> tuple[Any, Any]:
    """Classes of the generator and the discriminator for images of a side length.

    Args:
        nets: ``small``; or ``published``: BigGAN at 32 px, SAGAN at 64 px, BigGAN-deep at 128 px.
    """
    if nets == "small":
        return SmallGenerator, SmallDiscriminator
    return (DeepGenerator, DeepDiscriminator) if side == SIDE else (ResidualGenerator, ResidualDiscriminator)


def discriminator_losses(real: Tensor, fake: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Losses of each row, (N,) and (N,): of scores of real rows and of fake rows.

    Args:
        kind: ``hinge``: relu(1 - d) and relu(1 + d); ``vanilla``: -log sig(d) and -log(1 - sig(d)).
    """
    if kind == "hinge":
        return F.relu(1 - real), F.relu(1 + fake)
    return F.softplus(-real), F.softplus(fake)


def generator_loss(fake: Tensor, kind: str) -> Tensor:
    """0-d, of scores (N,) of fakes: -mean d (``hinge``) or -mean log sig(d) (``vanilla``)."""
    return -fake.mean() if kind == "hinge" else F.softplus(-fake).mean()


def to_unit(raw: Tensor) -> Tensor:
    """uint8 pixels as float in [-1, 1]."""
    return raw.float() / 127.5 - 1


def to_pixels(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8, cut off and not rounded."""
    return ((images * 0.5 + 0.5) * 255).clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Moves the running average of a net's parameters and statistics; counters are copied."""
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


class DRows(NamedTuple):
    """Rows of a discriminator step.

    Attributes:
        real: (N,) row numbers of the training set.
        real_condition, fake_condition: what the discriminator is told.
        given: what the generator is told.
        real_weight, fake_weight: (N,) weights of the rows' losses, or 1.
    """

    real: Tensor
    real_condition: Tensor
    fake_condition: Tensor
    given: Tensor
    real_weight: Tensor | float = 1.0
    fake_weight: Tensor | float = 1.0


class ConditionalGAN(nn.Module, ABC):
    """A generator, a discriminator and the running average of the generator, which makes the samples.

    A subclass says which rows and labels are drawn and what the nets are told of a label.

    Args:
        task: gives the real rows.
        pixels: name of the image input.
        condition: what the nets are told of a label.
        hp: the method's hyper-parameters.
    """

    def __init__(self, task: TaskInfo, pixels: str, condition: Condition, hp: Any) -> None:
        super().__init__()
        self.task, self.pixels, self.told, self.hp = task, pixels, condition, hp
        shape = task.raw_shape[pixels]
        generator, discriminator = architecture(hp.nets, shape[-1])
        self.generator = generator(shape, condition, hp.latent, hp.channels)
        self.discriminator = discriminator(shape, condition, hp.channels)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    @abstractmethod
    def labels(self, index: Tensor) -> Tensor:
        """Labels (N,) of training rows, as :meth:`condition` takes them."""

    @abstractmethod
    def condition(self, labels: Tensor) -> Tensor:
        """What the nets are told of labels (N,)."""

    @abstractmethod
    def d_rows(self, n: int, rng: torch.Generator) -> DRows:
        """What a discriminator step of n rows sees."""

    @abstractmethod
    def g_conditions(self, n: int, rng: torch.Generator) -> Tensor:
        """What generator and discriminator are told in a generator step of n rows."""

    @abstractmethod
    def ratio_rows(self, n: int, rng: torch.Generator) -> Tensor:
        """Numbers of the n real rows of a step of the density ratio."""

    def raw(self, index: Tensor) -> Tensor:
        """Pixels (N, C, H, W) of training rows, uint8."""
        return self.task.rows(index).x[self.pixels]

    def noise(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, latent) standard normal values, on the generator's device."""
        return torch.randn(n, self.hp.latent, generator=rng, device=rng.device)

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Fakes of labels (N,) by the averaged generator, uint8 (N, C, H, W); noise from ``rng`` on any device."""
        self.average.eval()
        with torch.no_grad():
            z = self.noise(len(labels), rng).to(labels.device)
            return to_pixels(self.average(z, self.condition(labels)))

    def step(self, draw: Callable[[], Batch], at: At, update: Update) -> dict[str, Tensor]:
        """``d_steps`` updates of the discriminator, one of the generator, and the average follows."""
        hp, n, rng = self.hp, self.hp.gan_batch, at.rng
        for _ in range(hp.d_steps):
            rows = self.d_rows(n, rng)
            with torch.no_grad():
                fake = self.generator(self.noise(n, rng), rows.given)
            images = augment(torch.cat([to_unit(self.raw(rows.real)), fake]), hp.diffaugment, rng)
            scores = self.discriminator(images, torch.cat([rows.real_condition, rows.fake_condition]))
            real, judged = scores.chunk(2)
            real_loss, fake_loss = discriminator_losses(real, judged, hp.gan_loss)
            d_loss = (rows.real_weight * real_loss).mean() + (rows.fake_weight * fake_loss).mean()
            update(d_loss, "discriminator")
        condition = self.g_conditions(n, rng)
        fake = self.generator(self.noise(n, rng), condition)
        self.discriminator.requires_grad_(False)  # only the generator moves: no gradients of the judge's weights
        g_loss = generator_loss(self.discriminator(augment(fake, hp.diffaugment, rng), condition), hp.gan_loss)
        update(g_loss, "generator")
        self.discriminator.requires_grad_(True)
        follow(self.average, self.generator, hp.ema_decay if at.step >= hp.ema_start else 0.0)
        return {"discriminator": d_loss, "generator": g_loss}

    def stage(self, steps: int) -> Stage:
        """Training of both nets."""
        settings = {"name": "adam", "lr": self.hp.gan_lr, "betas": self.hp.gan_betas, "weight_decay": 0.0}
        nets = {"discriminator": self.discriminator, "generator": self.generator}
        groups = [Group(name, list(net.parameters()), settings, "constant") for name, net in nets.items()]
        return Stage(
            "gan", groups, step=self.step, steps=steps, batch=self.hp.gan_batch, ledger="generator_train", once=True
        )


class ClassGAN(ConditionalGAN):
    """Labels are classes: real rows uniform over the training set, fakes uniform over the classes it has."""

    present: Tensor

    def __init__(self, task: TaskInfo, pixels: str, hp: Any) -> None:
        super().__init__(task, pixels, Condition(task.classes, classes=True), hp)
        self.register_buffer("present", task.train_labels.unique(), persistent=False)
        if absent := sorted(set(range(task.classes)) - set(self.present.tolist())):
            shown = ", ".join(map(str, absent[:5])) + (" ..." if len(absent) > 5 else "")
            warnings.warn(f"cgan_kd: no training row has class {shown}, so no fakes of it are made", stacklevel=2)

    def labels(self, index: Tensor) -> Tensor:
        return self.task.train_labels[index]

    def condition(self, labels: Tensor) -> Tensor:
        return labels

    def d_rows(self, n: int, rng: torch.Generator) -> DRows:
        real, fake = self.ratio_rows(n, rng), self.g_conditions(n, rng)
        return DRows(real, self.labels(real), fake, fake)

    def g_conditions(self, n: int, rng: torch.Generator) -> Tensor:
        return self.present[torch.randint(len(self.present), (n,), generator=rng, device=rng.device)]

    def ratio_rows(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.randint(self.task.n_train, (n,), generator=rng, device=rng.device)
