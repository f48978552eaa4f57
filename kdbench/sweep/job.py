"""What a launcher's worker does with one job: take a slot, have its runs done, say how each ended. Needs no torch.

A job's order is a file the parent wrote (:mod:`kdbench.sweep.order`).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from kdbench.base.files import write_atomic
from kdbench.base.parent import follow
from kdbench.sweep.order import Answer, GivenUp, JobOrder, TrainOrder
from kdbench.sweep.runner import Died, Runner, TimedOut

SLOT_PAUSE_S = 0.1
_last_slot = 0
_followed = False
_runner: Runner | None = None


def order_file(folder: Path, number: int) -> Path:
    """The order of a job."""
    return folder / f"{number}.order.json"


def state_file(folder: Path, number: int | str) -> Path:
    """What a job writes when a run begins and as it goes on (:class:`kdbench.sweep.state.State`)."""
    return folder / f"{number}.state.json"


def end_file(folder: Path, number: int) -> Path:
    """What a job writes when a run is done: its outcome, and a line for people."""
    return folder / f"{number}.end.json"


def read(path: Path) -> dict[str, Any] | None:
    """What a job has written to one of these; None where nothing is there yet, or not all of it."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # a part of a file is no JSON, or not even text
        return None
    return found if isinstance(found, dict) else None


def ended(folder: Path, number: int) -> Answer | None:
    """How a run ended, None as long as it has not."""
    found = read(end_file(folder, number))
    return None if found is None else Answer.model_validate(found)


def job(config: DictConfig) -> str:
    """One job of a sweep, in whatever process the launcher made for it.

    Args:
        config: ``folder`` of the sweep and ``job``, the number of its first run; the others have those that follow.

    Returns:
        The outcome of each run, as in :class:`Answer`.
    """
    folder, number = Path(config.folder), int(config.job)
    order = JobOrder.read(order_file(folder, number).read_text())
    _stay_with(order.parent)
    try:
        with _slot(folder, order.slots) as slot:
            device = order.devices[slot % len(order.devices)]
            numbers = {seed: number + place for place, seed in enumerate(order.run.seeds)}
            states = tuple(state_file(folder, own) for own in numbers.values())
            train = TrainOrder(run=order.run, device=device, states=states)
            outcomes = []
            for answer in _done(order, train, folder):
                write_atomic(end_file(folder, numbers[answer.seed]), answer.text())
                outcomes.append(answer.outcome)
    except BaseException:
        close()
        raise
    return " ".join(outcomes)


def close() -> None:
    """Ends the process that trains, if there is one."""
    global _runner
    if _runner is not None:
        _runner.kill()
        _runner = None


def _stay_with(parent: int) -> None:
    """Ends this worker when the sweep's own process is gone, if that is its parent.

    Joblib's workers would wait for more jobs for ever; submitit's have parents of their own, made to live on.
    """
    global _followed
    if not _followed and os.getppid() == parent:
        _followed = True
        follow(parent, lambda: os._exit(1))


def _done(order: JobOrder, train: TrainOrder, folder: Path) -> Iterator[Answer]:
    """What became of each run. One that has to be ended is recorded as such, of several none: nobody can tell whose
    doing it was, and each goes on alone."""
    seeds = list(order.run.seeds)
    several = len(seeds) > 1
    limit = None if order.timeout is None else order.timeout * len(seeds)
    failed = False
    try:
        for answer in _ask(order, train, folder, limit):
            seeds.remove(answer.seed)
            failed |= answer.status not in ("ok", "not_applicable")
            yield answer
    except TimedOut:
        why = f"stopped after {limit:g} s, the sweep's limit for {'such runs together' if several else 'a run'}"
        given_up = GivenUp(status="timeout", kind="TimedOut", message=why)
    except Died as death:
        why = str(death)
        given_up = GivenUp(status="failed", kind="Died", message=f"{death}, twice: out of memory, or by hand")
        if not (several or order.last):
            yield Answer(seed=seeds[0], outcome="died", line=why)
            return
    else:
        if failed:
            close()  # what a failure leaves in a process shall not meet the next run
        return
    if several:
        yield from [Answer(seed=seed, outcome="died", line=f"{why}; it goes on alone") for seed in seeds]
    else:
        yield from _ask(order, train.model_copy(update={"given_up": given_up}), folder, None)


def _ask(order: JobOrder, train: TrainOrder, folder: Path, timeout: float | None) -> Iterator[Answer]:
    global _runner
    threads = _threads(order.share, order.most_threads)
    if _runner is not None and not _runner.serves(train.device, threads):
        close()
    if _runner is None:
        _runner = Runner(train.device, threads, order.visible, folder / f"runner-{os.getpid()}.log")
    try:
        yield from _runner.ask(train, timeout)
    except (TimedOut, Died):
        close()
        raise


def _threads(jobs: int, most: int | None) -> int:
    """This machine's cores by the jobs that share them, no more than the user allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // jobs)
    return min(share, most or share)


@contextmanager
def _slot(folder: Path, slots: int) -> Iterator[int]:
    """One of the places where a run may take place now; a killed job frees its place. With 0 slots there is no limit.

    A worker goes back to the slot it had, and so keeps its device.
    """
    global _last_slot
    if not slots:
        yield 0
        return
    while True:
        for slot in (_last_slot % slots, *range(slots)):
            lock = FileLock(folder / f"slot-{slot}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            try:
                _last_slot = slot
                yield slot
                return
            finally:
                lock.release()
        time.sleep(SLOT_PAUSE_S)
