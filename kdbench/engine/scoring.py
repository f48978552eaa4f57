"""Scores the deployed network on the test rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import kinds
from kdbench.contract import Network
from kdbench.data.feed.loader import InOrder
from kdbench.engine.task import Task, evaluating
from kdbench.kinds.base import (
    DATABASE,
    FINETUNED,
    FINETUNED_UNTRAINED,
    RETRIEVAL,
    TEACHER_DATABASE,
    UNTRAINED,
    Evidence,
)  # fmt: skip

FINETUNE = "finetune"
"""The name of a fine-tuning of the deployed network."""


class Scorer:
    """Test metrics of networks of one task.

    Args:
        task: gives the test rows.
        teachers: the first is what metrics compare with that read a teacher.
        finetune: class scores of a network once it is fine-tuned, by a name; None leaves such metrics out.

    Attributes:
        seconds: what the metrics took that were computed last, of what networks had answered by then.
        classes: the primary metric of each class, of the network whose metrics were computed last with :meth:`all`.
        each: what the primary metric is of each test row, (N,) bool or numbers; None where it does not say.
    """

    def __init__(
        self,
        task: Task,
        teachers: Mapping[str, Network] | None = None,
        finetune: Callable[[nn.Module, str], Tensor] | None = None,
    ) -> None:
        self.task = task
        self._finetune = finetune
        self.seconds = 0.0
        self.classes: dict[str, float] = {}
        self.each: Tensor | None = None
        self.batches = task.test_batches()
        self.y = self.batches.y
        self._teacher = next(iter((teachers or {}).values()), None)
        self._taught: Any = None
        self._taught_database: tuple[Any, Any] | None = None
        self._untrained: tuple[Any, tuple[Any, Any]] | None = None

    @property
    def name(self) -> str:
        """Of the primary metric."""
        return self.task.spec.score.primary

    @property
    def curve_points(self) -> int | None:
        """At how many points of a curve the primary metric is computed at most; None for all."""
        stated = self.task.spec.score.curve_points
        return kinds.metrics()[self.name].curve_points if stated is None else stated

    def primary(self, net: nn.Module) -> dict[str, float]:
        """The primary metric alone, for the curve."""
        return self._score(net, [self.name])

    def all(self, net: nn.Module) -> dict[str, float]:
        """Every metric of the task."""
        evidence = self._evidence(net, names := [self.name, *self.task.spec.score.also])
        found = self._scored(names, evidence)
        self.classes = self.task.by_class(self.name, evidence)
        self.each = self.task.each(self.name, evidence)
        return found

    def _score(self, net: nn.Module, names: Sequence[str]) -> dict[str, float]:
        return self._scored(names, self._evidence(net, names))

    def _evidence(self, net: nn.Module, names: Sequence[str]) -> Evidence:
        """What some metrics read of a network."""
        reads = frozenset().union(*(kinds.metrics()[name].reads for name in names))
        evidence = Evidence(self.task.answers(net, self.batches, names), self.y, k=self.task.spec.score.k)
        if "teacher" in reads and self._teacher is not None:
            if self._taught is None:
                self._taught = self.task.answers(self._teacher, self.batches, names)
            evidence.teacher = self._taught
        if RETRIEVAL & reads:
            train = self.task.train_batches()
            emb, gallery = self._embed(net, self.batches), self._embed(net, train)
            if emb is not None and gallery is not None:
                evidence.emb, evidence.gallery = emb, (gallery, train.y)
        if DATABASE in reads:
            evidence.database = self._database(net, names)
        if TEACHER_DATABASE in reads and self._teacher is not None:
            if self._taught_database is None:
                self._taught_database = self._database(self._teacher, names)
            evidence.teacher_database = self._taught_database
        if UNTRAINED in reads:
            if self._untrained is None:
                blank = self.task.untrained()
                self._untrained = (self.task.answers(blank, self.batches, names), self._database(blank, names))
            evidence.untrained = self._untrained
        if self._finetune is not None and FINETUNED in reads:
            evidence.finetuned = self._finetune(net, FINETUNE)
        if self._finetune is not None and FINETUNED_UNTRAINED in reads:
            evidence.finetuned_untrained = self._finetune(self.task.untrained(), f"{FINETUNE}-untrained")
        return evidence

    def _scored(self, names: Sequence[str], evidence: Evidence) -> dict[str, float]:
        begin = time.perf_counter()
        found = self.task.score(names, evidence)
        self.seconds = time.perf_counter() - begin
        return found

    def _database(self, net: nn.Module, names: Sequence[str]) -> tuple[Any, Any]:
        """What a network answers for all training rows, and their targets."""
        batches = self.task.database_batches()
        return self.task.answers(net, batches, names), batches.y

    def _embed(self, net: nn.Module, batches: InOrder) -> Tensor | None:
        """(N, D) embeddings, None for a network without them."""
        with evaluating(net):
            outs = [net(batch) for batch in batches]
        return torch.cat([out.emb for out in outs]).float() if all(out.has("emb") for out in outs) else None
