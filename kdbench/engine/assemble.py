"""From a run configuration to a method ready to train: data, networks, teachers, adapter."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.dropout import _DropoutNd

from kdbench import ENGINE_VERSION, data, identity
from kdbench.base.errors import UserError, described
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.contract import ANY_TEACHER, Method, Needs, Network, TaskInfo
from kdbench.data.feed.dataset import Dataset
from kdbench.devices import backends, heap
from kdbench.devices.machine import device_class
from kdbench.engine import accelerate, applicability, leftover, stored_teacher, teacher_ahead, teachers
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.engine.stage import StageRun
from kdbench.engine.task import Keeper, Task, seeded
from kdbench.kinds.base import TEACHER_DATABASE
from kdbench.models.ensemble import Mean
from kdbench.specs.config import INNER, MethodConfig, RunConfig
from kdbench.specs.task import TaskSpec

PAIR_OF_TEACHERS = {"teachers", "ensemble"}
"""Keys of a pair that tell what is kept of its teachers."""
MEAN = "mean"
"""The role of the network that stands for all teachers."""


@dataclass(frozen=True)
class Prepared:
    """A method ready to train.

    Attributes:
        data: the student's rows.
        teachers: all teachers the method reads, by role, and the one that its student is cut out of.
        read: the networks it reads them as: themselves, or one that stands for all.
        ensemble: the score of that one, None without it.
    """

    method: Method
    needs: Needs
    task: Task
    data: Dataset
    teachers: Mapping[str, teachers.TrainedTeacher]
    read: Mapping[str, Network]
    ensemble: float | None = None

    @property
    def scored_against(self) -> Mapping[str, Network]:
        """The networks that the student's predictions are compared with: those whose own are trained."""
        trained = all(teacher.score is not None for teacher in self.teachers.values())
        return self.read if trained else {}

    @property
    def trained_on(self) -> Mapping[str, Network]:
        """The teachers that the method itself trains on, by role."""
        scored = {role for role, teacher in self.teachers.items() if teacher.score is not None}
        return {role: net for role, net in self.read.items() if self.needs.trains_teacher and role in scored}


def needs_of(config: MethodConfig) -> Needs:
    """What a configured method reads.

    Raises:
        UserError: its adapter cannot say; the message holds file and line.
    """
    adapter = config.ref.adapter()
    try:
        return adapter.needs(hyper_parameters(config))
    except Exception as error:  # whatever its code does
        raise UserError(f"needs() of {config.ref.name}: {type(error).__name__}: {described(error)}") from error


class InnerMethod:
    """An inner method of a configuration, see :class:`kdbench.contract.Inner`."""

    def __init__(self, config: MethodConfig) -> None:
        self.name = config.ref.name
        self._config = config

    def needs(self) -> Needs:
        return needs_of(self._config)

    def build(self, task: TaskInfo, students: Sequence[Network], teachers: Mapping[str, Network]) -> Method:
        return self._config.ref.adapter()(task, students, teachers, hyper_parameters(self._config))


def hyper_parameters(config: MethodConfig) -> Any:
    """What an adapter gets as ``hp``: typed, frozen, an inner method as a factory."""
    typed = config.ref.card.typed(config.params)
    return replace(typed, **{INNER: InnerMethod(config.inner)}) if config.inner is not None else typed


def load_data(config: RunConfig, folder: Path | None, home: Home, progress: Progress) -> Dataset:
    """All rows of the task, cut down for a smoke run.

    Args:
        folder: the user's data folder, None for the hub.

    Raises:
        UserError: the data are absent or damaged, or the task's metrics mean nothing on them.
    """
    rows = data.load(config.task.data, data.Place(folder, home.data, progress))
    task = config.task
    if (wrong := task.of_kind.unscorable(rows.train, rows.test, task.score.k)) is not None:
        raise UserError(f"{task.name}: {wrong}")
    return rows.head(task.smoke.rows) if config.smoke else rows


def students_rows(config: RunConfig, seed: int, everything: Dataset) -> Dataset:
    """The rows that the student trains on: the subset that the run's seed draws, of a smoke run all; and those that it
    is scored on."""
    rows = everything.validated(config.task.data.validation)
    return rows if config.smoke else rows.subset(config.task.data.subset, seed)


def rows_read(config: RunConfig, seed: int, everything: Dataset) -> identity.RowsRead:
    """The rows of a run as its record names them."""
    own = students_rows(config, seed, everything)
    return identity.RowsRead(
        everything.identity(), {"train": own.drawn or own.digest("train"), "test": own.digest("test")}
    )


def effective_task(config: RunConfig) -> RunConfig:
    """The configuration with the smoke budget in force."""
    if not config.smoke:
        return config
    task = config.task
    train = task.train.model_copy(update={"epochs": min(task.train.epochs, task.smoke.epochs)})
    score = task.score
    if score.finetune is not None:
        own = score.finetune.model_copy(update={"epochs": min(score.finetune.epochs, task.smoke.epochs)})
        score = score.model_copy(update={"finetune": own})
    return replace(config, task=task.model_copy(update={"train": train, "score": score}))


