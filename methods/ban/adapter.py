"""Born-again networks (Furlanello et al., ICML 2018): generations of one architecture, each taught by the last.

From the paper's equations; no official code was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdbench.contract import At, Batch, Group, Needs, Stage
from kdbench.methods.shared.logits import ScoreMethod, require_same_shape
from kdbench.methods.shared.phases import Phased


def born_again_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """-mean_n sum_c q log p, 0-d: cross-entropy of the student p with the teacher's probabilities q.

    Args:
        student, teacher: (N, C) logits; the teacher's are constants.

    Raises:
        ValueError: the numbers of classes differ.
    """
    require_same_shape(student, teacher)
    return F.cross_entropy(student, teacher.detach().softmax(dim=1))


class BAN(Phased, ScoreMethod):
    """A plain generation, then generations taught by the one before; the last one starts from plain's weights."""

    @classmethod
    def needs(cls, hp: Any) -> Needs:
        return Needs(teachers=(), teacher=frozenset(), students=hp.generations + 1, one_process=None)

    def first_losses(self, net: nn.Module, batch: Batch, at: At) -> dict[str, Tensor]:
        """Terms of the plain generation."""
        return {"task": self.task.loss(net(batch), batch)}

    def taught_losses(self, net: nn.Module, parent: nn.Module, batch: Batch, at: At) -> dict[str, Tensor]:
        """Terms of a generation with the one before it."""
        out = net(batch)
        with torch.no_grad():
            target = parent(batch)
        terms = {"ban": born_again_loss(out.logits, target.logits)}
        if self.hp.ce_weight:
            terms["task"] = self.hp.ce_weight * self.task.loss(out, batch)
        return terms

    def stages(self) -> Iterator[Stage]:
        line = [*self.students[1:], self.student]  # the deployed network is born last
        for born, net in enumerate(line):
            self.hold(*line[:born])
            losses = partial(self.taught_losses, net, line[born - 1]) if born else partial(self.first_losses, net)
            groups = [Group("student", list(net.parameters()))]
            ledger = "distill" if net is self.student else "teacher_train"
            yield Stage(f"generation_{born}", groups, losses=losses, epochs=self.task.epochs, ledger=ledger)
