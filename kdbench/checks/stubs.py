"""A method on networks that answer with given tensors: what its stages minimise can then be held against other values.

The input of a batch is row numbers, and a network answers with those rows of its tensors. Everything between, stages,
losses, weights, ramps and which network teaches which, is the method's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdbench import kinds
from kdbench.contract import At, Batch, Dense, Method, Network, Out, Rows, Stage, TaskInfo, Terms
from kdbench.engine import assemble as prepare
from kdbench.specs import registry
from kdbench.specs.config import method_config

INPUT = "image"
NUMBERS = "numbers"
"""Of a batch whose inputs are pictures: the row numbers."""
EPOCHS = 40
"""Of a task and of a stage, unless a case says otherwise."""
SIDE = 8
"""Pixels of a raw image, of three channels, where a method asks for its shape."""


class Stub(Network):
    """Answers with the rows of ``out`` whose numbers a batch holds, with ``dense`` for all of them.

    Args:
        norms: scale and shift by stage.
        classifier: the last layer, where a method takes it off or over.
        tails: (R, K) scores by stage, given by the tails of the stages; the stages' maps are then row numbers.
    """

    def __init__(
        self,
        out: Out,
        norms: Sequence[tuple[Tensor, Tensor]] = (),
        classifier: nn.Linear | None = None,
        tails: Sequence[Tensor] = (),
        name: str = INPUT,
    ) -> None:
        super().__init__()
        self.out = out._replace(maps=tuple(torch.arange(len(scores)) for scores in tails)) if tails else out
        self.norms, self.tails, self.input = tuple(norms), tuple(tails), name
        self.last = classifier

    def forward(self, batch: Batch) -> Out:
        rows = batch.x[NUMBERS if NUMBERS in batch.x else self.input]

        def of(given: Any) -> Any:
            if given is None or isinstance(given, Dense):
                return given
            return given[rows] if isinstance(given, Tensor) else tuple(map(of, given))

        return Out(*map(of, self.out[:]))

    @property
    def classifier(self) -> Any:
        return self.last

    def norm(self, stage: int) -> tuple[Tensor, Tensor]:
        return self.norms[stage]

    def tail(self, stage: int) -> nn.Module:
        return _Tail(self.tails[stage])

    def extra_tail(self) -> nn.Module:
        return _Tail(self.tails[-1])


class _Tail(nn.Module):
    """Gives its scores' rows for a map of row numbers."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores, self.classifier = (scores,), nn.Linear(1, 1)  # in a tuple, so that they are no parameter of it

    def forward(self, rows: Tensor) -> Out:
        return Out(self.scores[0][rows])


@dataclass
class StubTask:
    """A task of row numbers, in one process; nothing is kept.

    Attributes:
        smoothing: as of ``train.label_smoothing``.
        first: number of the first training row; the rows of the batch come before it.
        pixels: (n, ...) raw rows instead of row numbers, for a method that looks at some.
    """

    classes: int = 10
    n_train: int = 8
    train_labels: Tensor = field(default_factory=lambda: torch.arange(8))
    kind: str = "classification"
    label_range: tuple[float, float] | None = None
    raw_shape: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: {INPUT: (3, SIDE, SIDE)})
    epochs: int = EPOCHS
    steps: int = 5
    batch: int = 8
    optimizer: Mapping[str, Any] = field(default_factory=lambda: {"name": "sgd", "lr": 0.05, "weight_decay": 5e-4})
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    smoothing: float = 0.0
    first: int = 0
    pixels: Tensor | None = None
    present: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.n_rows = self.n_train  # a row has one target here

    def loss(self, out: Out, batch: Batch) -> Tensor:
        kind = kinds.kind(self.kind)
        return (kind.smoothed(self.smoothing) if self.smoothing else kind).loss(out, batch)

    def probe(self, net: nn.Module) -> Out:
        two = torch.arange(min(2, self.n_train))
        with torch.no_grad():
            return net(Batch(dict.fromkeys(self.raw_shape, two), self.train_labels[two], two))

    def rows(self, index: Tensor) -> Rows:
        numbers = index + self.first if self.pixels is None else self.pixels[index]
        return Rows(dict.fromkeys(self.raw_shape, numbers), self.train_labels[index])

    def wrap(self, raw: Rows, index: Tensor | None = None) -> Batch:
        return Batch(raw.x, raw.y, torch.arange(len(raw.y)))

    def alike(self, one: str, other: str) -> bool:
        return one == other

    def extend(self, extra: Rows) -> TaskInfo:
        return self

    def build_student(self) -> Network:
        return Stub(Out(torch.zeros(self.n_train, self.classes)))

    def build_net(self, net: str, input: str = INPUT) -> Network:
        return self.build_student()

    def gather(self, rows: Tensor) -> Tensor:
        return rows

    def rng(self, name: str) -> torch.Generator:
        return torch.Generator()

    def keep(self, name: str, make: Callable[[], dict[str, Tensor]], *args: Any, **about: Any) -> dict[str, Tensor]:
        return make()

    def recall(self, name: str, *args: Any, **about: Any) -> None:
        return None


