"""Teachers whose answers are kept (``engine.teacher_store``): the same bits as if they computed, or they compute.

A frozen teacher in eval mode answers for each row alone, so a row's logits and embedding are known by the row and by
which picture the augmentation made of it. Kernels may round a row otherwise in a batch of another size. So what is kept
is what rows get in whole batches of a stage, and nothing is believed: answers are read for batches of a size only after
a batch of that size, computed in this process, had the kept answers bit for bit. Where few rows of a batch are missing
they are computed alone, in a smaller batch, whose size was tried in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdbench import ENGINE_VERSION
from kdbench.base.files import canonical_json, sha256
from kdbench.contract import Batch, Needs, Network, Out
from kdbench.data.feed.dataset import Dataset
from kdbench.data.feed.drawn import Drawn, Draws
from kdbench.devices.machine import device_class, processor
from kdbench.engine.place import RunPlace
from kdbench.engine.standin import StandIn, only, refusal
from kdbench.engine.task import Task
from kdbench.engine.teacher_store import Filling, TeacherStore, Values
from kdbench.identity import sourcecode
from kdbench.models.weights import digest_of
from kdbench.specs.config import RunConfig

KEPT = ("logits", "emb")
"""Fields of :class:`Out` that are kept: of other fields a row is as large as a picture, or many times as large."""
LEAST = 8
"""Rows of the smallest batch in which missing rows are computed alone."""


def keeping(
    config: RunConfig, needs: Needs, nets: Mapping[str, Network], task: Task, data: Dataset, place: RunPlace
) -> dict[str, Network]:
    """A method's teachers as it gets them: those whose answers can be kept, keep them; of the others a line is said.

    Args:
        nets: the teachers by role, as they compute.
        task: of the run; what its batches hold is noted from now on, if anything is kept.
        data: all training rows.
        place: of the run.
    """
    found, say = dict(nets), place.progress.say
    if not nets:
        return found
    if (reason := refusal(needs, KEPT)) is not None:
        say(f"engine.teacher_store: {config.method.ref.name} {reason}; they compute")
        return found
    draws, filling = Draws(len(data.train.y), task.data.numbers), Filling()
    fields = [field for field in KEPT if field in needs.teacher]
    identity = data.identity()
    for role, net in nets.items():
        if net.input not in data.train.x:
            say(f"engine.teacher_store: {net.input} is made of another input; teacher {role!r} computes")
            continue
        key = _key(config, role, net, identity, place)
        folder = place.home.answers / sha256(canonical_json(key))[:32]
        store = TeacherStore(folder, key, config.engine.teacher_store_mib, say)
        found[role] = StoredTeacher(net, fields, store, draws, filling)
        task.draws, task.filling = draws, filling
    return found


def _key(config: RunConfig, role: str, net: Network, data: str, place: RunPlace) -> dict[str, Any]:
    """All that decides a teacher's answers, the machine among it."""
    arch = config.task.pair.teachers[role].net
    return {
        "teacher": {"net": arch, "code": sourcecode.of_nets([arch]), "weights": digest_of(net), "input": net.input},
        "data": data,
        "augment": list(config.task.data.augment),
        "device_class": device_class(place.device, config.engine),
        "machine": [processor(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        "torch": torch.__version__,
        "engine_version": ENGINE_VERSION,
    }


@dataclass
class _Held:
    """What is kept of a batch: (N, width) values of each field, and (N,) whether a row has them all."""

    values: dict[str, Values]
    there: NDArray[np.bool_]


class StoredTeacher(StandIn):
    """A teacher that answers from a store.

    Args:
        net: the teacher, frozen.
        fields: of :class:`Out`, those that its method reads.
        store: of this teacher.
        draws: what batches hold.
        filling: counts.
    """

    def __init__(
        self, net: Network, fields: Sequence[str], store: TeacherStore, draws: Draws, filling: Filling
    ) -> None:
        super().__init__(net)
        self._fields, self._store, self._draws, self._filling = list(fields), store, draws, filling
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._same: dict[int, bool] = {}

    def forward(self, batch: Batch) -> Out:
        """``logits`` and ``emb``, those of them that the method reads; of batches that were not drawn everything."""
        drawn = self._draws.of(batch.x[self.input]) if self._knows(batch) else None
        if drawn is None or self._same.get(drawn.batch) is False or self._same.get(len(drawn.numbers)) is False:
            return self.net(batch)
        try:
            return self._answered(batch, drawn)
        except OSError as error:
            self._compute_from_now(f"{self._store.folder}: {error.strerror or error}")
            return self.net(batch)

    def _answered(self, batch: Batch, drawn: Drawn) -> Out:
        rows = len(drawn.numbers)
        held = self._held(drawn)
        missing = np.flatnonzero(~held.there)
        if self._same.get(rows):
            if not len(missing):
                self._filling.read += rows
                return self._out(held.values, batch)
            size = _size_for(len(missing), rows)
            if size < rows and self._same.get(size):
                return self._completed(batch, drawn, held, missing, size)
        begin = time.perf_counter()
        out = self.net(batch)
        computed = self._values(out, rows)
        self._filling.computed += rows
        if computed is None:
            return out
        if len(missing) < rows:
            self._compare(rows, drawn.batch, _same(held.values, computed, held.there))
        elif rows != drawn.batch and rows not in self._same:
            self._compare(rows, drawn.batch, self._as_in(drawn.batch, batch, np.arange(rows), computed))
        size = _size_for(len(missing), rows)
        if self._same.get(rows) and 0 < len(missing) < rows and size < rows and size not in self._same:
            self._same[size] = self._as_in(size, batch, missing, {name: v[missing] for name, v in computed.items()})
        if len(missing) and self._same.get(rows, rows == drawn.batch):
            self._keep(drawn, missing, {name: values[missing] for name, values in computed.items()}, begin)
        return only({name: getattr(out, name) for name in self._fields})

    def _completed(self, batch: Batch, drawn: Drawn, held: _Held, missing: NDArray[np.intp], size: int) -> Out:
        """Answers of which some are kept; the missing ones are computed alone."""
        begin = time.perf_counter()
        computed = self._values(self.net(_part(batch, missing, size)), size)
        assert computed is not None
        for name, values in computed.items():
            held.values[name][missing] = values[: len(missing)]
        self._filling.read += len(drawn.numbers) - len(missing)
        self._filling.computed += len(missing)
        self._keep(drawn, missing, {name: values[: len(missing)] for name, values in computed.items()}, begin)
        return self._out(held.values, batch)

    def _held(self, drawn: Drawn) -> _Held:
        found = _Held({}, np.ones(len(drawn.numbers), dtype=bool))
        for name in self._fields:
            field = self._store.field(f"{name}-{drawn.batch}")
            if field is None:
                return _Held({}, np.zeros(len(drawn.numbers), dtype=bool))
            self._shapes[name] = field.shape
            found.values[name], there = field.shelf.read(drawn.numbers)
            found.there &= there
        return found

    def _keep(self, drawn: Drawn, which: NDArray[np.intp], values: Mapping[str, Values], begin: float) -> None:
        """Keeps what was computed since ``begin``; where none of it found a place these seconds are the run's own."""
        placed = 0
        for name, of_field in values.items():
            field = self._store.make(f"{name}-{drawn.batch}", self._shapes[name], drawn.of)
            if field is None:
                continue
            if field.shape != self._shapes[name]:
                self._compute_from_now(f"{self._store.folder} holds answers of another shape")
                return
            placed = field.shelf.write(drawn.numbers[which], of_field)
            if placed < len(which) and field.shelf.places < drawn.of:
                self._store.say_full()
        self._filling.kept += placed
        if placed:
            self._filling.seconds += time.perf_counter() - begin

    def _values(self, out: Out, rows: int) -> dict[str, Values] | None:
        """(rows, width) values of each field, None where they are not one float32 answer a row."""
        found = {}
        for name in self._fields:
            value = getattr(out, name) if out.has(name) else None
            if value is None or value.dtype is not torch.float32 or len(value) != rows:
                self._compute_from_now(f"a teacher gives no {name} of single rows in fp32")
                return None
            self._shapes[name] = tuple(value.shape[1:])
            found[name] = value.detach().reshape(rows, -1).cpu().numpy()
        return found

    def _out(self, values: Mapping[str, Values], batch: Batch) -> Out:
        device = batch.x[self.input].device
        found = {
            name: torch.from_numpy(of_field.reshape(-1, *self._shapes[name])).to(device)
            for name, of_field in values.items()
        }
        return only(found)

    def _as_in(self, size: int, batch: Batch, which: NDArray[np.intp], computed: Mapping[str, Values]) -> bool:
        """Whether rows of a batch get the same bits in one of another size."""
        values = self._values(self.net(_part(batch, which, size)), size)
        return values is not None and _same(values, computed, np.ones(len(which), dtype=bool))

    def _compare(self, rows: int, whole: int, same: bool) -> None:
        """Notes whether batches of a size give what is kept, and says where they do not."""
        self._same[rows] = same and self._same.get(rows, True)
        if not self._same[rows]:
            than = "what is kept" if rows == whole else f"those of {whole}"
            self._store.say_once(
                f"engine.teacher_store: batches of {rows} rows give other bits here than {than}; they are computed"
            )

    def _compute_from_now(self, why: str) -> None:
        self._computes = True
        self._store.say_once(f"engine.teacher_store: {why}; teachers compute")


def _size_for(missing: int, rows: int) -> int:
    """Rows of the batch in which so many missing ones of a batch are computed: a power of 2, or the whole batch's."""
    size = max(LEAST, 1 << max(0, missing - 1).bit_length())
    return size if size < rows else rows


def _part(batch: Batch, which: NDArray[np.intp], size: int) -> Batch:
    """Some rows of a batch, repeated until there are ``size``."""
    index = torch.from_numpy(np.resize(which, size)).to(batch.index.device)
    present = {name: mask[index] for name, mask in batch.present.items()}
    x = {name: values[index] for name, values in batch.x.items()}
    return replace(batch, x=x, y=batch.y[index], index=batch.index[index], present=present)


def _same(some: Mapping[str, Values], others: Mapping[str, Values], where: NDArray[np.bool_]) -> bool:
    """Whether the rows ``where`` of each field have the same bits; of ``some`` the first rows count."""
    return all(
        np.array_equal(some[name][: len(where)][where].view(np.uint32), others[name][where].view(np.uint32))
        for name in others
    )
