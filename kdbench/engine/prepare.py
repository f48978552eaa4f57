"""From a run configuration to a method ready to train: data, networks, teachers, adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from kdbench import ENGINE_VERSION, data
from kdbench.config import INNER, MethodConfig, RunConfig
from kdbench.contract import Method, Needs, Network, TaskInfo
from kdbench.data.dataset import Dataset
from kdbench.engine import arrange, offers, teachers
from kdbench.engine.task import Keeper, Task, seeded
from kdbench.home import Home
from kdbench.machine import device_class
from kdbench.progress import Progress
from kdbench.spec import TaskSpec


@dataclass(frozen=True)
class Place:
    """Where a run happens.

    Attributes:
        data: the user's data folder, None for the hub.
        folder: the run's own folder.
    """

    device: torch.device
    home: Home
    data: Path | None
    folder: Path
    progress: Progress = field(default_factory=Progress.silent)


@dataclass(frozen=True)
class Prepared:
    """A method ready to train.

    Attributes:
        data: the student's rows.
        teachers: all teachers the method reads, by role.
    """

    method: Method
    needs: Needs
    task: Task
    data: Dataset
    teachers: Mapping[str, teachers.TrainedTeacher]


class InnerMethod:
    """An inner method of a configuration, see :class:`kdbench.contract.Inner`."""

    def __init__(self, config: MethodConfig) -> None:
        self.name = config.ref.name
        self._config = config

    def needs(self) -> Needs:
        return self._config.ref.adapter().needs(hyper_parameters(self._config))

    def build(self, task: TaskInfo, students: Sequence[Network], teachers: Mapping[str, Network]) -> Method:
        return self._config.ref.adapter()(task, students, teachers, hyper_parameters(self._config))


def hyper_parameters(config: MethodConfig) -> Any:
    """What an adapter gets as ``hp``: typed, frozen, an inner method as a factory."""
    typed = config.ref.card.typed(config.params)
    return replace(typed, **{INNER: InnerMethod(config.inner)}) if config.inner is not None else typed


def load_data(config: RunConfig, place: Place) -> Dataset:
    """All rows of the task, cut down for a smoke run."""
    rows = data.load(config.task.data, data.Place(place.data, place.home.data, place.progress))
    return rows.head(config.task.smoke.rows) if config.smoke else rows


def effective_task(config: RunConfig) -> RunConfig:
    """The configuration with the smoke budget in force."""
    if not config.smoke:
        return config
    task = config.task
    train = task.train.model_copy(update={"epochs": min(task.train.epochs, task.smoke.epochs)})
    return replace(config, task=task.model_copy(update={"train": train}))


@contextmanager
def threads(spec: TaskSpec, device: torch.device) -> Iterator[None]:
    """On a CPU, torch has the task's number of threads within the block."""
    before = torch.get_num_threads()
    if device.type == "cpu" and spec.cpu_threads is not None:
        torch.set_num_threads(spec.cpu_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare(
    config: RunConfig,
    seed: int,
    place: Place,
    dataset: Dataset | None = None,
    trained: Mapping[str, teachers.TrainedTeacher] | None = None,
) -> Prepared:
    """Everything a run needs, on its device.

    Args:
        dataset: rows to use instead of the task's data source.
        trained: teachers by role, to use instead of training or loading the pair's.

    Raises:
        NotApplicable: the method cannot run on this task; nothing was trained but its teachers.
        UserError: the data or a teacher cannot be had.
    """
    config = effective_task(config)
    spec = config.task
    adapter, hp = config.method.ref.adapter(), hyper_parameters(config.method)
    needs = adapter.needs(hp)
    roles = offers.kind_and_roles(needs, spec.kind, list(spec.pair.teachers))
    everything = dataset if dataset is not None else load_data(config, place)
    rows = everything if config.smoke else everything.subset(spec.data.subset, seed)
    key = {
        "method": config.method.ref.card.name,
        "params": config.method.plain_params(),
        "task": [spec.name, spec.version, spec.model_dump(mode="json", include={"data": True, "pair": {"teachers"}})],
        "rows": rows.drawn,
        "seed": seed,
        "smoke": config.smoke_budget(),
        "device_class": device_class(place.device, config.engine),
        "engine_version": ENGINE_VERSION,
    }
    keeper = Keeper(place.folder, place.home.artefacts, key, place.progress.say)
    task = Task(spec, rows, place.device, seed, keeper, config.engine)
    students = [task.build_student() for _ in range(needs.students)]
    trained = {
        role: trained[role]
        if trained is not None
        else teachers.get(spec, role, everything, place.device, place.home, config.smoke, place.progress, config.engine)
        for role in roles
    }
    offers.nets_and_data(needs, task, students[0], {role: teacher.net for role, teacher in trained.items()})
    trained = {role: replace(t, net=arrange.teacher(t.net, needs, config.engine)) for role, t in trained.items()}
    nets = {role: teacher.net for role, teacher in trained.items()}
    with seeded(seed, "method"):
        method = adapter(task, students, nets, hp)
    return Prepared(method.to(place.device), needs, task, rows, trained)
