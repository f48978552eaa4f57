"""Energy knowledge distillation (Kim et al., Knowledge-Based Systems 2024, arXiv 2311.14334).

The teacher's free energy tells sure rows (low) from unsure ones (high): each gets a temperature of its own, or unsure
ones are mixed and seen once more (HE-DA). Shapes: N rows of a batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from kdbench.contract import VALUES, At, Batch, Needs, NotApplicable, Stage
from kdbench.methods.dkd.adapter import dkd_loss, warn_of_two_classes
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod, row_divergence
from kdbench.methods.shared.ramps import ramp

ALWAYS_MIXED = 2
"""HE-DA mixes this many first rows of a batch whatever their energy."""
MIXUP_ALPHA = 0.2
LEVELS = 1024
"""Values among which MixUp's share is drawn, equally likely ones of Beta(0.2, 0.2)."""
CHUNK = 1000


def energy(logits: Tensor, temperature: float) -> Tensor:
    """(N,) free energy -T logsumexp(logits / T) of (N, C) logits, low where they are sure."""
    return -temperature * (logits / temperature).logsumexp(dim=1)


def thresholds(energies: Tensor, low_share: float, high_share: float) -> tuple[Tensor, Tensor]:
    """The energies, 0-d each, below and above which the given shares of all rows lie (rounded down, without ties).

    Args:
        energies: (n,) of the training rows.
    """
    ordered, n = energies.sort().values, len(energies)
    return ordered[min(int(n * low_share), n - 1)], ordered[max(n - 1 - int(n * high_share), 0)]


def row_temperatures(energies: Tensor, bounds: tuple[Tensor, Tensor], low: float, middle: float, high: float) -> Tensor:
    """(N, 1) temperatures: ``low`` strictly below the lower bound, ``high`` strictly above the upper one."""
    found = torch.full_like(energies, middle)
    found = torch.where(energies < bounds[0], low, found)
    return torch.where(energies > bounds[1], high, found)[:, None]


def mixed_rows(energies: Tensor, bound: Tensor) -> Tensor:
    """Row numbers HE-DA mixes: the first ones, then those of high energy in order; a first one may occur twice."""
    first = torch.arange(min(ALWAYS_MIXED, len(energies)), device=energies.device)
    return torch.cat([first, (energies > bound).nonzero().squeeze(1)])


def mixup(x: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """``share`` of each row, the rest of its partner."""
    return share * x + (1 - share) * partner


def cutmix(x: Tensor, partner: Tensor, box: Tensor) -> Tensor:
    """(n, C, H, W) with the partner's pixels in a box: rows box[0] to box[2], columns box[1] to box[3]."""
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[-2:])
    inside_rows = (rows >= box[0]) & (rows < box[2])
    inside = inside_rows[:, None] & ((columns >= box[1]) & (columns < box[3]))
    return torch.where(inside, partner, x)


def random_box(height: int, width: int, rng: torch.Generator) -> Tensor:
    """(4,) box of CutMix: a share of the area that is uniform in [0, 1), centred anywhere, cut at the border."""
    share, *centre = torch.rand(3, generator=rng, device=rng.device)
    size = torch.stack([torch.full((), side, device=rng.device) for side in (height, width)])
    half = (size * share.sqrt()).long() // 2
    middle = (size * torch.stack(centre)).long()
    return torch.cat([(middle - half).clamp_min(0), torch.minimum(middle + half, size)])


class EnergyKD(ScoreMethod):
    """kd or dkd with a temperature for each row by its energy, or kd with mixed rows of high energy."""

    low: Tensor
    high: Tensor
    mixup_shares: Tensor

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        if hp.form == "heda":
            return Needs(
                batch=frozenset({VALUES}),
                min_batch=ALWAYS_MIXED,
                one_process="it mixes rows with others of the whole batch",
            )
        return Needs(one_process=None)

    def setup(self) -> None:
        super().setup()
        task, hp = self.task, self.hp
        if hp.form == "dkd":
            warn_of_two_classes(task)
        self.inputs = {self.student.input, self.teacher.input}
        if hp.form == "heda":
            x = task.wrap(task.rows(torch.arange(1, device=task.device))).x
            if len({x[name].shape[-2:] for name in self.inputs}) > 1 or any(x[name].ndim != 4 for name in self.inputs):
                raise NotApplicable("it mixes images, both networks must read images of one size")
        quantiles = betaincinv(MIXUP_ALPHA, MIXUP_ALPHA, (np.arange(LEVELS) + 0.5) / LEVELS)
        self.register_buffer("mixup_shares", torch.tensor(quantiles, dtype=torch.float32))
        self.register_buffer("low", torch.tensor(float("nan")))
        self.register_buffer("high", torch.tensor(float("nan")))

    @torch.no_grad()
    def _bounds(self) -> dict[str, Tensor]:
        parts = torch.arange(self.task.n_rows, device=self.task.device).split(CHUNK)
        batches = (self.task.wrap(self.task.rows(part)) for part in parts)
        energies = torch.cat([energy(self.teacher(batch).logits, self.hp.energy_temperature) for batch in batches])
        low, high = thresholds(energies, self.hp.low_share, self.hp.high_share)
        return {"low": low, "high": high}

    def stages(self) -> Iterator[Stage]:
        decided_by = ["energy_temperature", "low_share", "high_share"]
        bounds = self.task.keep("energies", self._bounds, scope="task", ledger="teacher_cache", uses=decided_by)
        self.low, self.high = bounds["low"], bounds["high"]
        yield from super().stages()

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out, target = self.student(batch), self.teacher(batch)
        energies = energy(target.logits, hp.energy_temperature)
        temperature = row_temperatures(
            energies, (self.low, self.high), hp.temperature_low_energy, hp.temperature, hp.temperature_high_energy
        )
        terms = {"ce": hp.ce_weight * self.task.loss(out, batch)}
        if hp.form == "dkd":
            divergence = dkd_loss(out.logits, target.logits, batch.y, temperature, hp.alpha, hp.beta)
            weight = at.by_epoch(lambda epoch: hp.kd_weight * ramp("linear", epoch, hp.warmup_epochs))
            terms["dkd"] = weight * divergence
        elif hp.form == "kd":
            terms["kd"] = hp.kd_weight * row_divergence(out.logits, target.logits, temperature).mean()
        else:
            mixed = self._mixed(batch, mixed_rows(energies, self.high), at.rng)
            terms["kd"] = hp.kd_weight * kd_loss(out.logits, target.logits, hp.temperature)
            divergence = kd_loss(self.student(mixed).logits, self.teacher(mixed).logits, hp.temperature)
            terms["mixed"] = hp.kd_weight * divergence
        return terms

    def _mixed(self, batch: Batch, rows: Tensor, rng: torch.Generator) -> Batch:
        """The given rows of a batch, each mixed with another of them."""
        partner = rows[torch.randperm(len(rows), generator=rng, device=rows.device)]
        mix: Callable[[Tensor, Tensor, Tensor], Tensor]
        if self.hp.mixing == "cutmix":
            height, width = batch.x[self.student.input].shape[-2:]
            mix, how = cutmix, random_box(height, width, rng)
        else:
            mix, how = mixup, self.mixup_shares[torch.randint(LEVELS, (), generator=rng, device=rows.device)]
        x = {name: mix(batch.x[name][rows], batch.x[name][partner], how) for name in self.inputs}
        return Batch(x, batch.y[rows], batch.index[rows])
