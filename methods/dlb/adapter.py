"""Self-distillation from the last mini-batch (Shen, Xu, Yang, Li, Guo, CVPR 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Needs, Stage, Terms, Views
from kdbench.methods.shared.logits import ScoreMethod, row_divergence


def twice(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """(2, N, ...): every row twice, to be augmented each time by itself; nothing is drawn."""
    return torch.stack([pixels, pixels])


class LastBatch(nn.Module):
    """The batch before: inputs, classes and logits, buffers of a fixed size and therefore part of every checkpoint.

    A smaller batch fills the rest with its own rows again, in turn, and :attr:`held` says how many count.

    Args:
        row: (1, ...) an input, for its shape and type.
        rows: of a whole batch.
        classes: C.
    """

    x: Tensor
    y: Tensor
    logits: Tensor
    held: Tensor

    def __init__(self, row: Tensor, rows: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("x", row.new_zeros(rows, *row.shape[1:]))
        self.register_buffer("y", torch.zeros(rows, dtype=torch.long))
        self.register_buffer("logits", torch.zeros(rows, classes))
        self.register_buffer("held", torch.zeros((), dtype=torch.long))

    def _filled(self, rows: Tensor) -> Tensor:
        return rows[torch.arange(len(self.y), device=rows.device) % len(rows)]

    def inputs(self, first: Tensor) -> Tensor:
        """The inputs; before there are any, ``first`` (N, ...) in their place, for the statistics of batch norms."""
        return torch.where(self.held > 0, self.x, self._filled(first))

    def counted(self) -> Tensor:
        """(rows,) 1 for a row that counts, 0 for one that fills."""
        return (torch.arange(len(self.y), device=self.held.device) < self.held).to(self.logits)

    @torch.no_grad()
    def keep(self, x: Tensor, y: Tensor, logits: Tensor) -> None:
        """Another batch in its place."""
        for buffer, rows in ((self.x, x), (self.y, y), (self.logits, logits)):
            buffer.copy_(self._filled(rows))
        self.held.fill_(len(y))


class DLB(ScoreMethod):
    """The batch before is seen again beside the new one, and drawn to what was said of it then.

    L = CE over the M rows of the last batch and the N of this one, in one mean,
    + weight T^2 mean_M KL(softmax(z_then / T) || softmax(z_now / T)); the very first step has its cross-entropy alone.
    A row is augmented twice: the first view is seen when its batch is drawn and gives z_then, the second a step later.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        alone = "the batch before is held whole, and its rows are not shared out a second time"
        return Needs(teachers=(), teacher=frozenset(), views=2, one_process=alone)

    def setup(self) -> None:
        super().setup()
        task, name = self.task, self.student.input
        row = task.wrap(task.rows(torch.zeros(1, dtype=torch.long, device=task.device))).x[name]
        self.last = LastBatch(row, min(task.batch, task.n_train), task.classes)
        self.views = Views(2, twice, where="raw", input=name, anew=True)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, last, name = self.hp, self.last, self.student.input
        new, later = batch.view(0), batch.view(1).x[name]
        counted = last.counted()
        again = self.student(Batch({name: last.inputs(later)}, last.y, last.y)).logits
        out = self.student(new).logits
        ce = F.cross_entropy(out, new.y, reduction="sum")
        ce = ce + (counted * F.cross_entropy(again, last.y, reduction="none")).sum()
        kd = (counted * row_divergence(again, last.logits, hp.temperature)).sum() / counted.sum().clamp_min(1)
        terms = {"ce": ce / (len(new) + counted.sum()), "kd": hp.kd_weight * kd}
        return Terms(terms, handed=(later, new.y, out.detach()))

    def after_step(self, batch: Batch, at: At) -> None:
        self.last.keep(*batch.handed)

    def stages(self) -> Iterator[Stage]:
        epochs = self.task.epochs
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=epochs, views=self.views)
