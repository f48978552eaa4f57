"""The GAN of a scalar label (CcGAN): vicinities of labels, vicinal losses, and the net that embeds a label.

Labels are mapped to [0, 1] first: y = (target - min) / (max - min) of the task's label range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, NotApplicable, Stage, TaskInfo, Update
from kdbench.methods.cgan_kd.features import sgd
from kdbench.methods.cgan_kd.gan import ConditionalGAN, DRows
from kdbench.methods.cgan_kd.networks import Condition

LEAST_WEIGHT = 1e-3
"""Rows whose soft weight would be smaller lie outside a vicinity."""
INPUT_SHIFT = 1e-8
LABEL_NOISE = 0.2
REDRAWS = 16
"""Noise draws of a target label whose vicinity is empty; after so many it goes without noise, and is in its own."""


@dataclass(frozen=True)
class Vicinity:
    """Which labels count as close to a target, and how much.

    Attributes:
        sigma: standard deviation of the noise added to labels.
        kappa: half-width (hard), or the rate nu of the weight exp(-nu d^2) (soft).
        radius: half-width either way.
        soft: weighted by distance, not all alike.
    """

    sigma: float
    kappa: float
    radius: float
    soft: bool

    @classmethod
    def of(
        cls,
        labels: Tensor,
        multiplier: float,
        soft: bool,
        sigma: float | None = None,
        least_weight: float = LEAST_WEIGHT,
    ) -> Vicinity:
        """Rule of thumb for labels (N,) in [0, 1]: half-width ``multiplier`` times the largest gap.

        Args:
            sigma: instead of 1.06 std(y) N^(-1/5).
            least_weight: soft weight at the edge of a vicinity.

        Raises:
            NotApplicable: all labels are equal.
        """
        values = labels.double()
        distinct = values.unique()
        if len(distinct) < 2:
            raise NotApplicable("all training labels are equal: there is no gap between labels to size a vicinity by")
        if sigma is None:
            sigma = 1.06 * float(values.std(correction=0)) * len(values) ** -0.2
        base = multiplier * float(distinct.diff().max())
        if not soft:
            return cls(sigma, base, base, soft)
        rate = 1 / base**2
        return cls(sigma, rate, math.sqrt(-math.log(least_weight) / rate), soft)

    def weights(self, labels: Tensor, targets: Tensor) -> Tensor:
        """Weights (N,) of rows with labels (N,) for targets (N,)."""
        return torch.exp(-self.kappa * (labels - targets) ** 2) if self.soft else torch.ones_like(labels)

    def span(self, sorted_labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """First place and number of the labels in each target's vicinity, both of the shape of ``targets``."""
        first = torch.searchsorted(sorted_labels, targets - self.radius)
        behind = torch.searchsorted(sorted_labels, targets + self.radius, right=True)
        return first, behind - first


class LabelNet(nn.Module):
    """A label (N,) in [0, 1] to its embedding (N, width), all values at least 0.

    Args:
        width: of every layer.
        layers: linear layers with group norm and ReLU before the last one, which has ReLU alone.
        groups: of the group norms.
    """

    def __init__(self, width: int, layers: int = 4, groups: int = 8) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for number in range(layers):
            modules += [nn.Linear(width if number else 1, width), nn.GroupNorm(groups, width), nn.ReLU()]
        self.main = nn.Sequential(*modules, nn.Linear(width, width), nn.ReLU())

    def forward(self, y: Tensor) -> Tensor:
        return self.main(y[:, None] + INPUT_SHIFT)


def noisy(labels: Tensor, noise: Tensor) -> Tensor:
    """Labels (N,) with noise, kept within [0, 1]."""
    return (labels + noise).clamp(0, 1)


def label_loss(net: LabelNet, back: Callable[[Tensor], Tensor], labels: Tensor) -> Tensor:
    """Mean squared error, 0-d, of labels (N,) put through the embedding and ``back`` again."""
    return (back(net(labels)) - labels).square().mean()


