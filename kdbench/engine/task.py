"""The engine's implementation of :class:`kdbench.contract.TaskInfo`."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdbench import models
from kdbench.base.cache import Damaged, build_once
from kdbench.base.files import canonical_json, read_facts, sha256, sha256_file
from kdbench.base.once import said_once
from kdbench.base.seeds import derive, generator
from kdbench.contract import Batch, Network, Out, Rows, Sentences, Stage
from kdbench.data.feed.dataset import Dataset, take
from kdbench.data.feed.drawn import Draws
from kdbench.data.feed.loader import InOrder, Loader
from kdbench.data.feed.stored import Stored
from kdbench.devices import backends
from kdbench.engine import accelerate as arrange
from kdbench.engine.ahead import Ahead
from kdbench.engine.checkpoint import save_tensors
from kdbench.engine.teacher_store import Filling
from kdbench.kinds.base import Evidence, Kind, Mark
from kdbench.models.weights import Loaded, load_pruned, load_weights
from kdbench.parallel.ranks import Ranks
from kdbench.specs.options import EAGER, EngineOptions
from kdbench.specs.task import TaskSpec

STUDENT_INIT = "student-init"
"""The stream that the student's first weights are drawn from."""


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, eager, everything computed; every module's own mode is restored after."""
    modes = [(module, module.training) for module in net.modules()]
    spared = [module for module in net.modules() if isinstance(module, Network) and module.sparing]
    net.eval()
    for one in spared:
        one.sparing = False
    try:
        with torch.no_grad(), arrange.eager(net):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for one in spared:
            one.sparing = True


@contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Draws from the global generators come from the stream ``names``; they are as before afterwards."""
    with backends.random_states_kept():
        torch.manual_seed(derive(seed, *names))
        yield


@dataclass
class Keeper:
    """What a method computes between stages, kept so that it is computed once.

    Attributes:
        run: folder of this run.
        shared: folder for all runs of the task.
        key: what decides a shared artefact: task, method and its hyper-parameters.
        entries: ledger of what was made or reused: name, ledger line, seconds, scope, sha256, reused, and the ``once``
            stages that led to a shared artefact.
        stages: reports of the stages trained so far.
        ranks: the processes of the run; the first alone makes what is kept, the others wait and read it.
    """

    run: Path
    shared: Path
    key: Mapping[str, Any]
    announce: Callable[[str], None] = print
    entries: list[dict[str, Any]] = field(default_factory=list)
    stages: Callable[[], Sequence[Any]] = tuple
    ranks: Ranks = field(default_factory=Ranks)

    def __call__(
        self,
        name: str,
        make: Callable[[], dict[str, Tensor]],
        scope: str,
        ledger: str,
        uses: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """The artefact, made now or read."""
        folder = self._folder(name, scope, uses)

        def build(path: Path) -> None:
            begin = time.perf_counter()
            save_tensors(path / "tensors.safetensors", make())
            facts = {
                "seconds": time.perf_counter() - begin,
                "sha256": sha256_file(path / "tensors.safetensors"),
                "stages": [asdict(stage) for stage in self.stages() if stage.once and stage.steps],
            }
            (path / "facts.json").write_text(json.dumps(facts))
            self.run.mkdir(parents=True, exist_ok=True)
            self._mark(folder).touch()

        if self.ranks.first:
            build_once(folder, _check_artefact, build, self.announce)
        self.ranks.tell()
        return self._read(folder, name, scope, ledger)

    def recall(self, name: str, ledger: str, uses: Sequence[str] | None = None) -> dict[str, Tensor] | None:
        """A shared artefact, None when no sound one is there."""
        folder = self._folder(name, "task", uses)
        # Another run may finish it between the looks of two processes: the first one's counts.
        return self._read(folder, name, "task", ledger) if self.ranks.tell(_is_sound(folder)) else None

    def _folder(self, name: str, scope: str, uses: Sequence[str] | None) -> Path:
        if scope == "run":
            return self.run / f"keep-{name}"
        key = dict(self.key)
        if uses is not None:
            key["params"] = {used: key["params"].get(used) for used in uses}
        return self.shared / sha256(canonical_json({**key, "name": name}))[:32]

    def _mark(self, folder: Path) -> Path:
        """Says that this run made a shared artefact, so that it is not called reused when the run resumes."""
        return self.run / f"made-{folder.name}"

    def _read(self, folder: Path, name: str, scope: str, ledger: str) -> dict[str, Tensor]:
        facts = json.loads((folder / "facts.json").read_text())
        reused = scope == "task" and not self._mark(folder).exists()
        facts["stages"] = [stage for stage in facts["stages"] if stage["steps"]]
        self.entries.append({"name": name, "ledger": ledger, "scope": scope, "reused": reused, **facts})
        return load_file(folder / "tensors.safetensors")


def _is_sound(folder: Path) -> bool:
    """Whether a kept artefact is there, whole."""
    try:
        _check_artefact(folder)
    except Damaged:
        return False
    return True


def _check_artefact(folder: Path) -> None:
    """Raises :class:`Damaged` unless the folder holds what was written."""
    try:
        facts = read_facts(folder / "facts.json", "sha256", "stages")
        if sha256_file(folder / "tensors.safetensors") != facts["sha256"]:
            raise Damaged("its tensors are not those written")
    except (OSError, ValueError) as error:
        raise Damaged(str(error)) from error


class Task:
    """What a method may know of a task, and the batches of its stages. See :class:`kdbench.contract.TaskInfo`.

    Args:
        spec: the task.
        data: its rows, the student's subset drawn already.
        device: where training happens; rows are moved there.
        seed: the run's seed.
        keeper: stores what methods keep.
        options: how the students compute.
        ranks: the processes that share the run's batches.
        whole: the network that the student is cut out of, where its weights say so.

    Attributes:
        started_from: sha256 of the weights that the task gives the student to start from, None without any.
        draws: what batches hold, for teachers whose answers are kept; None where no teacher's are.
        filling: what was read and kept of these answers, None beside None.
        ahead: how batches are drawn for teachers that are asked about several; None where no teacher is.
    """

    def __init__(
        self,
        spec: TaskSpec,
        data: Dataset,
        device: torch.device,
        seed: int,
        keeper: Keeper,
        options: EngineOptions = EAGER,
        ranks: Ranks | None = None,
        whole: Network | None = None,
    ) -> None:
        read = [spec.pair.student.input, *(teacher.input for teacher in spec.pair.teachers.values())]
        self.data = data = data.only(read)
        self.spec, self.device, self.seed, self.options = spec, device, seed, options
        self._whole = whole
        self.ranks = ranks or Ranks()
        self._kind = spec.of_kind
        self.kind: str = self._kind.name
        self.classes = data.classes
        self.epochs, self.batch = spec.train.epochs, spec.train.batch
        self.optimizer: Mapping[str, Any] = spec.train.optimizer.model_dump()
        self._keeper = keeper
        self._peers = 0
        self._built: Counter[str] = Counter()
        self.started_from: str | None = None
        self.draws: Draws | None = None
        self.filling: Filling | None = None
        self.ahead: Ahead | None = None
        self.scaling = self._kind.scaling(data.train, data.label_range)  # scores are computed after its inverse
        self.label_range = self.scaling.label_range
        self._views = self._kind.views
        if self._views is not None:
            self._views = replace(self._views, input=spec.pair.student.input)
        self._set_rows(self._to_device(data.train))
        self.raw_shape: Mapping[str, tuple[int, ...]] = {name: tuple(x.shape[1:]) for name, x in self._rows.x.items()}

    def _to_device(self, raw: Rows) -> Rows:
        y = self._kind.scaled(raw.y.to(self.device), self.scaling)
        return Rows({name: x.to(self.device) for name, x in raw.x.items()}, y)

    def _set_rows(self, rows: Rows) -> None:
        self._rows = rows
        self.n_rows = len(rows.y)
        self.train_labels = rows.y.flat if isinstance(rows.y, Sentences) else rows.y
        self.n_train = len(self.train_labels)
        self.steps = -(-self.n_rows // min(self.batch, self.n_rows))

    def loss(self, out: Out, batch: Batch) -> Tensor:
        if isinstance(batch, Tensor):  # an adapter of before: it gave the targets alone
            said_once("a method calls task.loss(out, batch): give it the batch, task.loss(out, batch)")
            batch = Batch({}, batch, torch.arange(len(batch), device=batch.device))
        return self._kind.loss(out, batch)

    def as_trained(self, batch: Batch, rng: torch.Generator) -> Batch:
        """Rows as the task's own loss sees them: with patches hidden, where it hides some."""
        hide = self._views.hide if self._views is not None else None
        if hide is None:
            return batch
        shape = self.data.shape(self.spec.pair.student.input)
        visible = hide.draw(len(batch), shape, rng).to(self.device)
        return replace(batch, visible=visible, seen=hide.seen(hide.grid(shape)))

    def answers(self, net: nn.Module, batches: Iterable[Batch], names: Sequence[str]) -> Any:
        """What named metrics read of a network, of all rows of some batches, in the task's own unit."""
        kind = self._kind
        with evaluating(net):
            return kind.joined([kind.answered(net, batch, self.scaling, names) for batch in batches])

    def score(self, names: Sequence[str], evidence: Evidence) -> dict[str, float]:
        """Named metrics of the task's kind."""
        return self._kind.score(names, evidence)

    def each(self, name: str, evidence: Evidence) -> Tensor | None:
        """What a metric is of each test row, (N,) bool or numbers; None of one that does not say (``Metric.each``)."""
        metric = self._kind.own_metrics[name]
        return None if metric.each is None else metric.each(evidence).cpu()

    def by_class(self, name: str, evidence: Evidence) -> dict[str, float]:
        """A metric of each class that test rows hold, by its name; {} of one that is no mean over classes."""
        names = self.data.class_names
        return {
            names[label] if names is not None else str(label): value
            for label, value in self._kind.by_class(name, evidence).items()
        }

    def marked(self, net: nn.Module, batches: InOrder) -> list[tuple[list[Mark], list[Mark]]]:
        """What is there and what a network finds on each picture of some batches; [] where nothing is drawn on them."""
        if type(self._kind).marked is Kind.marked:
            return []
        with evaluating(net):
            seen = [(self._kind.looked(net(batch), batch, self.scaling), batch.y) for batch in batches]
        return [marks for one, y in seen for marks in self._kind.marked(one, y)]

    def probe(self, net: nn.Module) -> Out:
        batch = self.wrap(self.rows(torch.arange(min(2, self.n_rows), device=self.device)))
        with evaluating(net):
            return net(batch)

    def rows(self, index: Tensor) -> Rows:
        found = take(self._rows, index)  # what is stored is read on the CPU
        return Rows({name: x.to(self.device) for name, x in found.x.items()}, found.y)

    def wrap(self, raw: Rows, index: Tensor | None = None) -> Batch:
        if index is None:
            index = torch.arange(len(raw.y), device=self.device)
        x = {name: t.to(self.device) for name, t in raw.x.items()}
        return self.data.batch(Rows(x, raw.y.to(self.device)), index)

    def alike(self, one: str, other: str) -> bool:
        return self.data.alike(one, other)

    def extend(self, extra: Rows) -> Task:
        other = copy.copy(self)
        other._set_rows(_join(self._rows, extra))
        return other

    def gather(self, rows: Tensor) -> Tensor:
        return self.ranks.gather(rows)

    def rng(self, name: str) -> torch.Generator:
        return generator("cpu", self.seed, "method", name)

    def keep(
        self,
        name: str,
        make: Callable[[], dict[str, Tensor]],
        scope: Literal["run", "task"] = "run",
        ledger: str = "generate",
        uses: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        def repeatable() -> dict[str, Tensor]:
            with seeded(self.seed, "keep", name):  # what follows draws alike, whether it was made or read
                return make()

        return {key: t.to(self.device) for key, t in self._keeper(name, repeatable, scope, ledger, uses).items()}

    def recall(
        self, name: str, ledger: str = "generate", uses: Sequence[str] | None = None
    ) -> dict[str, Tensor] | None:
        found = self._keeper.recall(name, ledger, uses)
        return found and {key: t.to(self.device) for key, t in found.items()}

    def watch_stages(self, stages: Callable[[], Sequence[Any]]) -> None:
        """Where the reports of the stages trained so far are found, for the ledger of what is kept."""
        self._keeper.stages = stages

    @property
    def kept(self) -> list[dict[str, Any]]:
        """Ledger of what :meth:`keep` made or reused."""
        return self._keeper.entries

    def build_student(self) -> Network:
        """The student from stream ``student-init``; each further call a peer from ``student-init-k``.

        Where the task names the student's weights, a peer takes their features alone: its classifier is one of its own,
        or peers of equal weights would have nothing to teach each other.
        """
        first = self._peers == 0
        stream = STUDENT_INIT if first else f"{STUDENT_INIT}-{self._peers}"
        self._peers += 1
        net, loaded = self._student(stream, features=not first)
        if loaded is not None and first:
            self.started_from = loaded.sha256
            if loaded.said:
                self._keeper.announce(loaded.said)
        return arrange.student(net.to(self.device), self.options)

    def untrained(self) -> Network:
        """The first student once more, as it is before any training."""
        return self._student(STUDENT_INIT, features=False)[0].to(self.device)

    def _student(self, stream: str, features: bool) -> tuple[Network, Loaded | None]:
        """A student drawn from a stream, and what is known of the weights that the task gives it.

        Args:
            features: of these the classifier's are left out.
        """
        student = self.spec.pair.student
        with seeded(self.seed, stream):
            net = build_network(student.net, student.input, self.data)
            if student.weights is None:
                return net, None
            if self._whole is not None:
                return net, load_pruned(net, self._whole, features=features)
            return net, load_weights(net, student.weights, features=features)

    def build_net(self, net: str, input: str = "image") -> Network:
        """A network by name from stream ``net-<name>-k``, k counting those of this name."""
        number = self._built[net]
        self._built[net] += 1
        with seeded(self.seed, "net", net, number):
            made = build_network(net, input, self.data)
        return arrange.student(made.to(self.device), self.options)

    def loader(self, stage: Stage, drop_below: int) -> Loader:
        """The batches of a stage."""
        rows = self._rows if stage.extra is None else _join(self._rows, stage.extra)
        rows = rows if stage.targets is None else rows._replace(y=stage.targets)
        loader = Loader(
            self.data, rows, self.spec.data.augment, stage.batch or self.batch, self.seed, stage.name,
            stage.views or self._views, drop_below, stage.partners, draws=None if stage.extra else self.draws,
        )  # fmt: skip
        reason = "trains on rows that were made for it" if stage.extra else loader.unnumbered
        if self.draws is not None and reason is not None:
            self._keeper.announce(f"engine.teacher_store: stage {stage.name!r} {reason}; its teachers compute")
        return loader

    def test_batches(self) -> InOrder:
        """Test rows in order; targets in the task's own unit."""
        return self._in_order(self.data.test)

    def database_batches(self) -> InOrder:
        """All training rows in order, not augmented, whatever subset the student trains on; targets as of test rows."""
        return self._in_order(self.data.whole or self.data.train)

    def _in_order(self, raw: Rows) -> InOrder:
        on_device = Rows({name: x.to(self.device) for name, x in raw.x.items()}, raw.y.to(self.device))
        return InOrder(self.data, on_device)

    def train_batches(self) -> InOrder:
        """The student's training rows in order, not augmented."""
        return InOrder(self.data, self._rows)


def build_network(net: str, input_name: str, data: Dataset) -> Network:
    """A network of the zoo for an input of a data set, initialised from the global generator."""
    made = models.build(
        net, data.shape(input_name), data.classes, input_name=input_name, vocabularies=data.reads(input_name)
    )
    made.reduced = data.reduced(input_name)
    return made


def _join(rows: Rows, extra: Rows) -> Rows:
    """``extra`` behind ``rows``, on their device and in their types."""
    x: dict[str, Any] = {
        name: t.append(extra.x[name]) if isinstance(t, Stored) else torch.cat([t, extra.x[name].to(t)])
        for name, t in rows.x.items()
    }
    y = torch.cat([rows.y, extra.y.to(rows.y)]) if isinstance(rows.y, Tensor) else rows.y.join(extra.y)
    return Rows(x, y)
