"""Sweeps whose jobs are of several seeds that take turns: what a worker makes of one, and the process that trains."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock

from kdbench.base.files import write_atomic
from kdbench.base.home import Home
from kdbench.runs import run as engine
from kdbench.runs.request import Request
from kdbench.specs.config import run_config
from kdbench.specs.order import ConfigOrder
from kdbench.sweep import job, runner
from kdbench.sweep import process as processes
from kdbench.sweep.order import Answer, GivenUp, JobOrder, RunOrder, TrainOrder
from kdbench.sweep.runner import Died, TimedOut

TASK = "digits/few-shot"


def ordered(home: Path, seeds: tuple[int, ...], method: str = "kd", task: str = TASK) -> RunOrder:
    config = ConfigOrder(method=method, task=task, smoke=True)
    return RunOrder(config=config, seeds=seeds, overhead="off", retry=False, home=home, data=None)


# what a worker does with several seeds


class Process:
    """In the place of the process that trains: answers each order as a test says.

    Attributes:
        orders: with the seconds given for each.
        ended: how often it was.
    """

    def __init__(self, *answers: list[Any]) -> None:
        self.answers = list(answers)
        self.orders: list[tuple[TrainOrder, float | None]] = []
        self.ended = 0

    def serves(self, device: str, threads: int) -> bool:
        return True

    def ask(self, order: TrainOrder, timeout: float | None) -> Iterator[Answer]:
        self.orders.append((order, timeout))
        for answer in self.answers.pop(0):
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def kill(self) -> None:
        self.ended += 1


def told(seed: int, status: str = "ok") -> Answer:
    return Answer(seed=seed, outcome="recorded", status=status, line=f"seed {seed}: {status}")


def worked(tmp_path, monkeypatch, process: Process, seeds: tuple[int, ...], **more) -> list[Answer]:
    """How the runs of one job ended, by its files."""
    monkeypatch.setattr(job, "_runner", process)
    monkeypatch.setattr(job, "Runner", lambda *what: process)
    monkeypatch.setattr(job, "_stay_with", lambda parent: None)
    run = ordered(tmp_path, seeds)
    order = {"devices": ("cpu",), "slots": 0, "share": 1, "most_threads": 1, "visible": {}, "parent": 0, "last": False}
    write_atomic(job.order_file(tmp_path, 7), JobOrder(run=run, **({"timeout": None} | order | more)).text())
    job.job(SimpleNamespace(folder=str(tmp_path), job=7))
    ends = [job.ended(tmp_path, 7 + place) for place in range(len(seeds))]
    assert None not in ends
    return [end for end in ends if end is not None]


def test_each_seed_of_a_job_has_its_own_end(tmp_path, monkeypatch):
    process = Process([told(5), told(3, "diverged")])
    assert worked(tmp_path, monkeypatch, process, (3, 5), timeout=4.0) == [told(3, "diverged"), told(5)]
    ((order, limit),) = process.orders
    assert limit == 8.0
    assert [path.name for path in order.states] == ["7.state.json", "8.state.json"]
    assert process.ended == 1, "what a failure leaves in a process shall not meet the next run"


@pytest.mark.parametrize(("end", "why"), [(TimedOut(), "stopped after 12 s"), (Died("killed by signal 9"), "signal 9")])
def test_of_several_seeds_none_is_recorded_as_ended(tmp_path, monkeypatch, end, why):
    first, second, third = worked(tmp_path, monkeypatch, Process([told(1), end]), (0, 1, 2), timeout=4.0, last=True)
    assert second == told(1)
    assert [first.outcome, third.outcome] == ["died", "died"]
    assert why in first.line
    assert "it goes on alone" in first.line


def test_one_seed_that_takes_too_long_is_recorded(tmp_path, monkeypatch):
    process = Process([TimedOut()], [told(3, "timeout")])
    assert worked(tmp_path, monkeypatch, process, (3,), timeout=4.0) == [told(3, "timeout")]
    given_up = process.orders[1][0].given_up
    assert given_up is not None
    assert given_up.message == "stopped after 4 s, the sweep's limit for a run"


def test_answers_that_come_at_once_are_read_one_by_one(monkeypatch, tmp_path):
    code = "import sys; print('ready'); line = input(); print('\\n'.join(sys.argv[1:]), flush=True); input()"
    wanted = [told(0), told(1)]
    started = subprocess.Popen
    monkeypatch.setattr(
        runner.subprocess, "Popen",
        lambda words, **more: started([sys.executable, "-c", code, *(one.text() for one in wanted)], **more),
    )  # fmt: skip
    process = runner.Runner("cpu", 1, {}, tmp_path / "log")
    run = RunOrder(
        config=ConfigOrder(method="kd", task=TASK), seeds=(0, 1), overhead="off", retry=False, home=tmp_path, data=None
    )
    try:
        assert list(process.ask(TrainOrder(run=run, device="cpu", states=(tmp_path, tmp_path)), 60.0)) == wanted
    finally:
        process.kill()


# the process that trains


def trained(home: Home, tmp_path: Path, method: str = "plain", task: str = TASK, given_up=None) -> list[Answer]:
    run = ordered(home.root, (0, 1), method, task)
    states = (tmp_path / "0", tmp_path / "1")
    found = list(processes._answers(TrainOrder(run=run, device="cpu", states=states, given_up=given_up)))
    assert all(job.read(state) is not None for state in states)
    return found


def test_the_process_answers_for_each_seed(home, tmp_path):
    home.runs.mkdir(parents=True)
    busy = Request(run_config("plain", TASK, smoke=True), 0, torch.device("cpu"), home)
    with FileLock(home.runs / f"{busy.key}.lock"):
        found = {answer.seed: answer for answer in trained(home, tmp_path)}
    assert (found[0].outcome, found[1].outcome, found[1].status) == ("busy", "recorded", "ok")
    assert [answer.status for answer in trained(home, tmp_path)] == ["ok", "ok"]
    gone = GivenUp(status="timeout", kind="TimedOut", message="too late")
    assert [answer.status for answer in trained(home, tmp_path, given_up=gone)] == ["ok", "ok"]


def test_one_seed_answers_for_all_that_a_method_does_not_apply_to(home, tmp_path):
    found = trained(home, tmp_path, "kd", "digits/angle")
    assert sorted((answer.seed, answer.status) for answer in found) == [(0, "not_applicable"), (1, "not_applicable")]
    assert len(list(home.records.glob("*.json"))) == 1


def test_a_device_that_is_gone_is_no_refusal(home, tmp_path, monkeypatch):
    def lost(*what):
        raise engine.Lost("cpu takes no more work of this process")
        yield

    monkeypatch.setattr("kdbench.runs.together.together", lost)
    assert [(answer.seed, answer.outcome) for answer in trained(home, tmp_path)] == [(0, "died"), (1, "died")]
