"""Introspective learning (Gu, Wu, Tresp, ACCV 2020), reconstructed from its abstract: see the card for what is ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Needs, NotApplicable
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod, others
from kdbench.methods.shared.ramps import ramp

SMALLEST = 1e-12
"""Least length of an explanation; of a map of zeros all similarities are 0."""


@torch.no_grad()
def explained_alike(features: Tensor, weight: Tensor, y: Tensor) -> Tensor:
    """(N, C) cosine between the explanation of the row's class and that of each class, constants.

    The explanation of class c is gradient times input of its score at the last map F, e_c = F * w_c, for a linear layer
    w on the pooled map. So cos(e_y, e_c) = sum_d A_d w_yd w_cd / sqrt(sum_d A_d w_yd^2 sum_d A_d w_cd^2) with
    A_d = sum_positions F_d^2, without a backward pass.

    Args:
        features: (N, D, *size) last map.
        weight: (C, D) of the classifier.
        y: (N,) classes.
    """
    energy = features.flatten(2).square().sum(dim=2)
    own = weight[y]
    products = (energy * own) @ weight.T
    lengths = (energy * own.square()).sum(dim=1, keepdim=True) * (energy @ weight.square().T)
    return products / lengths.sqrt().clamp_min(SMALLEST)


class Introspective(ScoreMethod):
    """Among the classes that are not the row's, scores follow how alike the network explains them and the row's own.

    L = CE + weight KL(q || p) over the C - 1 other classes, q = softmax(s / temperature) of the similarities s of
    :func:`explained_alike`, a constant, p = softmax(z); the weight rises linearly over the first ``ramp`` of training.
    """

    min_classes = 3

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        student = frozenset({"logits", "maps", "classifier"})
        return Needs(teachers=(), teacher=frozenset(), student=student, one_process=None)

    def setup(self) -> None:
        super().setup()
        channels = self.task.probe(self.student).maps[-1].shape[1]
        if (read := self.student.classifier.in_features) != channels:
            raise NotApplicable(f"the classifier reads {read} numbers and not the {channels} channels of the last map")

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp = self.hp
        out = self.student(batch)
        alike = explained_alike(out.maps[-1], self.student.classifier.weight, batch.y)
        taught = kd_loss(others(out.logits, batch.y), others(alike, batch.y) / hp.temperature, 1.0)
        length = round(hp.ramp * at.epochs)
        weight = at.by_epoch(lambda epoch: hp.explanation_weight * ramp("linear", epoch, length))
        return {"task": self.task.loss(out, batch), "explanation": weight * taught}
