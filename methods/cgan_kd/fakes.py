"""The fakes a student trains on: drawn of a trained generator label by label, subsampled, filtered, relabelled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import TaskInfo
from kdbench.methods.cgan_kd.gan import ClassGAN, ConditionalGAN
from kdbench.methods.cgan_kd.sampling import Rejection, filter_scalars, filtered, label_errors


class Fakes:
    """What makes them.

    Args:
        task: the task they are for.
        gan: trained; labels of a regression are in [0, 1] of the label range.
        hp: the method's: how many, and what is done with them.
        teacher: pixels (N, C, H, W) uint8 to the teacher's logits.
        density: pixels and (N,) labels to density ratios (N,); None keeps every fake.
        label_range: of a regression, as in a batch.
    """

    def __init__(
        self,
        task: TaskInfo,
        gan: ConditionalGAN,
        hp: Any,
        teacher: Callable[[Tensor], Tensor],
        density: Callable[[Tensor, Tensor], Tensor] | None,
        label_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.task, self.gan, self.hp = task, gan, hp
        self.teacher, self.density, self.range = teacher, density, label_range

    def make(self, rng: torch.Generator) -> dict[str, Tensor]:
        """The set: ``x`` uint8 (N, C, H, W), ``y`` (N,) as in a batch.

        Raises:
            SamplingError: no usable fakes can be had for a label; names it.
        """
        return self._of_classes(self.gan, rng) if isinstance(self.gan, ClassGAN) else self._of_scalars(rng)

    def _draw(self, label: Tensor, rng: torch.Generator) -> Callable[[int], Tensor]:
        """Gives fakes of one label (0-d), subsampled if asked for."""
        hp = self.hp

        def make(n: int) -> Tensor:
            return torch.cat([self.gan.sample(label.expand(size), rng) for size in chunk_sizes(n, hp.proposals)])

        density = self.density
        if density is None:
            return make

        def propose(n: int) -> tuple[Tensor, Tensor]:
            fakes = make(n)
            return fakes, density(fakes, label.expand(n))

        uniform = partial(torch.rand, generator=rng)
        return Rejection(propose, uniform, hp.burn_in, hp.proposals, self._named(label), hp.max_rounds)

    def _named(self, label: Tensor) -> object:
        """A label in the words of a batch, for errors."""
        if isinstance(self.gan, ClassGAN):
            return int(label)
        low, high = self.range
        return f"{float(label) * (high - low) + low:.4g} (scaled)"

    def _of_classes(self, gan: ClassGAN, rng: torch.Generator) -> dict[str, Tensor]:
        hp = self.hp
        images, labels, agreed = [], [], []
        for label in gan.present:
            draw = self._draw(label, rng)
            if not hp.filter:
                images.append(draw(hp.per_label).cpu())
                labels.append(label.expand(hp.per_label))
                continue
            fakes, logits = filtered(
                draw, self.teacher, hp.per_label, hp.filter_burn_in, hp.rho, int(label), hp.max_rounds
            )
            predicted = logits.argmax(1)
            images.append(fakes.cpu())
            agreed.append(predicted == label)
            labels.append(predicted if hp.relabel else label.expand(hp.per_label))
        if agreed and float(torch.cat(agreed).float().mean()) < 2 / self.task.classes:
            warnings.warn("the teacher agrees with the labels of the kept fakes no better than chance", stacklevel=2)
        return {"x": torch.cat(images), "y": torch.cat(labels)}

    def _of_scalars(self, rng: torch.Generator) -> dict[str, Tensor]:
        hp, (low, high) = self.hp, self.range
        span = high - low
        known = self.gan.labels(torch.arange(self.task.n_train, device=self.task.device))
        grid = torch.linspace(0, 1, hp.labels, device=known.device) * (known.max() - known.min()) + known.min()
        images = torch.cat([self._draw(label, rng)(hp.per_label).cpu() for label in grid])
        labels = grid.repeat_interleave(hp.per_label)
        if hp.filter:
            outputs = (self.teacher(images.to(labels.device)) - low) / span
            predicted, errors = label_errors(outputs, labels, 1.0)
            kept, _ = filter_scalars(errors, hp.rho)
            images, labels = images[kept.cpu()], (predicted if hp.relabel else labels)[kept]
        return {"x": images, "y": labels * span + low}


def chunk_sizes(n: int, most: int) -> list[int]:
    """n as sizes of at most ``most``."""
    return [most] * (n // most) + ([n % most] if n % most else [])
