"""Progressive self-knowledge distillation (Kim, Ji, Yoon, Hwang, ICCV 2021): targets move towards past predictions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Needs, Terms
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.ramps import ramp
from kdbench.methods.shared.tables import RowTable


def refined(past: Tensor, y: Tensor, share: float | Tensor, rest: float | Tensor) -> Tensor:
    """(N, C) targets (1 - share) onehot(y) + share P, constants; a row without a past keeps its label.

    Args:
        past: (N, C) probabilities P given before, zeros where there were none.
        y: (N,) classes.
        share, rest: weights of the past, the paper's alpha_t, and of the label, 1 - alpha_t.
    """
    hard = torch.zeros_like(past).scatter(1, y[:, None], 1.0)
    past = torch.where(past.sum(dim=1, keepdim=True) > 0, past, hard)
    return rest * hard + share * past


class PSKD(ScoreMethod):
    """Cross-entropy with targets between the label and what the network said of the row an epoch ago.

    L = -mean_n sum_c [(1 - a) onehot(y) + a P]_c log p_c with a = alpha (e + 1) / E in epoch e of E, counted from 0. P
    is the softmax of the row's logits in the epoch before, those that its step was computed with.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(teachers=(), teacher=frozenset(), batch=frozenset({"index"}), one_process=None)

    def setup(self) -> None:
        super().setup()
        self.past = RowTable(self.task.n_train, self.task.classes)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        gather = self.task.gather
        logits = self.student(batch).logits

        def of_past(epoch: int) -> float:
            return float(self.hp.alpha * ramp("linear", epoch, at.epochs))

        share, rest = at.by_epoch(of_past), at.by_epoch(lambda epoch: 1 - of_past(epoch))
        targets = refined(self.past.rows[batch.index], batch.y, share, rest)
        said = logits.detach().softmax(dim=1)
        return Terms({"soft": F.cross_entropy(logits, targets)}, handed=(gather(batch.index), gather(said)))

    def after_step(self, batch: Batch, at: At) -> None:
        index, said = batch.handed
        self.past.write(index, said, batch.views)