@dataclass
class Assembled:
    """A method on stub networks and the batch it is to see.

    Attributes:
        method: in train mode; what a case stores is bound to its modules before its terms are asked for.
        handed: what the last losses left for after the step.
    """

    method: Method
    batch: Batch
    handed: Any = None

    def stages(self) -> dict[str, Stage]:
        """Its stages by name, all of them passed through."""
        return {stage.name: stage for stage in self.method.stages()}

    def terms(self, stage: str = "distill", epoch: int = 0, epochs: int = EPOCHS) -> dict[str, Tensor]:
        """The weighted terms that a stage minimises, in an epoch of ``epochs``, counted from 0."""
        losses = self.stages()[stage].losses
        assert losses is not None
        terms = losses(self.batch, self.at(epoch, epochs))
        self.handed = terms.handed if isinstance(terms, Terms) else None
        return terms

    def total(self, stage: str = "distill", epoch: int = 0, epochs: int = EPOCHS) -> Tensor:
        """Their sum."""
        return torch.stack(list(self.terms(stage, epoch, epochs).values())).sum()

    def step(self, epoch: int = 0) -> None:
        """What the method does after an optimiser step, on copies: gradients of the step may be taken later."""
        for bank in getattr(self.method, "banks", ()):
            bank.rows = bank.rows.clone()
        with torch.no_grad():
            self.method.after_step(replace(self.batch, handed=self.handed), self.at(epoch))

    @staticmethod
    def at(epoch: int, epochs: int = EPOCHS) -> At:
        return At(0, epoch, epochs, 0.0, torch.Generator().manual_seed(0))


def hyper_parameters(name: str, values: Mapping[str, Any]) -> Any:
    """The typed hyper-parameters of a method or variant: defaults but for ``values``, and so for an inner method."""
    return prepare.hyper_parameters(method_config(registry.method(name), values))


def batch_of(y: Tensor, rows: Tensor | None = None, views: int = 1, index: Tensor | None = None, **more: Any) -> Batch:
    """A batch of given rows.

    Args:
        y: (N*V,) labels.
        rows: (N*V,) numbers of the stubs' rows, 0, 1, 2 ... unless given.
        index: (N*V,) numbers in the training set.
        more: ``inputs``, names of the inputs; ``pictures``, (N*V, C, H, W) that they hold instead of row numbers.
    """
    rows = torch.arange(len(y)) if rows is None else rows
    pictures = more.pop("pictures", None)
    x = dict.fromkeys(more.pop("inputs", (INPUT,)), rows if pictures is None else pictures)
    if pictures is not None:
        x[NUMBERS] = rows
    return Batch(x, y, torch.arange(len(y)) if index is None else index, views, **more)


def assembled(
    name: str,
    values: Mapping[str, Any],
    batch: Batch,
    students: Sequence[Network],
    teachers: Mapping[str, Network] | Network | None = None,
    **task: Any,
) -> Assembled:
    """A registered method on stub networks.

    Args:
        name: of a method or variant.
        values: hyper-parameters that are not the default ones.
        task: fields of :class:`StubTask`.
    """
    if not isinstance(teachers, Mapping):
        teachers = {} if teachers is None else {INPUT: teachers}
    facts: dict[str, Any] = {"n_train": len(batch), "batch": len(batch) // batch.views, **task}
    logits = [net.out.logits for net in students if isinstance(net, Stub) and net.out.has("logits")]
    facts.setdefault("classes", logits[0].shape[-1] if logits else 10)
    facts.setdefault("train_labels", torch.arange(facts["n_train"]) % max(2, facts["classes"]))
    hp = hyper_parameters(name, values)
    method = registry.method(name).adapter()(StubTask(**facts), students, teachers, hp)
    return Assembled(method.train(), batch)


def scored(name: str, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Assembled:
    """A method of one student and one teacher that reads scores alone, on a case of format A."""
    nets = [Stub(Out(tensors[f"input.logits_{which}"])) for which in "st"]
    return assembled(name, values, batch_of(tensors["input.target"]), nets[:1], nets[1])


def image_major(images: int, views: int) -> Tensor:
    """(V*N,) numbers of rows that lie image after image, in the order of a batch, view after view."""
    return torch.arange(images * views).view(images, views).T.flatten()


class Call(NamedTuple):
    """One call of a watched function."""

    args: tuple[Any, ...]
    result: Any


@contextmanager
def watched(module: ModuleType, *names: str) -> Iterator[dict[str, list[Call]]]:
    """Within the block, calls of a module's functions are noted, by name and in order."""
    calls: dict[str, list[Call]] = defaultdict(list)
    own = {name: getattr(module, name) for name in names}

    def noting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **words: Any) -> Any:
            calls[name].append(Call(args, own[name](*args, **words)))
            return calls[name][-1].result

        return call

    for name in names:
        setattr(module, name, noting(name))
    try:
        yield calls
    finally:
        for name, function in own.items():
            setattr(module, name, function)