def require_shared(config: RunConfig, processes: int) -> None:
    """Refuses what a run's kind, method or processes cannot do: to be shared, or an engine option.

    Raises:
        UserError: naming it and the reason.
    """
    kind = config.task.of_kind
    reason = needs_of(config.method).one_process or kind.one_process
    if processes > 1 and reason is not None:
        raise UserError(f"{config.method.ref.name} runs in one process: {reason}; start it without torchrun")
    for option in ("compile", "cuda_graphs"):
        if kind.eager is not None and getattr(config.engine, option):
            raise UserError(f"engine.{option}=true: {kind.eager}; leave it out")
        if processes > 1 and getattr(config.engine, option):
            raise UserError(_alone(option))
    if processes > 1 and config.engine.teacher_store:
        raise UserError(_alone("teacher_store"))
    if processes > 1 and config.engine.teacher_ahead > 1:
        raise UserError(_alone("teacher_ahead", config.engine.teacher_ahead))


def _alone(option: str, value: object = "true") -> str:
    return f"engine.{option}={value} is for runs of one process; leave it out, or start without torchrun"


def _refuse_dropout(name: str, method: Method) -> None:
    """Raises UserError when a module draws for the rows it sees: several processes would draw otherwise than one."""
    for module in method.modules():
        if isinstance(module, _DropoutNd) and module.p:
            raise UserError(
                f"{name} runs in one process here: its networks hold {type(module).__name__}, which draws for each "
                "process's own rows; start it without torchrun"
            )


def rehearse(config: RunConfig, seed: int, place: RunPlace, everything: Dataset) -> None:
    """Tries an epoch's last batch, where it holds one row, with an untrained teacher; nothing of it is kept.

    Raises:
        NotApplicable: the method cannot run on this task.
        UserError: the first stage cannot be trained on it.
    """
    spec = config.task
    if not leftover.is_lone(len(students_rows(config, seed, everything).train.y), spec.train.batch):
        return
    untrained = {role: teachers.untrained(spec, role, everything, place.device) for role in spec.pair.teachers}
    with tempfile.TemporaryDirectory() as scratch, seeded(seed, "rehearsal"):
        own = RunPlace(place.device, Home(Path(scratch)), place.data, Path(scratch) / "run", ranks=place.ranks)
        prepared = prepare(config, seed, own, everything, untrained)
        stage = next(prepared.method.stages(), None)
        if stage is not None:
            prepared.method.to(place.device)
            leftover.require_trainable(StageRun(prepared.method, stage, prepared.task))


