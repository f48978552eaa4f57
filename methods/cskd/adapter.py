"""Class-wise self-knowledge distillation (Yun, Park, Lee, Shin, CVPR 2020): rows of one class are to be told alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kdbench.contract import At, Batch, Needs, Stage
from kdbench.methods.kd.adapter import kd_loss
from kdbench.methods.shared.logits import ScoreMethod
from kdbench.methods.shared.partners import SameClass


class CSKD(ScoreMethod):
    """Cross-entropy, and the softened divergence from what the network says of another row of the class.

    L = CE(z(x), y) + weight T^2 KL(softmax(z(x') / T) || softmax(z(x) / T)), x' of the class y; z(x') is a constant,
    computed in train mode in a pass of its own. The batch's second view is of x'.
    """

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(teachers=(), teacher=frozenset(), views=2, one_process=None)

    def setup(self) -> None:
        super().setup()
        self.partners = SameClass(self.task.train_labels)

    def losses(self, batch: Batch, at: At) -> dict[str, Tensor]:
        hp, own = self.hp, batch.view(0)
        out = self.student(own)
        with torch.no_grad():
            partner = self.student(batch.view(1))
        alike = kd_loss(out.logits, partner.logits, hp.temperature)
        return {"task": self.task.loss(out, own), "class": hp.class_weight * alike}

    def stages(self) -> Iterator[Stage]:
        epochs = self.task.epochs
        yield Stage("distill", losses=self.losses, groups=self.groups(), epochs=epochs, partners=self.partners)
