"""One run, from a configuration to a record: prepare, train, score, measure, write."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from kdbench import record as records
from kdbench.config import RunConfig
from kdbench.contract import Needs, NotApplicable
from kdbench.engine import arrange, report
from kdbench.engine.checkpoint import save_tensors
from kdbench.engine.prepare import Place, Prepared, effective_task, needs_of, prepare, threads
from kdbench.engine.scoring import Scorer
from kdbench.engine.task import Task, build_network, evaluating
from kdbench.engine.trainer import Diverged, Trainer
from kdbench.errors import UserError, described
from kdbench.files import no_room, sha256, sha256_file, write_atomic
from kdbench.home import Home
from kdbench.machine import device_class
from kdbench.overhead.measure import MeasurementFailed, Mode, Overhead, measure
from kdbench.parallel.ranks import Ranks
from kdbench.progress import Progress
from kdbench.record import Record
from kdbench.remains import cell_key, conclude


class Busy(UserError):
    """Another process does this run now."""


class Lost(UserError):
    """Another process of this run is gone without a word; nothing is recorded, the run can go on."""

    exit_code = 1


@dataclass(frozen=True)
class Request:
    """What to run and where.

    Attributes:
        data: the user's data folder, None for the hub.
        overhead: how the cell's overhead is measured, unless another seed has done so.
        force: run again although a record is there.
        retry: run again what failed before.
        ranks: the processes that share the run.
    """

    config: RunConfig
    seed: int
    device: torch.device
    home: Home
    data: Path | None = None
    overhead: Mode = "full"
    force: bool = False
    retry: bool = True
    progress: Progress = field(default_factory=Progress.silent)
    checkpoint_seconds: float | None = None
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def device_class(self) -> str:
        """What must be equal for rows to be compared."""
        return device_class(self.device, self.config.engine, self.ranks.size)

    @property
    def cell_key(self) -> str:
        """All seeds of one configuration on one device class."""
        return cell_key(self.config.spec_hash, self.device_class)

    @property
    def key(self) -> str:
        """This run, so that it is found again after a crash."""
        return sha256(f"{self.cell_key}/{self.seed}")[:32]


def finished(request: Request) -> Record | None:
    """The record of this run, if it is there; that of a failed one counts unless it is to be tried again."""
    names = [request.key] if request.retry else [request.key, f"{request.key}.failed"]
    return next((found for name in names if (found := _behind(request, name)) is not None), None)


def not_applicable(request: Request) -> Record | None:
    """The record which says that the method does not apply to the task, of whatever seed."""
    return _behind(request, f"{request.cell_key}.not_applicable")


def _behind(request: Request, name: str) -> Record | None:
    """The record a pointer leads to, unless it was withdrawn."""
    marker = request.home.done / name
    path = request.home.records / f"{marker.read_text().strip()}.json" if marker.is_file() else None
    if path is None or not path.is_file():
        return None
    side = records.side_of(path)
    return records.load(path) if side is None or side.withdrawn is None else None


def evaluate(request: Request) -> Record:
    """Runs a configuration with one seed, or goes on where a killed run stopped; of several processes the first's part.

    Returns:
        The record, written already; its status tells how the run ended.

    Raises:
        Busy: another process does this run now.
        UserError: bad data or teacher, or no room to write. Nothing is recorded.
    """
    began = False

    def begin(folder: Path, identity: dict[str, str]) -> Record:
        nonlocal began
        began = request.ranks.tell(True)
        return _run(request, folder, identity)

    record = _once(request, begin)
    if not began:
        request.ranks.tell(False)
    return record


def follow(request: Request) -> None:
    """The part of a process other than the first: it trains on its rows and writes nothing.

    Raises:
        Exception: whatever ended training; the first process is told.
    """
    if not request.ranks.tell():
        return  # the record is there
    place = _place(request, request.home.runs / request.key)
    try:
        with threads(request.config.task, request.device):
            prepared = prepare(request.config, request.seed, place)
            Trainer(prepared.method, prepared.task, place.folder).run()
    except (NotApplicable, Diverged):
        return  # as on every process
    except Exception as error:
        request.ranks.report(_status(error), error)
        raise


def give_up(request: Request, status: str, kind: str, message: str) -> Record:
    """Records a run whose process came to an end without a record: it was killed, by a time limit or otherwise.

    Args:
        status: of the record, ``timeout``, ``oom`` or ``failed``; ``kind`` and ``message`` of its error.

    Returns:
        That record, or the one that the process has written after all.

    Raises:
        Busy: the process lives.
    """

    def ended(folder: Path, identity: dict[str, str]) -> Record:
        return report.without_result(_facts(request, identity), _needs(request.config), status, kind, message)

    return _once(request, ended)


def _once(request: Request, make: Callable[[Path, dict[str, str]], Record]) -> Record:
    """The record of a run, made by ``make(folder, identity)`` unless it is there."""
    if not request.force and (found := finished(request)) is not None:
        return found
    request.home.runs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(request.home.runs / f"{request.key}.lock", timeout=0):
            found = None if request.force else finished(request)  # by a process that held the lock until now
            return _locked(request, make) if found is None else found
    except Timeout as error:
        name = f"{request.config.method.ref.name} on {request.config.task.name}, seed {request.seed}"
        raise Busy(f"{name} is being run by another process; wait for it") from error


def _locked(request: Request, make: Callable[[Path, dict[str, str]], Record]) -> Record:
    folder = request.home.runs / request.key
    folder.mkdir(exist_ok=True)
    identity = _identity(folder)
    path = request.home.records / f"{identity['run_id']}.json"
    record = records.load(path) if path.is_file() else None  # written just before a crash
    if record is None:
        record = make(folder, identity)
        records.dump(record, request.home.records)
    conclude(request.home, request.key, record)
    return record


def _identity(folder: Path) -> dict[str, str]:
    """Run id and start of the run in a folder: those of the first process that worked on it."""
    path = folder / "run.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        identity = {"run_id": records.new_run_id(), "created_at": records.now()}
        write_atomic(path, json.dumps(identity))
        return identity


def _run(request: Request, folder: Path, identity: dict[str, str]) -> Record:
    with threads(request.config.task, request.device):
        return _train_and_score(request, folder, identity)


def _place(request: Request, folder: Path) -> Place:
    return Place(request.device, request.home, request.data, folder, request.progress, request.ranks)


def _train_and_score(request: Request, folder: Path, identity: dict[str, str]) -> Record:
    place = _place(request, folder)
    facts = _facts(request, identity)
    try:
        prepared = prepare(request.config, request.seed, place)
        scorer = Scorer(prepared.task, {role: teacher.net for role, teacher in prepared.teachers.items()})
        trained = Trainer(
            prepared.method, prepared.task, folder, scorer.primary, request.progress, request.checkpoint_seconds
        ).run()
        metrics = scorer.all(prepared.method.deployed)
        deploy = _export(prepared, request.home.students / f"{identity['run_id']}.safetensors")
    except UserError:
        raise
    except NotApplicable as reason:
        return report.without_result(facts, _needs(request.config), "not_applicable", "NotApplicable", str(reason))
    except Exception as error:
        if no_room(error):
            raise
        return report.without_result(facts, _needs(request.config), *_cause(request.ranks, error))
    overhead = _overhead(request, place, len(trained.stages))
    return report.with_result(facts, prepared, trained, metrics, len(scorer.y), deploy, overhead)


def _facts(request: Request, identity: dict[str, str]) -> report.Facts:
    return report.Facts(request.config, request.seed, request.device, request.device_class, identity)


def _needs(config: RunConfig) -> Needs:
    return needs_of(config.method)


def _cause(ranks: Ranks, error: Exception) -> tuple[str, str, str]:
    """Status, kind and message of what ended a run: where another process failed first, of that failure.

    Raises:
        Lost: an exchange failed and no process said why.
    """
    if (other := ranks.reported()) is not None:
        return other["status"], other["kind"], other["message"]
    if ranks.is_break(error):
        raise Lost("a process of the run is gone; the same command goes on where it stopped") from error
    return _status(error), type(error).__name__, str(error) if isinstance(error, Diverged) else described(error)


def _status(error: Exception) -> str:
    if isinstance(error, Diverged):
        return "diverged"
    memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
    return "oom" if memory else "failed"


def _export(prepared: Prepared, path: Path) -> dict[str, Any]:
    """Writes the deployed network's weights; says whether it equals the plain student in graph and parameters."""
    net = prepared.method.deployed
    save_tensors(path, net.state_dict())
    return {
        "params": sum(p.numel() for p in net.parameters()),
        "equals_plain": equals_plain(net, prepared.task),
        "export_sha256": sha256_file(path),
    }


