"""R-Drop (Liang et al., NeurIPS 2021): two passes under other dropout agree."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Needs, Network, NotApplicable
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.sentences import TEXTS


def disagreement(one: Tensor, other: Tensor) -> Tensor:
    """(M,) [KL(p_1 || p_2) + KL(p_2 || p_1)] / 2 of two (M, V) logits; gradients pass through both sides of both."""
    p, q = one.log_softmax(1), other.log_softmax(1)
    both = F.kl_div(q, p, reduction="none", log_target=True) + F.kl_div(p, q, reduction="none", log_target=True)
    return both.sum(1) / 2


def require_dropout(net: Network) -> None:
    """Raises :class:`NotApplicable` where two passes of a network are one."""
    if not any(isinstance(module, nn.Dropout) and module.p for module in net.modules()):
        raise NotApplicable(
            "its two passes differ by dropout alone, and the student has none; name one such as gru_w64_d10"
        )


class RDrop(ScoreMethod):
    """L = CE_1 + CE_2 + weight / M sum_m [KL(p_1 || p_2) + KL(p_2 || p_1)] / 2, of two passes of one batch."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=TEXTS, teachers=(), teacher=frozenset())

    def setup(self) -> None:
        super().setup()
        require_dropout(self.student)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        one, other = self.student(batch), self.student(batch)
        task = self.task.loss(one, batch) + self.task.loss(other, batch)
        return {"task": task, "agree": self.hp.weight * disagreement(one.logits, other.logits).mean()}
