"""SEED, self-supervised distillation (Fang et al., ICLR 2021, equations 1 to 4): similarities to a queue.

Shapes: N rows of a batch, D numbers of a projection, K rows of the queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.contract import At, Batch, Method, Needs, NotApplicable, Stage, Terms
from kdbench.methods.shared.matching import unit
from kdbench.methods.shared.queues import Queue, checked, one_view


def similarities(z: Tensor, own: Tensor, queue: Tensor) -> Tensor:
    """(N, 1 + K) products of unit vectors with the teacher's of the same rows, then with those of the queue.

    Args:
        z: (N, D).
        own: (N, D) the teacher's.
        queue: (K, D).
    """
    return torch.cat([(z * own).sum(dim=1, keepdim=True), z @ queue.T], dim=1)


class SEED(Method):
    """The student's distribution over the teacher's own vector and the queue follows the teacher's.

    L = mean_n -sum_j p_nj log q_nj, p = softmax(t . Q / temperature_t), q = softmax(s . Q / temperature_s); s and t are
    unit projections of one picture, and Q is t, then the queue: the teacher's vectors from before the batch.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=frozenset({"representation"}))

    def setup(self) -> None:
        task = self.task
        own, other = (task.probe(net).logits.shape[1] for net in (self.student, self.teacher))
        if own != other:
            raise NotApplicable(f"student and teacher need projections of one width, they have {own} and {other}")
        self.queue = Queue(unit(torch.randn(checked(self.hp.queue, task), other)))

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        t, s = unit(self.teacher(batch).logits), unit(self.student(batch).logits)
        taught = similarities(t, t, self.queue.rows).div(hp.temperature_t).softmax(dim=1)
        logits = similarities(s, t, self.queue.rows) / hp.temperature_s
        return Terms({"seed": F.cross_entropy(logits, taught)}, handed=t)

    def after_step(self, batch: Batch, at: At) -> None:
        self.queue.write(batch.handed)

    def stages(self) -> Iterator[Stage]:
        view = one_view(self.student.input)
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=self.task.epochs, views=view)