def equals_plain(net: nn.Module, task: Task) -> bool:
    """Whether a fresh plain student that takes over the network's state has its outputs, bit for bit."""
    student = task.spec.pair.student
    fresh = arrange.student(build_network(student.net, student.input, task.data).to(task.device), task.options)
    try:
        fresh.load_state_dict(net.state_dict())
    except RuntimeError:
        return False
    batch = task.wrap(task.rows(torch.arange(min(8, task.n_train), device=task.device)))
    with evaluating(net), evaluating(fresh):
        return type(net) is type(fresh) and torch.equal(net(batch).logits, fresh(batch).logits)


def _overhead(request: Request, place: Place, stages: int) -> report.CellOverhead | None:
    """The cell's overhead: what was measured of its steps in this mode or a better one, or measured now."""
    if request.overhead == "off" or request.ranks.several:
        return None
    better = ("full",) if request.overhead == "full" else ("full", "quick")
    for spec_hash in dict.fromkeys((request.config.step_hash, request.config.spec_hash)):
        for mode in better:
            if (measured := _behind(request, f"{cell_key(spec_hash, request.device_class)}.{mode}")) is not None:
                return report.CellOverhead.of(measured)
    request.progress.say(f"measuring the overhead of {request.config.method.ref.name} ({request.overhead})")
    try:
        found: Overhead = measure(effective_task(request.config), request.seed, place, request.overhead, stages)
    except MeasurementFailed as error:
        request.progress.say(f"{error}; the record is written without it")
        return None
    return report.CellOverhead(found.block, found.flops_per_step, found.deploy)
