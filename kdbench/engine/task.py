"""The engine's implementation of :class:`kdbench.contract.TaskInfo`."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdbench import models
from kdbench.cache import Damaged, build_once
from kdbench.contract import Batch, Network, Out, Rows, Stage
from kdbench.data.dataset import Dataset, take
from kdbench.data.loader import Loader, in_order
from kdbench.files import canonical_json, sha256, sha256_file
from kdbench.seeds import derive, generator
from kdbench.spec import TaskSpec


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every module's own mode is restored after."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Module initialisation from the stream ``names``; the global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, *names))
        yield


@dataclass
class Keeper:
    """What a method computes between stages, kept so that it is computed once.

    Attributes:
        run: folder of this run.
        shared: folder for all runs of the task.
        key: what decides a shared artefact: task, method and its hyper-parameters.
        entries: ledger of what was made or reused: name, ledger line, seconds, scope, sha256, reused.
    """

    run: Path
    shared: Path
    key: Mapping[str, Any]
    announce: Callable[[str], None] = print
    entries: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, name: str, make: Callable[[], dict[str, Tensor]], scope: str, ledger: str) -> dict[str, Tensor]:
        """The artefact, made now or read."""
        digest = sha256(canonical_json({**self.key, "name": name}))
        folder = self.shared / digest[:32] if scope == "task" else self.run / f"keep-{name}"

        def check(path: Path) -> None:
            try:
                facts = json.loads((path / "facts.json").read_text())
                if sha256_file(path / "tensors.safetensors") != facts["sha256"]:
                    raise Damaged("its tensors are not those written")
            except (OSError, ValueError, KeyError) as error:
                raise Damaged(str(error)) from error

        def build(path: Path) -> None:
            begin = time.perf_counter()
            tensors = {key: t.detach().cpu().contiguous() for key, t in make().items()}
            save_file(tensors, path / "tensors.safetensors")
            facts = {"seconds": time.perf_counter() - begin, "sha256": sha256_file(path / "tensors.safetensors")}
            (path / "facts.json").write_text(json.dumps(facts))

        made = build_once(folder, check, build, self.announce)
        facts = json.loads((folder / "facts.json").read_text())
        entry = {"name": name, "ledger": ledger, "scope": scope, "reused": not made and scope == "task", **facts}
        self.entries.append(entry)
        return load_file(folder / "tensors.safetensors")


class Task:
    """What a method may know of a task, and the batches of its stages. See :class:`kdbench.contract.TaskInfo`.

    Args:
        spec: the task.
        data: its rows, the student's subset drawn already.
        device: where training happens; rows are moved there.
        seed: the run's seed.
        keeper: stores what methods keep.
    """

    def __init__(self, spec: TaskSpec, data: Dataset, device: torch.device, seed: int, keeper: Keeper) -> None:
        self.spec, self.data, self.device, self.seed = spec, data, device, seed
        self.kind: str = spec.kind
        self.classes = data.classes
        self.epochs, self.batch = spec.train.epochs, spec.train.batch
        self.optimizer: Mapping[str, Any] = spec.train.optimizer.model_dump()
        self._keeper = keeper
        self._peers = 0
        train_y = data.train.y
        # Regression targets are standardised on the training rows; scores are computed after the inverse.
        self.offset = float(train_y.double().mean()) if self.kind == "regression" else 0.0
        self.scale = float(train_y.double().std()) if self.kind == "regression" else 1.0
        self.label_range: tuple[float, float] | None = None
        if data.label_range is not None:
            low, high = data.label_range
            self.label_range = ((low - self.offset) / self.scale, (high - self.offset) / self.scale)
        self._set_rows(self._to_device(data.train))
        self.raw_shape: Mapping[str, tuple[int, ...]] = {name: tuple(x.shape[1:]) for name, x in self._rows.x.items()}

    def _to_device(self, raw: Rows) -> Rows:
        y = raw.y.to(self.device)
        if self.kind == "regression":
            y = (y.float() - self.offset) / self.scale
        return Rows({name: x.to(self.device) for name, x in raw.x.items()}, y)

    def _set_rows(self, rows: Rows) -> None:
        self._rows = rows
        self.n_train, self.train_labels = len(rows.y), rows.y
        self.steps = -(-self.n_train // min(self.batch, self.n_train))

    def loss(self, out: Out, y: Tensor) -> Tensor:
        assert out.logits is not None
        return F.mse_loss(out.logits, y) if self.kind == "regression" else F.cross_entropy(out.logits, y)

    def unscale(self, prediction: Tensor) -> Tensor:
        """Predictions of a regression in the task's own unit; class scores as they are."""
        return prediction * self.scale + self.offset if self.kind == "regression" else prediction

    def probe(self, net: nn.Module) -> Out:
        batch = self.wrap(self.rows(torch.arange(min(2, self.n_train), device=self.device)))
        with evaluating(net):
            return net(batch)

    def rows(self, index: Tensor) -> Rows:
        return take(self._rows, index)

    def wrap(self, raw: Rows, index: Tensor | None = None) -> Batch:
        if index is None:
            index = torch.arange(len(raw.y), device=self.device)
        x = {name: self.data.transforms[name](t.to(self.device)) for name, t in raw.x.items()}
        return Batch(x, raw.y.to(self.device), index)

    def extend(self, extra: Rows) -> Task:
        other = copy.copy(self)
        other._set_rows(_join(self._rows, extra))
        return other

    def gather(self, rows: Tensor) -> Tensor:
        return rows

    def rng(self, name: str) -> torch.Generator:
        return generator("cpu", self.seed, "method", name)

    def keep(
        self,
        name: str,
        make: Callable[[], dict[str, Tensor]],
        scope: Literal["run", "task"] = "run",
        ledger: str = "generate",
    ) -> dict[str, Tensor]:
        return {key: t.to(self.device) for key, t in self._keeper(name, make, scope, ledger).items()}

    @property
    def kept(self) -> list[dict[str, Any]]:
        """Ledger of what :meth:`keep` made or reused."""
        return self._keeper.entries

    def build_student(self) -> Network:
        """The student from stream ``student-init``; each further call a peer from ``student-init-k``."""
        stream = "student-init" if self._peers == 0 else f"student-init-{self._peers}"
        self._peers += 1
        student = self.spec.pair.student
        with seeded(self.seed, stream):
            return build_network(student.net, student.input, self.data).to(self.device)

    def loader(self, stage: Stage, drop_below: int) -> Loader:
        """The batches of a stage."""
        rows = self._rows if stage.extra is None else _join(self._rows, stage.extra)
        return Loader(
            rows, self.data.transforms, self.spec.data.augment, stage.batch or self.batch, self.seed, stage.name,
            stage.views, drop_below,
        )  # fmt: skip

    def test_batches(self) -> list[Batch]:
        """Test rows in order; targets in the task's own unit."""
        raw = self.data.test
        on_device = Rows({name: x.to(self.device) for name, x in raw.x.items()}, raw.y.to(self.device))
        return in_order(on_device, self.data.transforms)


def build_network(net: str, input_name: str, data: Dataset) -> Network:
    """A network of the zoo for an input of a data set, initialised from the global generator."""
    shape = tuple(data.train.x[input_name].shape[1:])
    return models.build(net, shape, data.classes, input_name=input_name)


def _join(rows: Rows, extra: Rows) -> Rows:
    """``extra`` behind ``rows``, on their device and in their types."""
    x = {name: torch.cat([t, extra.x[name].to(t)]) for name, t in rows.x.items()}
    return Rows(x, torch.cat([rows.y, extra.y.to(rows.y)]))
