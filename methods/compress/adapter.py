"""CompRess (Koohpayegani, Tejankar, Pirsiavash, NeurIPS 2020, equations 1 to 3): similarities to memory banks.

Shapes: N rows of a batch, D_s and D_t numbers of an embedding, Q rows of a bank.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, Method, Needs, NotApplicable, Stage, Terms
from kdbench.methods.shared.matching import unit
from kdbench.methods.shared.queues import Queue, checked, one_view
from kdbench.methods.shared.reached import reached


def divergence(s: Tensor, t: Tensor, bank_s: Tensor, bank_t: Tensor, temperature: float) -> Tensor:
    """mean_n KL(softmax(M_t t_n / T) || softmax(M_s s_n / T)), 0-d.

    Args:
        s, t: (N, D_s) and (N, D_t) unit embeddings of the same rows.
        bank_s, bank_t: (Q, D_s) and (Q, D_t), constants.
        temperature: T of both.
    """
    own, taught = ((z @ bank.T / temperature).log_softmax(dim=1) for z, bank in ((s, bank_s), (t, bank_t)))
    return F.kl_div(own, taught, reduction="batchmean", log_target=True)


class CompRess(Method):
    """The student's distribution over anchors follows the teacher's over the same anchors.

    Anchors are rows of earlier batches, in the student's bank as the student saw them, or as a slow copy of it did
    (``momentum``), or as the teacher did (``teacher``, for embeddings of one width).
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        emb = frozenset({"emb"})
        return Needs(kinds=frozenset({"representation"}), student=emb, teacher=emb)

    def setup(self) -> None:
        task, hp = self.task, self.hp
        own, other = (task.probe(net).emb.shape[1] for net in (self.student, self.teacher))
        rows = checked(hp.queue, task)
        if hp.student_bank == "teacher" and own != other:
            raise NotApplicable(f"one bank for both needs embeddings of one width, student has {own}, teacher {other}")
        widths = [other] if hp.student_bank == "teacher" else [other, own]
        self.banks = nn.ModuleList(Queue(torch.empty(rows, d).uniform_(-1, 1) * (3 / d) ** 0.5) for d in widths)
        self.slow = copy.deepcopy(self.student).requires_grad_(False) if hp.student_bank == "momentum" else None

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        t, s = unit(self.teacher(batch).emb), unit(self.student(batch).emb)
        banks = [bank.rows for bank in list[Any](self.banks)]
        loss = divergence(s, t, banks[-1], banks[0], self.hp.temperature)
        return Terms({"compress": loss}, handed=[t, self._key(batch, s)][: len(banks)])

    def _key(self, batch: Batch, s: Tensor) -> Tensor:
        """(N, D_s) what the student's bank is to hold of the batch."""
        if self.slow is None:
            return s
        with torch.no_grad():
            return unit(self.slow(batch).emb)

    def after_step(self, batch: Batch, at: At) -> None:
        for bank, rows in zip(list[Any](self.banks), batch.handed, strict=True):
            bank.write(rows)
        if self.slow is not None:
            for kept, now in zip(self.slow.parameters(), self.student.parameters(), strict=True):
                kept.lerp_(now, 1 - self.hp.momentum)

    def groups(self) -> list[Group]:
        """What the embedding depends on: a projection head behind it stays as it is."""
        rows = self.task.rows(torch.zeros(2, dtype=torch.int64, device=self.task.device))
        return [Group("student", reached(self.student, self.task.wrap(rows), lambda out: out.emb))]

    def stages(self) -> Iterator[Stage]:
        view = one_view(self.student.input)
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=self.task.epochs, views=view)
