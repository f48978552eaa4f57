"""Deep mutual learning (Zhang, Xiang, Hospedales, Lu, CVPR 2018, equations 3 to 8): peers teach each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Group, Needs, Stage
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod


def mutual_loss(own: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Mean over the other peers of KL(other || own) at temperature 1, 0-d, mean over the rows.

    Args:
        own: (N, C) logits.
        others: (N, C) logits of each other peer, constants.
    """
    return torch.stack([kd_loss(own, other, 1.0) for other in others]).mean()


class DML(ScoreMethod):
    """Students of one architecture see the same batches, each with the labels and the others' probabilities."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(teachers=(), teacher=frozenset(), students=hp.peers, one_process=None)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        outs = [peer(batch) for peer in self.students]
        terms = {}
        for i, out in enumerate(outs):
            others = [other.logits for j, other in enumerate(outs) if j != i]
            terms[f"task_{i}"] = self.task.loss(out, batch)
            terms[f"mutual_{i}"] = self.hp.mutual_weight * mutual_loss(out.logits, others)
        return terms

    def stages(self) -> Iterator[Stage]:
        peers = [Group("peers", list(self.students.parameters()))]
        yield Stage("distill", peers, losses=self.losses, epochs=self.task.epochs)
