"""kNN-KD (Yang, Sun, Wan, NAACL 2022): targets from the symbols whose decoder states lie nearest.

Shapes: M real target symbols of a batch, k neighbours, V symbols of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Needs, NotApplicable, Stage
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.sentences import TEXTS, nearest, neighbour_chances


def divergence(chances: Tensor, logits: Tensor, entropy: bool = True) -> Tensor:
    """(M,) KL(p || p_S) of constant chances p (M, V), or without their entropy the cross-entropy with them."""
    cross = -(chances * logits.log_softmax(1)).sum(1)
    return cross + torch.special.xlogy(chances, chances).sum(1) if entropy else cross


class KNNKD(ScoreMethod):
    """Cross-entropy, and the divergence from what followed the nearest states of the teacher in the training part.

    L = CE + kd_weight / M sum_m KL(p_kNN || p_S), p_kNN(v) = sum over neighbours of v of softmax(-d / temperature),
    d squared distances. With ``alone`` it is the cross-entropy with p_kNN.
    """

    symbols: Tensor
    distances: Tensor

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(kinds=TEXTS, teacher=frozenset({"emb"}), batch=frozenset({"index"}))

    def setup(self) -> None:
        super().setup()
        task, k = self.task, self.hp.neighbours
        if k > task.n_train:
            raise NotApplicable(
                f"{k} neighbours are more than the {task.n_train} symbols of the training part; lower method.neighbours"
            )
        # Kept by the task, not by checkpoints.
        self.register_buffer("symbols", torch.zeros(0, k, dtype=torch.int32), persistent=False)
        self.register_buffer("distances", torch.zeros(0, k), persistent=False)

    def chances(self, batch: Batch) -> Tensor:
        """(M, V) of a batch's symbols."""
        near = (self.symbols[batch.index], self.distances[batch.index])
        return neighbour_chances(*near, self.hp.temperature, self.task.classes)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out = self.student(batch)
        if hp.alone:
            return {"knn": divergence(self.chances(batch), out.logits, entropy=False).mean()}
        kd = hp.kd_weight * divergence(self.chances(batch), out.logits).mean()
        return {"ce": self.task.loss(out, batch), "knn": kd}

    def stages(self) -> Iterator[Stage]:
        task, k = self.task, self.hp.neighbours
        made = task.keep("neighbours", lambda: nearest(task, self.teacher, k), "task", "bank_init", ("neighbours",))
        self.symbols, self.distances = made["symbols"], made["distances"]
        yield from super().stages()
