"""Learning with retrospection (Deng & Zhang, AAAI 2021): soft labels that the network gave some epochs ago."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Needs, Terms
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.tables import RowTable


def retrospection(epoch: int, interval: int, span: int) -> float:
    """How far training is, 0 while no soft labels are there: k floor(e / k) / span for e > k, at most 1.

    Args:
        epoch: e, counted from 1.
        interval: k, epochs from one renewal of the soft labels to the next.
        span: epochs after which it is 1.
    """
    return min(1.0, interval * (epoch // interval) / span) if epoch > interval else 0.0


class LWR(ScoreMethod):
    """The labels at first; then also the softened logits that the network gave the row when an interval ended.

    L = (1 - u (1 - r)) CE + u (1 - r) T^2 KL(softmax(z_old / T) || softmax(z / T)), u by :func:`retrospection`.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(teachers=(), teacher=frozenset(), batch=frozenset({"index"}), one_process=None)

    def setup(self) -> None:
        super().setup()
        self.old = RowTable(self.task.n_train, self.task.classes)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, gather = self.hp, self.task.gather
        out = self.student(batch)
        span = self.task.epochs if hp.span is None else hp.span

        def of_old(epoch: int) -> float:
            return float((1 - hp.least) * retrospection(epoch + 1, hp.interval, span))

        share, rest = at.by_epoch(of_old), at.by_epoch(lambda epoch: 1 - of_old(epoch))
        soft = kd_loss(out.logits, self.old.rows[batch.index], hp.temperature)
        terms = {"task": rest * self.task.loss(out, batch), "soft": share * soft}
        return Terms(terms, handed=(gather(batch.index), gather(out.logits.detach())))

    def after_step(self, batch: Batch, at: At) -> None:
        """New logits in the last epoch of an interval, by when a row's old ones have been read; else these stay."""
        index, logits = batch.handed
        ends = at.by_epoch(lambda epoch: float((epoch + 1) % self.hp.interval == 0))
        old = self.old.rows[index]
        self.old.write(index, torch.lerp(old, logits, ends), batch.views)  # an if would not be asked in a replayed step