@contextmanager
def threads(spec: TaskSpec, device: torch.device) -> Iterator[None]:
    """On a CPU, torch has the task's number of threads within the block."""
    before = torch.get_num_threads()
    if backends.of(device).on_host and spec.cpu_threads is not None:
        torch.set_num_threads(spec.cpu_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare(
    config: RunConfig,
    seed: int,
    place: RunPlace,
    dataset: Dataset | None = None,
    trained: Mapping[str, teachers.TrainedTeacher] | None = None,
) -> Prepared:
    """Everything a run needs, on its device.

    Args:
        dataset: all rows, where they are loaded already.
        trained: teachers by role, to use instead of training or loading the pair's.

    Raises:
        NotApplicable: the method cannot run on this task; nothing was trained but its teachers.
        UserError: the data or a teacher cannot be had.
    """
    if backends.of(place.device).on_host:
        heap.keep_freed()
    accelerate.process(place.device, config.engine)
    config = effective_task(config)
    spec = config.task
    adapter, hp = config.method.ref.adapter(), hyper_parameters(config.method)
    needs = needs_of(config.method)
    together = spec.pair.ensemble is not None and ANY_TEACHER in needs.teachers
    roles = applicability.kind_and_roles(needs, spec)
    ranks = place.ranks
    require_shared(config, ranks.size)
    everything = (
        dataset
        if dataset is not None
        else ranks.first_then_all(lambda: load_data(config, place.data, place.home, place.progress))
    )
    applicability.inputs(needs, spec, roles, everything)
    rows = students_rows(config, seed, everything)
    key = _key_of_artefacts(config, everything, rows, seed, place)
    keeper = Keeper(place.folder, place.home.artefacts, key, place.progress.say, ranks=ranks)
    if trained is None:
        rehearse(config, seed, place, everything)

    def taught(role: str) -> teachers.TrainedTeacher:
        return trained[role] if trained is not None else teachers.get(config, role, everything, place)

    cut_from = spec.pair.student.pruned_from
    found = {} if cut_from is None else {cut_from: taught(cut_from)}
    whole = found[cut_from].net if cut_from is not None else None
    task = Task(spec, rows, place.device, seed, keeper, config.engine, ranks, whole)
    students = [task.build_student() for _ in range(needs.students)]
    read = {role: found[role] if role in found else taught(role) for role in roles}
    untrained = [role for role, teacher in read.items() if teacher.score is None]
    inherited = spec.pair.student.inherit
    if inherited:
        giver = _first_teacher(config, everything, place, {**found, **read} if trained is None else trained)
        for net in students:
            net.init_from(giver.net, inherited)
    for net in students:
        net.asked = needs.student
    for teacher in read.values():
        teacher.net.asked = needs.teacher
    nets = _read_as(together, {role: teacher.net for role, teacher in read.items()})
    applicability.nets_and_data(needs, task, students[0], nets, list(nets) if together and untrained else untrained)
    _say_which(config, needs, roles, place.progress)
    ensemble = Scorer(task).primary(nets[MEAN])[spec.score.primary] if together else None
    read = {role: replace(t, net=accelerate.teacher(t.net, needs, config.engine)) for role, t in read.items()}
    own = {role: teacher.net for role, teacher in read.items()}
    nets = _read_as(together, own)
    asked = _read_as(together, _asked(config, needs, own, task, everything, place))
    with seeded(seed, "method"):
        method = adapter(task, students, asked, hp)
    if ranks.several:
        _refuse_dropout(config.method.ref.name, method)
    return Prepared(method.to(place.device), needs, task, rows, found | read, nets, ensemble)


def _key_of_artefacts(
    config: RunConfig, everything: Dataset, rows: Dataset, seed: int, place: RunPlace
) -> dict[str, Any]:
    """What decides an artefact of the run, such as a generator: another run of the same takes it."""
    spec = config.task
    return {
        "method": config.method.ref.card.name,
        "params": config.method.plain_params(),
        "task": [
            spec.name,
            spec.version,
            spec.model_dump(mode="json", include={"data": True, "pair": PAIR_OF_TEACHERS}),
        ],
        "identity": identity.of_artefacts(config, everything.identity()).model_dump(mode="json"),
        "rows": rows.drawn,
        "seed": seed,
        "smoke": config.smoke_budget(),
        "device_class": device_class(place.device, config.engine, place.ranks.size),
        "engine_version": ENGINE_VERSION,
    }


def _asked(
    config: RunConfig, needs: Needs, nets: dict[str, Network], task: Task, everything: Dataset, place: RunPlace
) -> dict[str, Network]:
    """Teachers by role as the method asks them: their stored answers, several batches ahead, or themselves."""
    if config.engine.teacher_store:
        return stored_teacher.keeping(config, needs, nets, task, everything, place)
    if config.engine.teacher_ahead > 1:
        return teacher_ahead.asking(config, needs, nets, task, place.progress.say)
    return nets


def scored_against(
    prepared: Prepared, config: RunConfig, place: RunPlace, everything: Dataset
) -> Mapping[str, Network]:
    """What a run's student is compared with; a teacher whose answers are searched also where the method reads none."""
    if prepared.read:
        return prepared.scored_against
    config = effective_task(config)
    score, pair = config.task.score, config.task.pair
    first = list(pair.teachers)[:1] if score.reading(frozenset({TEACHER_DATABASE})) else []
    return {role: teachers.get(config, role, everything, place).net for role in first}


def _first_teacher(
    config: RunConfig, everything: Dataset, place: RunPlace, known: Mapping[str, teachers.TrainedTeacher]
) -> teachers.TrainedTeacher:
    """The task's first teacher, whether the method reads it or not."""
    role = next(iter(config.task.pair.teachers))
    return known[role] if role in known else teachers.get(config, role, everything, place)


def _read_as(together: bool, nets: dict[str, Network]) -> dict[str, Network]:
    """The networks a method gets for its teachers, by role."""
    return {MEAN: Mean(list(nets.values()))} if together else nets


def _say_which(config: RunConfig, needs: Needs, roles: Sequence[str], progress: Progress) -> None:
    """Says which teachers a method for one reads where the task has several."""
    pair = config.task.pair
    if ANY_TEACHER not in needs.teachers or len(pair.teachers) == 1:
        return
    name, nets = config.method.ref.name, {role: f"{role} ({pair.teachers[role].net})" for role in pair.teachers}
    if pair.ensemble is not None:
        progress.tell(f"{name} reads the mean of the teachers {', '.join(nets.values())}")
        return
    others = [nets[role] for role in nets if role not in roles]
    one_input = len({teacher.input for teacher in pair.teachers.values()}) == 1
    more = "; pair.ensemble=mean reads the mean of all" if one_input else ""
    progress.tell(f"{name} reads the first teacher, {nets[roles[0]]}, and not {', '.join(others)}{more}")
