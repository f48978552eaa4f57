"""Attention-based data augmentation (J. Phys.: Conf. Ser. 2171 012058, 2022), reconstructed from its abstract: see the
card for what is ours.

Shapes: N pictures of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Inner, Method, Needs, NotApplicable, Out, Stage, TaskInfo
from kdbench.contract.stage import Losses

OWN_KINDS = frozenset({"classification", "regression"})


def response(maps: Tensor) -> Tensor:
    """(N, h, w) attention of (N, C, h, w) maps: their squares summed over channels."""
    return maps.square().sum(dim=1)


def salient(attention: Tensor, share: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 1, H, W) bool, the pixels of highest attention: a share of them, rounded up, and all that equal the last.

    Args:
        attention: (N, h, w), enlarged bilinearly.
        share: (N,) in (0, 1].
        size: H, W.
    """
    found = F.interpolate(attention[:, None], size, mode="bilinear", align_corners=False).flatten(1)
    last = (share * found.shape[1]).ceil().long().clamp(1, found.shape[1]) - 1
    bound = found.sort(dim=1, descending=True).values.gather(1, last[:, None])
    return (found >= bound).view(-1, 1, *size)


def first_rows(out: Out, n: int) -> Out:
    """The first n rows of a network's output."""
    logits, maps, preact, stem, emb, code = out[:6]

    def of(x: Tensor | None) -> Any:
        return None if x is None else x[:n]

    return Out(of(logits), tuple(map(of, maps)), tuple(map(of, preact)), of(stem), of(emb), of(code))


class LabelledFirst:
    """A task whose own loss sees the first half of a batch alone; all else is the task's."""

    def __init__(self, task: TaskInfo) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """The task's loss of the pictures as they are."""
        half = len(batch) // 2
        return self._task.loss(first_rows(out, half), replace(batch, views=2).view(0))


class ABDA(Method):
    """An inner method on twice the pictures: those of a batch, then others with their salient parts pasted on.

    mixed_b = M_b x_b + (1 - M_b) x_p(b), p a permutation of the batch, M_b the share r_b of pixels to which the
    teacher's last map responds most, r_b uniform between two bounds. The task's loss sees no mixed picture.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        inner: Inner = hp.inner
        own = inner.needs()
        return replace(
            own,
            kinds=OWN_KINDS & (own.kinds or OWN_KINDS),
            inputs="same",
            teacher=own.teacher | {"maps"},
            min_batch=max(2, own.min_batch),
            one_process="it pastes pictures of the whole batch onto one another",
        )

    def setup(self) -> None:
        task, inner = self.task, self.hp.inner
        if self.hp.least_share > self.hp.greatest_share:
            raise NotApplicable("least_share is above greatest_share; exchange them")
        needs: Needs = inner.needs()
        if not needs.teachers:
            raise NotApplicable(f"its inner method {inner.name} reads no teacher, whose attention says what is pasted")
        if "index" in needs.batch:
            raise NotApplicable(f"its inner method {inner.name} reads row numbers, and a mixed picture is of two rows")
        self.inputs = sorted({net.input for net in (self.student, *self.teachers.values())})
        x = task.wrap(task.rows(torch.arange(1, device=task.device))).x
        if any(x[name].ndim != 4 for name in self.inputs):
            raise NotApplicable("it pastes parts of pictures, both networks must read pictures")
        self.inner: Method = inner.build(LabelledFirst(task), list(self.students), self.teachers)
        if needs.views > 1 or type(self.inner).after_step is not Method.after_step:
            raise NotApplicable(
                f"its inner method {inner.name} has views of its own, or keeps what it said of each row"
            )

    @property
    def deployed(self) -> Any:
        return self.inner.deployed

    def stages(self) -> Iterator[Stage]:
        for stage in self.inner.stages():
            if stage.losses is None:
                raise NotApplicable(f"its inner method {self.hp.inner.name} makes its own updates")
            yield replace(stage, losses=partial(self.on_both, stage.losses))

    def on_both(self, losses: Losses, batch: Batch, at: At) -> dict[str, Tensor]:
        """The inner method's terms on the pictures and the mixed ones."""
        return losses(self.with_mixed(batch, at.rng), at)

    @torch.no_grad()
    def with_mixed(self, batch: Batch, rng: torch.Generator) -> Batch:
        """2N rows of one view: those of the batch, then the mixed ones, each under the number of its salient part."""
        hp, n = self.hp, len(batch)
        attention = response(self.teacher(batch).maps[-1])
        other = torch.randperm(n, generator=rng, device=rng.device)
        drawn = torch.rand(n, generator=rng, device=rng.device)
        share = hp.least_share + (hp.greatest_share - hp.least_share) * drawn
        x = {}
        for name, rows in batch.x.items():
            mixed = rows
            if name in self.inputs:
                mixed = torch.where(salient(attention, share, tuple(rows.shape[2:])), rows, rows[other])  # type: ignore[arg-type]
            x[name] = torch.cat([rows, mixed])
        present = {name: there.repeat(2) for name, there in batch.present.items()}
        return Batch(x, batch.y.repeat(2), batch.index.repeat(2), 1, present)
