"""What a method may know of a task, and do with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from kdbench.contract.batch import Batch, Rows
from kdbench.contract.network import Network
from kdbench.contract.out import Out


class TaskInfo(Protocol):
    """What a method may know of a task.

    Attributes:
        kind: name of a kind of task (:mod:`kdbench.kinds`).
        classes: number of classes, or of outputs of a network; 1 for a regression.
        n_train: predictions of the training set: its rows, of sentences their symbols.
        n_rows: rows of the training set, which :meth:`rows` gives by number.
        train_labels: (n_train,) labels on the training device, scaled as in a batch; :class:`Targets` of other kinds.
        label_range: (min, max) of targets, scaled as in a batch; None without one.
        raw_shape: input name to shape of one raw row.
        epochs: epochs of the task's protocol.
        steps: optimiser steps of one epoch.
        batch: rows of a batch.
        optimizer: the task's optimiser settings (``lr``, ``weight_decay`` ...), for methods that scale by them.
        device: training device.
    """

    kind: str
    classes: int
    n_train: int
    n_rows: int
    train_labels: Any
    label_range: tuple[float, float] | None
    raw_shape: Mapping[str, tuple[int, ...]]
    epochs: int
    steps: int
    batch: int
    optimizer: Mapping[str, Any]
    device: torch.device

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """The task's own loss, 0-d: cross-entropy, mean squared error of scaled targets, or what its kind says."""

    def probe(self, net: nn.Module) -> Out:
        """``net`` on two training rows (eval, no grad, mode restored): read sizes from it, never type them."""

    def rows(self, index: Tensor) -> Rows:
        """Raw training rows by number, no augmentation."""

    def wrap(self, raw: Rows, index: Tensor | None = None) -> Batch:
        """Raw rows through the test transform, as a batch."""

    def alike(self, one: str, other: str) -> bool:
        """Whether two inputs show one picture in one form, each at its own size: views of one are made of both."""

    def extend(self, extra: Rows) -> TaskInfo:
        """The same task with ``extra`` raw rows behind its training rows (labels, size and steps follow)."""

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of the joined batch, view-major, from this process's (N*V, ...), with gradients; unchanged in a run of
        one process. A loss of gathered rows is computed alike by every process and counts once."""

    def rng(self, name: str) -> torch.Generator:
        """A generator on the CPU, seeded by (run seed, method, name)."""

    def keep(
        self,
        name: str,
        make: Callable[[], dict[str, Tensor]],
        scope: Literal["run", "task"] = "run",
        ledger: str = "generate",
        uses: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """``make()``, or what it gave before: of this run (``run``) or of any run of this task and configuration
        (``task``). What a generator computes between two yields goes through here, so that a resumed run repeats it.
        ``uses`` names the hyper-parameters that decide a ``task`` artefact, all of them when None: runs that differ in
        others share it. Of several processes one alone makes it: ``make`` gathers nothing."""

    def recall(
        self, name: str, ledger: str = "generate", uses: Sequence[str] | None = None
    ) -> dict[str, Tensor] | None:
        """What ``keep(name, ..., scope="task")`` stored before, None when nothing is there. A method that finds it
        yields the ``once`` stages that lead to it with ``steps=0``; the ledger then cites what they took."""

    def build_student(self) -> Network:
        """One more network of the student's architecture, freshly initialised."""

    def build_net(self, net: str, input: str = "image") -> Network:
        """A network by name, freshly initialised, such as a teacher assistant between teacher and student: any that a
        task can name. The name is a hyper-parameter of type ``net``, so that the net's code is part of the run's
        identity."""
