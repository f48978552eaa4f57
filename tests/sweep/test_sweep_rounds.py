"""Sweeps: rounds, waiting, orders, slots and records of killed runs, without a launcher."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from joblib import Parallel, delayed
from rich.console import Console

from kdbench.base.errors import UserError
from kdbench.base.files import write_atomic
from kdbench.base.home import Home
from kdbench.records.files import load
from kdbench.runs import earlier
from kdbench.runs import run as engine
from kdbench.runs.request import Request
from kdbench.specs.config import run_config
from kdbench.sweep import devices, job, launch, names, rounds
from kdbench.sweep import progress as watching
from kdbench.sweep.order import JobOrder
from kdbench.sweep.plan import Asked, PlannedCell, Run
from kdbench.sweep.progress import SweepProgress
from kdbench.sweep.rounds import Sweep

CPU = "cpu/fp32/x1"
TASK = "digits/few-shot"


def asked(home: Home, methods: str, tasks: str = TASK, **more) -> Asked:
    more.setdefault("seeds", (0, 1, 2))
    return Asked(tuple(names.method_names(methods)), tuple(names.task_names(tasks)), home, **more)


def sweep(given: Asked, jobs: int = 2, launcher: str = "joblib") -> Sweep:
    place = devices.Where(("cpu",), CPU.__eq__, jobs, launcher=launcher)
    return Sweep(given, place, SweepProgress(None))


# rounds


@pytest.fixture
def engine_free(monkeypatch, recorded):
    """A launcher whose jobs only write records; ``fate`` says what becomes of a run on each attempt."""

    def install(fate) -> list[list[str]]:
        launched: list[list[str]] = []
        attempts: Counter[str] = Counter()

        def launching(name, chosen, folder, numbers) -> None:
            lost = None
            launched.append([])
            for number in numbers:
                order = JobOrder.read(job.order_file(folder, number).read_text())
                method, seeds = order.run.config.method, order.run.seeds
                launched[-1].append(f"{method} {'+'.join(map(str, seeds))}")
                for own, seed in enumerate(seeds, number):
                    label = f"{method} {seed}"
                    attempts[label] += 1
                    outcome = fate(label, attempts[label], order)
                    state = json.dumps({"key": "0", "device": "cpu", "since": 0})
                    write_atomic(job.state_file(folder, own), state)
                    if outcome == "worker killed":
                        lost = launch.LaunchFailed("TerminatedWorkerError: a worker was killed")
                        break
                    if outcome in ("ok", "failed"):
                        recorded(method, seed, status=outcome)
                    end = {"outcome": "recorded" if outcome in ("ok", "failed") else outcome, "line": outcome}
                    write_atomic(job.end_file(folder, own), json.dumps(end | {"seed": seed}))
            if lost is not None:
                raise lost

        monkeypatch.setattr(launch, "launch", launching)
        monkeypatch.setattr(watching, "LOOK_S", 0.01)
        return launched

    return install


def test_what_a_killed_worker_lost_is_launched_again(home, engine_free):
    launched = engine_free(lambda label, attempt, order: "worker killed" if label == "kd 1" and attempt < 3 else "ok")
    outcome = sweep(asked(home, "kd")).run()
    assert launched == [["kd 0", "kd 1", "kd 2"], ["kd 1"], ["kd 1"]]
    assert outcome.statuses == {"ok": 3}
    assert not outcome.failed
    assert outcome.logs is None
    assert list((home.root / "sweeps").iterdir()) == []


def test_idle_processes_are_ended_before_a_cost_is_measured(home, engine_free, monkeypatch):
    launched = engine_free(lambda label, attempt, order: "ok")
    ends: list[int] = []
    joblib = replace(launch.LAUNCHERS["joblib"], end=lambda: ends.append(len(launched)))
    monkeypatch.setitem(launch.LAUNCHERS, "joblib", joblib)
    sweep(asked(home, "plain", overhead="quick")).run()
    assert launched == [["plain 1", "plain 2"], ["plain 0"]], "the one that measures comes last"
    assert ends == [1], "once, behind those that ran side by side"


@pytest.mark.slow
def test_joblibs_workers_end_when_they_are_told():
    before = set(Parallel(n_jobs=2)(delayed(os.getpid)() for _ in range(8)))
    end = launch.LAUNCHERS["joblib"].end
    assert end is not None
    end()
    assert not [pid for pid in before if Path(f"/proc/{pid}").exists()]


def test_after_four_rounds_a_sweep_gives_up(home, engine_free):
    launched = engine_free(lambda label, attempt, order: "worker killed" if label == "kd 1" else "ok")
    outcome = sweep(asked(home, "kd")).run()
    assert len(launched) == rounds.ROUNDS
    assert outcome.left == [f"kd on {TASK}, seed 1"]
    assert outcome.failed
    assert outcome.logs.is_dir()


def test_failures_are_counted_and_not_repeated(home, engine_free):
    launched = engine_free(lambda label, attempt, order: {"kd 0": "failed", "kd 1": "refused"}.get(label, "ok"))
    outcome = sweep(asked(home, "kd")).run()
    assert len(launched) == 1
    assert outcome.statuses == {"ok": 1, "failed": 1}
    assert outcome.refused == {f"kd on {TASK}, seed 1": "refused"}
    assert outcome.failed
    again = sweep(asked(home, "kd", retry=True)).run()
    assert launched[1] == ["kd 0", "kd 1"]  # the failed one and the refused one, each once
    assert again.statuses == {"failed": 1}


def test_a_failure_that_another_sweep_records_meanwhile_counts(home, engine_free, recorded):
    launched = engine_free(lambda label, attempt, order: "ok")
    given = sweep(asked(home, "kd"))
    given.folder.mkdir(parents=True)
    planned = given.first()
    recorded("kd", 1, status="timeout")
    given._cells(planned)
    assert launched == [["kd 0", "kd 2"]]
    assert given.outcome.statuses == {"ok": 2, "timeout": 1}


def test_a_run_whose_process_dies_gets_one_more_attempt(home, engine_free):
    last = {}

    def fate(label, attempt, order) -> str:
        last[label, attempt] = order.last
        return "failed" if order.last else "died" if label == "kd 1" else "ok"

    engine_free(fate)
    outcome = sweep(asked(home, "kd")).run()
    assert last == {("kd 0", 1): False, ("kd 1", 1): False, ("kd 2", 1): False, ("kd 1", 2): True}
    assert outcome.statuses == {"ok": 2, "failed": 1}


def test_seeds_that_take_turns_are_one_job(home, engine_free):
    orders = []
    launched = engine_free(lambda label, attempt, order: orders.append(order) or "ok")
    outcome = sweep(asked(home, "plain,kd", seeds=tuple(range(5)), together=3), jobs=1, launcher="basic").run()
    assert launched == [["plain 0+1+2", "kd 0+1+2", "plain 3+4", "kd 3+4"]]
    assert outcome.statuses == {"ok": 10}
    assert {order.timeout for order in orders} == {None}


def test_what_one_of_several_seeds_may_have_ended_goes_on_alone(home, engine_free):
    """A worker that was killed, a process that died: nobody is blamed for it who did not do it alone."""
    last = {}

    def fate(label, attempt, order) -> str:
        last[label, attempt] = order.last
        if label == "kd 1":
            return "worker killed" if attempt == 1 else "ok"
        if label == "kd 4":
            return "died" if attempt < 3 else "failed"
        return "ok"

    launched = engine_free(fate)
    outcome = sweep(asked(home, "kd", seeds=tuple(range(5)), together=3)).run()
    assert launched == [["kd 0+1+2", "kd 3+4"], ["kd 1", "kd 2", "kd 4"], ["kd 4"]]
    assert outcome.statuses == {"ok": 4, "failed": 1}
    assert (last["kd 4", 2], last["kd 4", 3]) == (False, True), "beside others is no attempt of its own"


def test_the_limit_of_a_run_is_each_runs_of_several(home, engine_free, monkeypatch):
    orders, limits = [], []
    engine_free(lambda label, attempt, order: orders.append(order) or "ok")
    options = launch.options
    monkeypatch.setattr(launch, "options", lambda *what: limits.append(what[2]) or options(*what))
    place = devices.Where(("cpu",), CPU.__eq__, 2, launcher="submitit_slurm", timeout=9.0)
    given = asked(home, "plain", seeds=(0, 1, 2), together=2)
    Sweep(given, place, SweepProgress(None)).run()
    assert [order.timeout for order in orders] == [9.0] * 3
    assert limits == [18.0]


def test_a_run_of_another_process_is_waited_for(home, engine_free, recorded):
    """Two sweeps in one folder: what one does, the other neither repeats nor counts as lost."""
    held = threading.Event()

    def other() -> None:
        with FileLock(home.runs / "0.lock"):
            held.set()
            threading.Event().wait(1.0)
            recorded("kd", 1)

    def fate(label, attempt, order) -> str:
        if label != "kd 1":
            return "ok"
        home.runs.mkdir(parents=True)
        threading.Thread(target=other).start()
        held.wait()
        return "busy"

    launched = engine_free(fate)
    outcome = sweep(asked(home, "kd")).run()
    assert outcome.statuses == {"ok": 3}
    assert len(launched) == 1


def test_orders_carry_what_a_worker_must_know(home, engine_free, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    seen = []
    engine_free(lambda label, attempt, order: seen.append(order) or "ok")
    sweep(asked(home, "kd", overhead="quick", data=home.root.parent)).run()
    assert [(order.run.seeds, order.run.overhead, order.slots, order.share) for order in seen] == [
        ((1,), "off", 2, 2), ((2,), "off", 2, 2), ((0,), "quick", 1, 1),
    ]  # fmt: skip
    assert {(order.most_threads, order.run.data) for order in seen} == {(3, home.root.parent)}
    assert all(order.visible == {"CUDA_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": None} for order in seen)
    place = devices.Where(("cuda",), CPU.__eq__, 8, False, "submitit_slurm", timeout=9.0)
    given = Sweep(asked(home, "plain"), place, SweepProgress(None))
    seen.clear()
    given.run()
    assert [(order.slots, order.share, order.visible, order.timeout) for order in seen] == 3 * [(0, 1, {}, 9)]


# workers


def test_threads_are_the_cores_by_the_jobs(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    assert job._threads(3, None) == 2
    assert job._threads(16, None) == 1
    assert job._threads(1, 4) == 4


def test_slots_are_held_by_one_job_each(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_last_slot", 1)
    with job._slot(tmp_path, 2) as first, job._slot(tmp_path, 2) as second:
        assert (first, second) == (1, 0)  # the first goes back to the slot it had
        freed = []

        def third() -> None:
            with job._slot(tmp_path, 2) as slot:
                freed.append(slot)

        thread = threading.Thread(target=third)
        thread.start()
        thread.join(0.3)
        assert not freed
    thread.join(5)
    assert freed
    with job._slot(tmp_path, 0) as none, job._slot(tmp_path, 0):
        assert none == 0


def test_where_knows_whose_records_count():
    slurm = devices.find("submitit_slurm", "cuda", None, None)
    assert (slurm.devices, slurm.here) == (("cuda",), False)
    assert slurm.belongs("cuda:NVIDIA-H100/fp32/x1")
    assert not slurm.belongs(CPU)
    assert slurm.alone == slurm.jobs > 1
    here = devices.find("joblib", "cpu", None, 3)
    assert (here.devices, here.jobs, here.alone) == (("cpu",), 3, 1)
    assert here.belongs(CPU)


def test_all_cards_of_a_machine_are_shared_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    every = devices.find("joblib", "auto", None, 2)
    assert every.devices == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert every.jobs == 8
    assert every.belongs("cuda:NVIDIA-H100/fp32/x1")
    assert devices.find("joblib", "cuda:2", None, None).devices == ("cuda:2",)


def test_one_run_at_a_time_takes_one_card_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    one = devices.find("basic", "auto", None, None)
    assert (one.devices, one.jobs) == (("cuda:0",), 1)
    assert "--launcher basic takes cuda:0 and leaves cuda:1 idle" in capsys.readouterr().err
    with pytest.raises(UserError, match="basic does one run at a time, not 2"):
        devices.find("basic", "auto", 2, None)


def test_a_launcher_is_asked_whether_it_takes_its_options():
    with pytest.raises(UserError, match=r"--launcher 'jobli' is not known \(did you mean 'joblib'"):
        devices.find("jobli", "cpu", None, None)
    with pytest.raises(UserError, match="joblib has no such option"):
        devices.find("joblib", "cpu", None, None, launcher_options=["prefr=threads"])


def test_unlike_cards_of_a_machine_share_no_sweep(monkeypatch, capsys):
    names = ["NVIDIA H100", "NVIDIA T400", "NVIDIA H100"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index])
    found = devices.find("joblib", "cuda", None, None)
    assert (found.devices, found.jobs) == (("cuda:0", "cuda:2"), 2)
    assert not found.belongs("cuda:NVIDIA-T400/fp32/x1")
    said = "--device cuda takes cuda:0, cuda:2 and leaves out cuda:1: another model"
    assert said in capsys.readouterr().err
    assert devices.find("joblib", "cuda:1", None, None).belongs("cuda:NVIDIA-T400/fp32/x1")


# records of runs that were ended from outside


def request(home: Home, method: str = "plain", task: str = TASK, seed: int = 0, **more) -> Request:
    config = run_config(method, task, smoke=True)
    return Request(config, seed, torch.device("cpu"), home, overhead="off", **more)


def test_a_run_that_was_ended_is_a_record_and_may_be_tried_again(home):
    ended = engine.give_up(request(home), "timeout", "TimedOut", "stopped after 3 s")
    assert ended == load(home.records / f"{ended.run_id}.json")
    assert (ended.status, ended.error.message, ended.metrics) == ("timeout", "stopped after 3 s", None)
    assert engine.run_seed(request(home, retry=False)) == ended
    again = engine.run_seed(request(home))
    assert again.status == "ok"
    assert again.run_id != ended.run_id
    assert engine.give_up(request(home), "timeout", "TimedOut", "too late") == again


def test_a_run_under_way_cannot_be_given_up(home):
    home.runs.mkdir(parents=True)
    with FileLock(home.runs / f"{request(home).key}.lock"), pytest.raises(engine.Busy, match="another process"):
        engine.give_up(request(home), "timeout", "TimedOut", "stopped")
    assert not home.records.exists()


def test_other_seeds_learn_that_a_method_does_not_apply(home):
    assert earlier.not_applicable(request(home, "kd", "digits/angle", 1)) is None
    said = engine.run_seed(request(home, "kd", "digits/angle"))
    assert earlier.not_applicable(request(home, "kd", "digits/angle", 1)) == said
    assert earlier.not_applicable(request(home, "plain", "digits/angle")) is None


@pytest.mark.parametrize("content", ["", "{", '{"outcome": "reco', "\ufffd", "[1]", "null", "3"])
def test_a_file_that_is_not_all_there_yet_is_read_as_if_it_were_not(tmp_path, content):
    path = tmp_path / "0.end.json"
    assert job.read(path) is None
    path.write_text(content)
    assert job.read(path) is None
    path.write_bytes(b"\xff\xfe{")
    assert job.read(path) is None
    path.write_text('{"outcome": "recorded"}')
    assert job.read(path) == {"outcome": "recorded"}


def test_the_watcher_waits_for_the_rest_of_a_file(tmp_path, monkeypatch, capsys):
    """It goes on, and tells of the run as soon as its file is whole."""
    monkeypatch.setattr(watching, "LOOK_S", 0.01)
    died = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    run = Run(PlannedCell("kd", TASK), 0)
    progress = SweepProgress(Console(stderr=True))
    with progress.following(tmp_path, {0: run}):
        whole = json.dumps({"seed": 0, "outcome": "recorded", "line": "kd 0: 81.00"})
        for cut in (0, 5, len(whole) - 1):
            job.end_file(tmp_path, 0).write_text(whole[:cut])
            time.sleep(0.05)
        job.end_file(tmp_path, 0).write_text(whole)
    assert died == []
    assert capsys.readouterr().err.count("kd 0: 81.00") == 1
