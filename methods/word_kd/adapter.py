"""Word-level distillation, of all symbols or of those that the student finds hard (Wang et al., ACL 2021).

Shapes: M real target symbols of a batch, V symbols of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Needs, Terms
from kdbench.methods.shared.logits import ScoreMethod, row_divergence
from kdbench.methods.shared.sentences import TEXTS, gate


class LossQueue(nn.Module):
    """The losses of earlier symbols, the oldest first; buffers and therefore part of every checkpoint.

    Args:
        size: Q; a push that would reach it drops as many of the oldest as it adds.
    """

    values: Tensor
    held: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(size))
        self.register_buffer("held", torch.zeros((), dtype=torch.int64))

    def pushed(self, new: Tensor) -> Tensor:
        """(q,) what the queue holds after ``new`` (M,); it stays as it is."""
        held = self.values[: int(self.held)]
        if len(held) + len(new) >= len(self.values):
            held = held[len(new) :]
        return torch.cat([held, new.to(held)])[-len(self.values) :]

    @torch.no_grad()
    def set(self, values: Tensor) -> None:
        """Holds ``values`` (q,) from now on."""
        self.values[: len(values)] = values
        self.held.fill_(len(values))


class WordKD(ScoreMethod):
    """Cross-entropy, and the divergence from the teacher's next symbol, each a mean over all real symbols.

    L = ce_weight CE + kd_weight / M sum_{m in S} KL(p_T || p_S). S is all symbols, or those of largest -log p_S(y):
    the share ``rate`` of the batch, or those beyond the ``rate`` quantile of a queue of earlier ones.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=TEXTS)

    def setup(self) -> None:
        super().setup()
        self.queue = LossQueue(self.hp.queue) if self.hp.select == "global" else None

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out = self.student(batch)
        divergence = row_divergence(out.logits, self.teacher(batch).logits, hp.temperature)
        pushed = None
        if hp.select != "all":
            hard = F.cross_entropy(out.logits.detach(), batch.y, reduction="none")
            pushed = None if self.queue is None else self.queue.pushed(hard)
            divergence = divergence * (hard >= gate(hard if pushed is None else pushed, hp.rate))
        terms = {"kd": hp.kd_weight * divergence.mean()}
        if hp.ce_weight:
            terms = {"ce": hp.ce_weight * self.task.loss(out, batch), **terms}
        return Terms(terms, handed=pushed)

    def after_step(self, batch: Batch, at: At) -> None:
        if self.queue is not None:
            self.queue.set(batch.handed)
