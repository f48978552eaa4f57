"""What a method may know of a training loop that is not the engine's: an example batch, and what its owner says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import kinds, models
from kdbench.base.errors import UserError
from kdbench.base.seeds import generator
from kdbench.contract import At, Batch, Network, NotApplicable, Out, Rows, TaskInfo
from kdbench.engine.task import evaluating


@dataclass(frozen=True, eq=False)
class LoopTask:
    """A task of which a method sees one batch, and of the rest what it was told. See :class:`TaskInfo`.

    What was not told raises :class:`UserError` when a method reads it, naming the argument that tells it.

    Attributes:
        method: its name, for what is said.
        example: a batch as the loop draws them.
        labels: of all training rows, None where untold.
        lengths: ``epochs`` of training and ``steps`` of an epoch, each None where untold.
    """

    method: str
    kind: str
    classes: int
    example: Batch
    labels: Tensor | None
    lengths: Mapping[str, int | None]
    optimizer: Mapping[str, Any]
    seed: int
    device: torch.device
    label_range: tuple[float, float] | None = None

    def _untold(self, what: str, how: str) -> UserError:
        return UserError(f"{self.method} reads {what}; give Distiller {how}")

    @property
    def train_labels(self) -> Tensor:
        """Labels of all training rows."""
        if self.labels is None:
            raise self._untold("the labels of all training rows", "labels=, a tensor of one entry a row")
        return self.labels

    @property
    def n_train(self) -> int:
        """Training rows."""
        return len(self.train_labels)

    @property
    def n_rows(self) -> int:
        """Training rows."""
        return self.n_train

    @property
    def raw_shape(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of one row of the example."""
        return {name: tuple(x.shape[1:]) for name, x in self.example.x.items()}

    @property
    def batch(self) -> int:
        """Rows of the example."""
        return len(self.example)

    @property
    def epochs(self) -> int:
        """Epochs of the whole training."""
        return self._length("epochs", "epochs=, the epochs of the whole training")

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self._length("steps", "steps=, the steps of an epoch")

    def _length(self, name: str, how: str) -> int:
        told = self.lengths[name]
        if told is None:
            raise self._untold(f"the {name} of training", how)
        return told

    def at(self, step: int, epoch: int | None, rng: torch.Generator) -> At:
        """Where training stands; what cannot be known raises when it is read."""
        epochs, steps = self.lengths["epochs"], self.lengths["steps"]
        if epoch is None and steps is not None:
            epoch = step // steps
        done = None if epochs is None else step / (epochs * steps) if steps else epoch and epoch / epochs
        return _At(step, epoch, epochs, done, rng, self)

    def loss(self, out: Out, batch: Batch) -> Tensor:
        """The kind's own loss."""
        return kinds.kind(self.kind).loss(out, batch)

    def probe(self, net: nn.Module) -> Out:
        """``net`` on two rows of the example."""
        with evaluating(net):
            return net(self.wrap(self.rows(torch.arange(min(2, len(self.example)), device=self.device))))

    def rows(self, index: Tensor) -> Rows:
        """Rows of the example, which stand for the first training rows."""
        if len(index) and int(index.max()) >= len(self.example):
            raise NotApplicable("it reads rows of the whole training set, which a loop of one's own does not hand over")
        return Rows({name: x[index] for name, x in self.example.x.items()}, self.example.y[index])

    def wrap(self, raw: Rows, index: Tensor | None = None) -> Batch:
        """The rows as they are: the loop's own transforms are behind them already."""
        return Batch(raw.x, raw.y, torch.arange(len(raw.y), device=self.device) if index is None else index)

    def alike(self, one: str, other: str) -> bool:
        """An input is like itself alone."""
        return one == other

    def extend(self, extra: Rows) -> TaskInfo:
        """Refused: a loop of one's own draws its own batches."""
        raise NotApplicable("it trains on rows that it makes itself, which a loop of one's own does not draw")

    def gather(self, rows: Tensor) -> Tensor:
        """One process has the whole batch."""
        return rows

    def rng(self, name: str) -> torch.Generator:
        """As in the engine."""
        return generator("cpu", self.seed, "method", name)

    def keep(self, name: str, make: Callable[[], dict[str, Tensor]], *args: Any, **about: Any) -> dict[str, Tensor]:
        """Made anew: nothing is stored."""
        return make()

    def recall(self, name: str, *args: Any, **about: Any) -> None:
        """Nothing is stored."""
        return

    def build_student(self) -> Network:
        """Refused: what makes the loop's networks is not known here."""
        raise NotApplicable("it makes students of its own; give Distiller a list of students")

    def build_net(self, net: str, input: str = "image") -> Network:
        """A network by name, for an input of the example."""
        return models.build(net, self.raw_shape[input], self.classes, input_name=input).to(self.device)


class _At(At):
    """:class:`At` of which the epochs may be unknown; reading those raises."""

    task: LoopTask

    def __new__(cls, step: int, epoch: Any, epochs: Any, t: Any, rng: torch.Generator, task: LoopTask) -> _At:
        made = super().__new__(cls, step, epoch, epochs, t, rng)
        made.task = task
        return made

    def _known(self, place: int, what: str) -> Any:
        value = self[place]
        if value is None:
            raise UserError(
                f"weights of {self.task.method} follow {what}: give Distiller epochs= and steps= (of an epoch), or "
                "each call its epoch="
            )
        return value

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._known(1, "the epoch")

    @property
    def epochs(self) -> int:
        """Epochs of training."""
        return self._known(2, "the length of training")

    @property
    def t(self) -> float:
        """Fraction of training done."""
        return self._known(3, "the length of training")