class CcGAN(ConditionalGAN):
    """Labels are scalars in [0, 1]; the nets are told their embedding.

    Args:
        labels: (n_train,) in [0, 1].
        back: frozen map from an embedding (N, width) to the label (N,).
        width: of an embedding.
    """

    order: Tensor
    sorted: Tensor
    distinct: Tensor
    counts: Tensor
    first: Tensor
    all_labels: Tensor

    def __init__(
        self, task: TaskInfo, pixels: str, labels: Tensor, back: Callable[[Tensor], Tensor], width: int, hp: Any
    ) -> None:
        super().__init__(task, pixels, Condition(width, classes=False), hp)
        self.back = back
        self.vicinity = Vicinity.of(labels, hp.kappa, hp.vicinity == "soft", hp.sigma)
        groups = math.gcd(hp.embed_groups, width)
        self.label_net = LabelNet(width, hp.embed_layers, groups)
        order = labels.argsort(stable=True)
        distinct, counts = labels[order].unique_consecutive(return_counts=True)
        tensors = {
            "order": order,
            "sorted": labels[order],
            "distinct": distinct,
            "counts": counts,
            "first": counts.cumsum(0) - counts,
            "all_labels": labels,
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def condition(self, labels: Tensor) -> Tensor:
        with torch.no_grad():
            return self.label_net(labels)

    def labels(self, index: Tensor) -> Tensor:
        return self.all_labels[index]

    def targets(self, n: int, rng: torch.Generator, near: bool) -> Tensor:
        """(n,) distinct labels drawn uniformly, with noise; with ``near`` each has a training label in its vicinity."""
        distinct = self.distinct
        chosen = distinct[torch.randint(len(distinct), (n,), generator=rng, device=rng.device)]
        tries = REDRAWS if near else 1
        noise = torch.randn(n, tries, generator=rng, device=rng.device, dtype=chosen.dtype) * self.vicinity.sigma
        candidates = chosen[:, None] + noise
        if not near:
            return candidates[:, 0]
        _, count = self.vicinity.span(self.sorted, candidates)
        order = torch.arange(tries, 0, -1, device=rng.device)
        best, place = ((count > 0) * order).max(dim=1)  # the earliest draw whose vicinity is not empty
        return torch.where(best > 0, candidates.gather(1, place[:, None]).squeeze(1), chosen)

    def d_rows(self, n: int, rng: torch.Generator) -> DRows:
        target = self.targets(n, rng, near=True)
        first, count = self.vicinity.span(self.sorted, target)
        u, v = torch.rand(2, n, generator=rng, device=rng.device, dtype=target.dtype)
        real = self.order[first + torch.minimum((u * count).long(), count - 1)]
        low = (target - self.vicinity.radius).clamp(min=0)
        high = (target + self.vicinity.radius).clamp(max=1)
        fake = low + (high - low) * v
        seen = self.condition(target)
        weights = (self.vicinity.weights(labels, target) for labels in (self.labels(real), fake))
        return DRows(real, seen, seen, self.condition(fake), *weights)

    def g_conditions(self, n: int, rng: torch.Generator) -> Tensor:
        return self.condition(self.targets(n, rng, near=False))

    def ratio_rows(self, n: int, rng: torch.Generator) -> Tensor:
        """Row numbers: a distinct label drawn uniformly, then a row that has it."""
        place = torch.randint(len(self.distinct), (n,), generator=rng, device=rng.device)
        count = self.counts[place]
        within = (torch.rand(n, generator=rng, device=rng.device) * count).long()
        return self.order[self.first[place] + torch.minimum(within, count - 1)]

    def embed_step(self, draw: Callable[[], Batch], at: At, update: Update) -> dict[str, Tensor]:
        """One update of the label net on distinct labels with noise."""
        labels = self.distinct
        if len(labels) > self.hp.embed_batch:
            chosen = torch.randint(len(labels), (self.hp.embed_batch,), generator=at.rng, device=at.rng.device)
            labels = labels[chosen]
        noise = torch.randn(len(labels), generator=at.rng, device=labels.device, dtype=labels.dtype) * LABEL_NOISE
        loss = label_loss(self.label_net, self.back, noisy(labels, noise))
        update(loss, "label_net")
        return {"embedding": loss}

    def embed_stage(self, steps: int) -> Stage:
        """Training of the label net."""
        hp = self.hp
        name, parameters = hp.embed_optimizer, list(self.label_net.parameters())
        settings = (
            sgd(hp.embed_lr)
            if name == "sgd"
            else {"name": name, "lr": hp.embed_lr, "betas": (0.9, 0.999), "weight_decay": 0.0}
        )
        group = Group("label_net", parameters, settings, tuple(hp.embed_drops))
        return Stage("embed", [group], step=self.embed_step, steps=steps, ledger="generator_train", once=True)
