"""One run, from a configuration to a record: prepare, train, score, measure, write."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from kdbench import identity
from kdbench.base.errors import UserError, described
from kdbench.base.files import no_room, sha256_file
from kdbench.base.leftovers import clear_run
from kdbench.contract import Needs, NotApplicable
from kdbench.data.feed.dataset import Dataset
from kdbench.devices import backends
from kdbench.engine import accelerate, examples
from kdbench.engine.assemble import Prepared, effective_task, needs_of, prepare, scored_against, threads
from kdbench.engine.checkpoint import save_tensors
from kdbench.engine.external import Externals
from kdbench.engine.finetune import Finetuner, probed
from kdbench.engine.place import RunPlace
from kdbench.engine.scoring import Scorer
from kdbench.engine.task import Task, build_network, evaluating
from kdbench.engine.trainer import Diverged, Trainer
from kdbench.overhead.measure import MeasurementFailed, Overhead, measure
from kdbench.parallel.ranks import Ranks
from kdbench.records import examples as kept_examples
from kdbench.records import files as records
from kdbench.records import items as kept_items
from kdbench.records.files import Record
from kdbench.runs import as_record, earlier
from kdbench.runs.earlier import Begun
from kdbench.runs.kept import Kept
from kdbench.runs.request import Request
from kdbench.runs.turns import Pause, Turns, ended, through
from kdbench.specs.config import RunConfig


class Busy(UserError):
    """Another process does this run now."""


class Lost(UserError):
    """Another process of this run is gone without a word, or the device by the doing of whichever of several runs;
    nothing is recorded, the run can go on."""

    exit_code = 1


class Crowded(Exception):
    """There was no memory for a run beside others, which says nothing of the run alone."""


def run_seed(request: Request) -> Record:
    """Runs a configuration with one seed, or goes on where a killed run stopped; of several processes the first's part.

    Returns:
        The record, written already; its status tells how the run ended.

    Raises:
        Busy: another process does this run now.
        UserError: bad data or teacher, or no room to write. Nothing is recorded.
    """
    return through(turns(request))


def turns(request: Request) -> Turns:
    """As :func:`run_seed`, in turns: it pauses after each step of training, and where nothing may go on beside it.

    Raises:
        Busy, UserError: as there.
        Lost: it takes turns with others, and the device takes no more work of this process.
    """
    began = False

    def begin(begun: Begun) -> Turns:
        nonlocal began
        began = request.ranks.tell(True)
        with threads(request.config.task, request.device):
            return (yield from _train_and_score(request, begun))

    record = yield from _once(request, begin)
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
    try:
        with threads(request.config.task, request.device):
            prepared = prepare(request.config, request.seed, request.place)
            Trainer(prepared.method, prepared.task, request.folder).run()
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

    def end(begun: Begun) -> Turns:
        return ended(as_record.without_result(_facts(request, begun), _needs(request.config), status, kind, message))

    return through(_once(request, end))


def _once(request: Request, make: Callable[[Begun], Turns]) -> Turns:
    """The record of a run, made by ``make`` unless an earlier one answers for it; says in a line what is not plain."""
    there = earlier.finished(request)
    if there is not None and not request.force:
        request.progress.say(earlier.answer(request, there))
        return there
    request.home.runs.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(request.home.runs / f"{request.key}.lock", timeout=0):
            if there is None and (there := earlier.finished(request)) is not None:
                return there  # by a process that held the lock until now
            if there is None and (line := earlier.overtaken(request)) is not None:
                request.progress.say(line)
            record = yield from make(Begun.of(request))
            records.dump(record, request.home.records)
            clear_run(request.folder)
    except Timeout as error:
        raise Busy(f"{request.name} is being run by another process; wait for it") from error
    if there is not None and there.status == record.status == "ok":
        request.progress.say(
            f"{request.name}: the run of {earlier.time(there)} ({there.run_id[:8]}) counts, a repeat never replaces it"
        )
    return record


def _train_and_score(request: Request, begun: Begun) -> Turns:
    everything = request.ranks.first_then_all(request.load)
    begun = begun.on(request, everything)
    with Kept(request, begun) as kept:
        request = replace(request, progress=kept.progress)
        try:
            record = yield from _recorded(request, begun, everything, kept)
        except Crowded:
            record = None
        if record is None:
            gc.collect()  # what training held refers to itself
            backends.of(request.device).release_memory(request.device)
            request.progress.say(f"{request.name}: no memory beside the other runs; it goes on when they are done")
            yield Pause.ALONE
            record = yield from _recorded(replace(request, common=None), begun, everything, kept)
        kept.ended(record)
    return record


def _recorded(request: Request, begun: Begun, everything: Dataset, kept: Kept) -> Turns:
    place = request.place
    facts = _facts(request, begun)
    try:
        prepared = prepare(request.config, request.seed, place, everything)
        externals = Externals(prepared.task, place, request.config.smoke)
        finetuner = Finetuner(prepared.task, place.folder, request.progress)
        scorer = Scorer(prepared.task, scored_against(prepared, request.config, place, everything), finetuner)
        trainer = Trainer(
            prepared.method, prepared.task, place.folder, scorer.primary, request.progress, request.checkpoint_seconds,
            kept.point, scorer.curve_points,
        )  # fmt: skip
        for _ in trainer.steps():
            yield Pause.STEP
        trained = trainer.done
        if (filling := prepared.task.filling) is not None and filling.read + filling.computed:
            request.progress.say(filling.line)
        metrics = scorer.all(prepared.method.deployed)
        evaluated = probed(prepared.task, scorer.seconds) + finetuner.reports
        elsewhere = externals.scores(prepared.method.deployed)
        kept.scored(metrics, sum(stage.steps for stage in trained.stages))
        taught = {role: scorer.primary(net)[scorer.name] for role, net in prepared.trained_on.items()}
        if (shown := examples.of(prepared.task, prepared.method.deployed)) is not None:
            kept_examples.dump(shown, kept_examples.path_of(request.home.records / f"{begun.run_id}.json"))
        if scorer.each is not None:
            kept_items.dump(scorer.each.numpy(), kept_items.path_of(request.home.records / f"{begun.run_id}.json"))
        deploy = _export(prepared, request.home.students / f"{begun.run_id}.safetensors")
    except UserError:
        raise
    except NotApplicable as reason:
        return as_record.without_result(facts, _needs(request.config), "not_applicable", "NotApplicable", str(reason))
    except SystemExit as error:  # of its code: the process and the runs beside it go on
        said = f"its code asked for the end of the process (exit code {error.code})"
        return as_record.without_result(facts, _needs(request.config), "failed", "SystemExit", said)
    except Exception as error:
        if no_room(error):
            raise
        _refuse_others_doing(request, error)
        return as_record.without_result(facts, _needs(request.config), *_cause(request.ranks, error))
    overhead = yield from _overhead(request, place, len(trained.stages))
    return as_record.with_result(
        facts,
        prepared,
        trained,
        metrics,
        taught,
        len(scorer.y),
        deploy,
        overhead,
        evaluated,
        elsewhere,
        scorer.classes,
        kept_items.digest(scorer.each.numpy()) if scorer.each is not None else None,
    )


def _facts(request: Request, begun: Begun) -> as_record.Facts:
    own = begun.identity or identity.of(request.config)
    return as_record.Facts(
        request.config, request.seed, request.device, request.device_class, begun.run_id, begun.created_at, own
    )


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
        raise Lost("a process of the run is gone or answers no more; the same command goes on from there") from error
    return _status(error), type(error).__name__, str(error) if isinstance(error, Diverged) else described(error)


def _refuse_others_doing(request: Request, error: Exception) -> None:
    """A failure that may be the doing of the runs beside this one is not recorded as this one's.

    Raises:
        Crowded: there was too little memory.
        Lost: the device takes no more work.
    """
    if request.common is None:
        return
    backend = backends.of(request.device)
    if not backend.answers(request.device):
        raise Lost(
            f"{backends.written(request.device)} takes no more work of this process, and which of its runs did that "
            "nobody can tell; nothing is recorded, and the same command goes on, without --seeds-together one by one"
        ) from error
    if _status(error) == "oom":
        raise Crowded from error


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
    fresh = accelerate.student(build_network(student.net, student.input, task.data).to(task.device), task.options)
    try:
        fresh.load_state_dict(net.state_dict())
    except RuntimeError:
        return False
    batch = task.wrap(task.rows(torch.arange(min(8, task.n_rows), device=task.device)))
    with evaluating(net), evaluating(fresh):
        if type(net) is not type(fresh):
            return False
        pairs = zip(net(batch).answered, fresh(batch).answered, strict=True)
        return all(torch.equal(one, other) for one, other in pairs)


def _overhead(request: Request, place: RunPlace, stages: int) -> Generator[Pause, bool, as_record.CellOverhead | None]:
    """The cell's overhead: what was measured of its steps in this mode or a better one, or measured now."""
    if request.overhead == "off" or request.ranks.several:
        return None
    better = ("full",) if request.overhead == "full" else ("full", "quick")
    record = earlier.measured(request, better)
    if record is None and not (yield Pause.MEASURING):
        return None
    if (record := record or earlier.measured(request, better)) is not None:  # or another run has done so meanwhile
        return as_record.CellOverhead.of(record)
    request.progress.say(f"measuring the overhead of {request.config.method.ref.name} ({request.overhead})")
    request.progress.pause()  # nothing is drawn beside a measurement
    try:
        found: Overhead = measure(effective_task(request.config), request.seed, place, request.overhead, stages)
    except MeasurementFailed as error:
        request.progress.say(f"{error}; the record is written without it")
        return None
    return as_record.CellOverhead(found.block, found.flops_per_step, found.deploy)
