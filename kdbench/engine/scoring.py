"""Scores the deployed network on the test rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdbench.contract import Network
from kdbench.engine.task import Task, evaluating
from kdbench.metrics import METRICS, Predictions, score


class Scorer:
    """Test metrics of networks of one task.

    Args:
        task: gives the test rows.
        teachers: the first is what ``teacher_agreement`` and ``teacher_kl`` compare with.
    """

    def __init__(self, task: Task, teachers: Mapping[str, Network] | None = None) -> None:
        self.task = task
        self.batches = task.test_batches()
        self.y = torch.cat([batch.y for batch in self.batches])
        self._teacher = next(iter((teachers or {}).values()), None)
        self._teacher_output: Tensor | None = None

    def predict(self, net: nn.Module) -> Tensor:
        """(N, C) logits, or (N,) predictions in the task's unit, of all test rows."""
        with evaluating(net):
            return self.task.unscale(torch.cat([net(batch).logits.float() for batch in self.batches]))

    def primary(self, net: nn.Module) -> dict[str, float]:
        """The primary metric alone, for the curve."""
        return score([self.task.spec.score.primary], Predictions(self.predict(net), self.y))

    def all(self, net: nn.Module) -> dict[str, float]:
        """Every metric of the task."""
        spec = self.task.spec.score
        names = [spec.primary, *spec.also]
        if self._teacher is not None and self._teacher_output is None and any(METRICS[n].teacher for n in names):
            self._teacher_output = self.predict(self._teacher)
        return score(names, Predictions(self.predict(net), self.y, self._teacher_output))
