"""Scores the deployed network on the test rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.contract import Network
from kdbench.data.loader import InOrder
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
        self.y = self.batches.y
        self._teacher = next(iter((teachers or {}).values()), None)
        self._teacher_output: Tensor | None = None

    def predict(self, net: nn.Module) -> Tensor:
        """(N, C) logits, or (N,) predictions in the task's unit, of all test rows."""
        with evaluating(net):
            return self.task.unscale(torch.cat([net(batch).logits.float() for batch in self.batches]))

    def _embed(self, net: nn.Module, batches: InOrder) -> Tensor | None:
        """(N, D) embeddings, None for a network without them."""
        with evaluating(net):
            found = [net(batch).emb for batch in batches]
        return None if any(emb is None for emb in found) else torch.cat(found).float()

    def _retrieval(self, net: nn.Module, names: list[str]) -> dict[str, Any]:
        if not any(METRICS[name].retrieval for name in names):
            return {}
        train = self.task.train_batches()
        emb, gallery = self._embed(net, self.batches), self._embed(net, train)
        return {} if emb is None or gallery is None else {"emb": emb, "gallery": (gallery, train.y)}

    def primary(self, net: nn.Module) -> dict[str, float]:
        """The primary metric alone, for the curve."""
        names = [self.task.spec.score.primary]
        return score(names, Predictions(self.predict(net), self.y, **self._retrieval(net, names)))

    def all(self, net: nn.Module) -> dict[str, float]:
        """Every metric of the task."""
        spec = self.task.spec.score
        names = [spec.primary, *spec.also]
        if self._teacher is not None and self._teacher_output is None and any(METRICS[n].teacher for n in names):
            self._teacher_output = self.predict(self._teacher)
        retrieval = self._retrieval(net, names)
        return score(names, Predictions(self.predict(net), self.y, self._teacher_output, **retrieval))
