"""Fine-tuning with labels: a protocol of its own behind a task's training, which starts from the deployed network."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdbench import kinds
from kdbench.base.fields import EVALUATION
from kdbench.base.progress import Progress
from kdbench.contract import Batch, Network, Out
from kdbench.engine.task import Keeper, Task, evaluating, seeded
from kdbench.engine.trainer import StageReport, Trainer
from kdbench.specs import registry
from kdbench.specs.task import TaskSpec


def probed(task: Task, seconds: float) -> list[StageReport]:
    """A line of the ledger for the probes of a network that learnt without labels; none for another kind of task."""
    return [] if kinds.kind(task.kind).labelled is None else [StageReport("probe", EVALUATION, 0, 0, seconds, False)]


class Labelled(Network):
    """A network with a linear classifier behind its embedding.

    Args:
        body: the network, whose own state is not touched.
        width, classes: of the classifier.
    """

    def __init__(self, body: Network, width: int, classes: int) -> None:
        super().__init__()
        self.body = copy.deepcopy(body).requires_grad_(True)
        self.input = body.input
        self.fc = nn.Linear(width, classes)

    def forward(self, batch: Batch) -> Out:
        out = self.body(batch)
        return out._replace(logits=self.fc(out.emb))

    @property
    def classifier(self) -> nn.Linear:
        return self.fc


class Finetuner:
    """Trains networks of a task with its labels, as plain trains, under ``score.finetune``.

    Args:
        task: the task that they learnt on without labels.
        folder: where checkpoints go; None trains without.
        progress: told of every step.

    Attributes:
        reports: what each fine-tuning took, on a line of the ledger of its own.
    """

    def __init__(self, task: Task, folder: Path | None = None, progress: Progress | None = None) -> None:
        self.task, self.folder, self.progress = task, folder, progress or Progress.silent()
        self.reports: list[StageReport] = []

    def __call__(self, net: nn.Module, name: str) -> Tensor:
        """(N, C) scores of all test rows by the fine-tuned network.

        Args:
            net: what it starts from.
            name: of the fine-tuning, unique among those of a run.
        """
        spec = labelled(self.task.spec)
        whole = self.task.data.whole
        data = self.task.data if whole is None else replace(self.task.data, train=whole, whole=None)
        nowhere = Path(name)  # plain keeps nothing
        task = Task(spec, data, self.task.device, self.task.seed, Keeper(nowhere, nowhere, {}))
        plain = registry.method(registry.PLAIN)
        with seeded(self.task.seed, name):
            student = Labelled(_network(net), self.task.probe(net).emb.shape[1], data.classes).to(task.device)
            method = plain.adapter()(task, [student], {}, plain.card.typed(plain.card.defaults()))
            folder = None if self.folder is None else self.folder / name
            trained = Trainer(method.to(task.device), task, folder, progress=self.progress.labelled(name)).run()
        self.reports += [replace(report, name=name, ledger=EVALUATION) for report in trained.stages]
        with evaluating(student):
            scores: Tensor = task.answers(student, task.test_batches(), [spec.score.primary])
        return scores


def _network(net: nn.Module) -> Network:
    assert isinstance(net, Network)
    return net


def labelled(spec: TaskSpec) -> TaskSpec:
    """The task of the same rows and student with labels."""
    assert spec.score.finetune is not None
    kind = kinds.kind(spec.kind).labelled
    assert kind is not None
    body: dict[str, Any] = spec.model_dump()
    body |= {"kind": kind, "train": spec.score.finetune.model_dump(), "score": {"primary": kinds.kind(kind).tiny.score}}
    body["pair"] = {"student": {"net": spec.pair.student.net, "input": spec.pair.student.input}, "teachers": {}}
    return TaskSpec.model_validate(body)
