"""Learning with retrospection (Deng & Zhang, AAAI 2021): soft labels that the network gave some epochs ago."""

from __future__ import annotations

from typing import Any

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
        share = (1 - hp.least) * retrospection(at.epoch + 1, hp.interval, span)
        soft = kd_loss(out.logits, self.old.rows[batch.index], hp.temperature)
        terms = {"task": (1 - share) * self.task.loss(out, batch), "soft": share * soft}
        return Terms(terms, handed=(gather(batch.index), gather(out.logits.detach())))

    def after_step(self, batch: Batch, at: At) -> None:
        """In the last epoch of an interval; a row's old logits have been read by then."""
        if (at.epoch + 1) % self.hp.interval == 0:
            index, logits = batch.handed
            self.old.write(index, logits, batch.views)
