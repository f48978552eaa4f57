"""Seeds that take turns in one process leave the records and weights that each leaves alone, whatever befalls one."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, fake_cuda
from filelock import FileLock
from said import Said
from sweeps import results, weights

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.devices.backends.cpu import Cpu
from kdbench.engine import teachers
from kdbench.engine.trainer import Trainer
from kdbench.methods.kd.adapter import KD
from kdbench.overhead.measure import Overhead
from kdbench.parallel.torchrun import TORCHRUN
from kdbench.records import files as records
from kdbench.records.files import Record, load
from kdbench.runs import evaluate, run
from kdbench.runs.evaluate import Command
from kdbench.runs.request import Request
from kdbench.runs.together import together
from kdbench.specs.config import run_config
from kdbench.specs.order import ConfigOrder

CPU = torch.device("cpu")
TASK = "digits/few-shot"
SEEDS = (0, 1)


def requests(
    home: Home, method: str = "kd", *overrides: str, seeds: Sequence[int] = SEEDS, **more: Any
) -> list[Request]:
    more = {"overhead": "off", "device": CPU} | more
    config = run_config(method, more.pop("task", TASK), ["smoke.epochs=4", *overrides], smoke=True)
    return [Request(config, seed, home=home, **more) for seed in seeds]


def in_turns(asked: Sequence[Request], at_once: int = len(SEEDS)) -> dict[int, Record | Exception]:
    """What became of each seed, in the order in which they ended."""
    return {request.seed: found for request, found in together(asked, at_once)}


def alone(asked: Sequence[Request]) -> None:
    for request in asked:
        run.run_seed(request)


def check_equal(home: Home, other: Home) -> None:
    assert results(home) == results(other)
    assert weights(home) == weights(other)
    assert [path for path in home.runs.iterdir() if path.is_dir()] == []


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Home, Home]:
    return Home(tmp_path / "turns"), Home(tmp_path / "alone")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """kd's seeds, one after the other."""
    home = Home(tmp_path_factory.mktemp("undisturbed"))
    alone(requests(home))
    return home


def copied(home: Home, other: Home, seed: int | None = None) -> None:
    """The teacher of a home in another, and one of its records."""
    shutil.copytree(home.teachers, other.teachers)
    for path in home.records.glob("*.json"):
        if (record := load(path)).seed == seed:
            shutil.copytree(home.students, other.students)
            other.records.mkdir(parents=True)
            records.dump(record, other.records)


def at_step(number: int, seed: int, do: Callable[[], Any]) -> Callable[..., Any]:
    """Losses of kd that do something at a step of a seed."""
    losses = KD.losses

    def disturbed(self: KD, batch: Any, at: Any) -> Any:
        made = do() if (self.task.seed, at.step) == (seed, number) else None
        terms = losses(self, batch, at)
        return terms if made is None else {name: term * made for name, term in terms.items()}

    return disturbed


def raising(error: BaseException) -> Callable[[], Any]:
    def do() -> Any:
        raise error

    return do


def test_records_and_weights_are_those_of_seeds_alone(homes, undisturbed, monkeypatch):
    home, _ = homes
    trained, asked = [], []
    steps, made = Trainer.steps, teachers._made

    def noted(self: Trainer) -> Any:
        trained.append((self.task.spec.pair.teachers == {}, self.task.seed))
        return steps(self)

    monkeypatch.setattr(Trainer, "steps", noted)
    monkeypatch.setattr(teachers, "_made", lambda *what: asked.append(what[1]) or made(*what))
    assert [found.status for found in in_turns(requests(home)).values()] == ["ok"] * len(SEEDS)
    check_equal(home, undisturbed)
    assert trained == [(True, 0), *((False, seed) for seed in SEEDS)], "one teacher, before the seeds"
    assert asked == ["image"], "it is scored once, too"


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        pytest.param("cgan_kd", (), marks=pytest.mark.slow),
        pytest.param("kd", ("engine.teacher_store=true",), marks=pytest.mark.slow),
        pytest.param("kd", ("engine.teacher_ahead=4",), marks=pytest.mark.slow),
        pytest.param("kd", ("engine.fold_teacher=true", "engine.precision=bf16"), marks=pytest.mark.slow),
        pytest.param("ffsd", (), marks=pytest.mark.slow),
        pytest.param("crd", (), marks=pytest.mark.slow),
    ],
)
def test_methods_with_stages_banks_and_options(method, overrides, homes):
    home, other = homes
    in_turns(requests(home, method, *overrides))
    alone(requests(other, method, *overrides))
    check_equal(home, other)


@pytest.mark.slow
def test_captured_steps_on_cuda(homes):
    torch.use_deterministic_algorithms(False)
    words = ("engine.fused=true", "engine.cuda_graphs=true")
    try:
        with fake_cuda():
            in_turns(requests(homes[0], "kd", *words, device=CUDA))
            alone(requests(homes[1], "kd", *words, device=CUDA))
    finally:
        torch.use_deterministic_algorithms(True)
    check_equal(*homes)


def test_what_befalls_a_seed_is_recorded_of_it_alone(homes, undisturbed, monkeypatch):
    """One diverges, one fails, one is recorded already, and two of four take turns."""
    home, _ = homes
    copied(undisturbed, home, seed=0)
    monkeypatch.setattr(KD, "losses", at_step(2, 2, lambda: float("nan")))
    monkeypatch.setattr(KD, "losses", at_step(3, 3, raising(RuntimeError("broken"))))
    said = Said()
    asked = [dataclasses.replace(one, progress=said) for one in requests(home, seeds=(0, 1, 2, 3))]
    found = in_turns(asked, at_once=2)
    assert {seed: record.status for seed, record in found.items()} == {0: "ok", 1: "ok", 2: "diverged", 3: "failed"}
    assert any("seed 0: from a record" in line for line in said.lines)
    there = results(home)
    assert {key: there[key] for key in results(undisturbed)} == results(undisturbed)


def test_an_interrupt_ends_all_and_loses_nothing(homes, undisturbed, monkeypatch):
    home, _ = homes
    copied(undisturbed, home)
    asked = requests(home, checkpoint_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(KD, "losses", at_step(4, 1, raising(KeyboardInterrupt())))
        with pytest.raises(KeyboardInterrupt):
            in_turns(asked)
    assert len(list(home.runs.glob("*/current.pt"))) == 2
    for one in asked:
        with FileLock(home.runs / f"{one.key}.lock", timeout=0):
            pass
    (log,) = [
        text for path in home.logs.glob("*/log.txt") if "stopped with the runs beside it" in (text := path.read_text())
    ]
    assert "seed 0: run" in log
    in_turns(requests(home))
    check_equal(home, undisturbed)


def test_a_seed_without_memory_beside_others_goes_on_alone(homes, undisturbed, monkeypatch):
    home, _ = homes
    copied(undisturbed, home)
    said = Said()
    asked = [dataclasses.replace(one, progress=said, checkpoint_seconds=0.0) for one in requests(home)]
    times = iter([torch.OutOfMemoryError("CUDA out of memory")])

    def full() -> None:
        if (error := next(times, None)) is not None:
            raise error

    monkeypatch.setattr(KD, "losses", at_step(3, 0, full))
    assert list(in_turns(asked)) == [1, 0]
    assert [line for line in said.lines if "goes on when they are done" in line]
    check_equal(home, undisturbed)


@pytest.mark.slow
def test_a_seed_that_has_no_memory_alone_either_says_so(homes, monkeypatch):
    monkeypatch.setattr(KD, "losses", at_step(3, 0, raising(MemoryError())))
    found = in_turns(requests(homes[0]))
    assert {seed: record.status for seed, record in found.items()} == {1: "ok", 0: "oom"}


def test_of_a_device_that_is_gone_no_seed_is_blamed(homes, undisturbed, monkeypatch):
    home, _ = homes
    copied(undisturbed, home)
    monkeypatch.setattr(KD, "losses", at_step(3, 1, raising(RuntimeError("an illegal memory access"))))
    monkeypatch.setattr(Cpu, "answers", lambda self, device: False)
    with pytest.raises(run.Lost, match=r"cpu takes no more work .* one by one"):
        in_turns(requests(home))
    assert not home.records.exists()


def test_a_seed_that_another_process_does_is_left_to_it(homes, undisturbed):
    home, _ = homes
    copied(undisturbed, home)
    asked = requests(home)
    home.runs.mkdir(parents=True)
    with FileLock(home.runs / f"{asked[0].key}.lock"):
        found = in_turns(asked)
    assert isinstance(found[0], run.Busy)
    assert found[1].status == "ok"


def test_no_further_seed_begins_where_the_method_does_not_apply(homes):
    made = evaluate._in_turns(requests(homes[0], task="digits/angle"), 2)
    assert [(record.seed, record.status) for record in made] == [(0, "not_applicable")]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., dict[str, Any]]) -> list[tuple[int, int, int]]:
    """What is measured, by seed, with records written and trainers at work by then; a measurement takes no time."""
    seen: list[tuple[int, int, int]] = []
    block = make_record()["overhead"]
    going: set[int] = set()
    steps = Trainer.steps

    def noted(self: Trainer) -> Any:
        going.add(id(self))
        try:
            yield from steps(self)
        finally:
            going.discard(id(self))

    def measure(config: Any, seed: int, place: Any, mode: str, stages: int) -> Overhead:
        seen.append((seed, len(list(place.home.records.glob("*.json"))), len(going)))
        own = {key: value for key, value in block.items() if key not in ("measured_by", "dtype")}
        return Overhead(own | {"mode": mode, "device": "cpu"}, {}, dict.fromkeys(
            ("gflops", "latency_ms_b1", "latency_ms_b128", "size_mib")
        ))  # fmt: skip

    monkeypatch.setattr(Trainer, "steps", noted)
    monkeypatch.setattr(run, "measure", measure)
    return seen


def test_a_cost_is_measured_once_when_all_others_are_done(homes, undisturbed, measured, monkeypatch):
    """By the first seed that comes so far."""
    home, _ = homes
    copied(undisturbed, home)
    with monkeypatch.context() as patch:
        patch.setattr(KD, "losses", at_step(3, 0, raising(RuntimeError("broken"))))
        found = in_turns(requests(home, overhead="quick", seeds=(0, 1, 2)), at_once=3)
    assert list(found) == [0, 2, 1]
    assert measured == [(1, 2, 0)]
    assert [found[seed].measured is not None for seed in (0, 1, 2)] == [False, True, False]
    again = in_turns(requests(home, overhead="quick", seeds=(4,)))
    assert measured == [(1, 2, 0)], "what is measured serves all seeds of the cell"
    assert again[4].measured == found[1].measured


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((0, ()), "at least one"),
        ((2, ("tensorboard", "wandb")), "--track wandb follows one run of a process"),
        ((2, (), 2), "start without torchrun"),
    ],
)
def test_what_does_not_go_together_is_refused(asked, said):
    with pytest.raises(UserError, match=said):
        evaluate.require_together(*asked)
    evaluate.require_together(1, *asked[1:])


def test_a_launch_of_several_processes_is_refused_before_it_meets(homes, monkeypatch):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, TORCHRUN: "x"}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match="start without torchrun"):
        evaluate.evaluate_seeds(
            Command(ConfigOrder(method="kd", task=TASK), "cpu", homes[0].root),
            seeds=SEEDS, overhead="off", force=False, announce=lambda record: None, seeds_together=2,
        )  # fmt: skip
    assert not homes[0].root.exists()


CLI = [
    sys.executable, "-m", "kdbench", "evaluate", "-m", "kd", "-t", TASK, "--seeds", "0-2", "--overhead", "off",
    "--device", "cpu", "train.epochs=6",
]  # fmt: skip


@pytest.mark.slow
def test_kill_9_loses_nothing_and_changes_no_bit(tmp_path):
    """Killed as soon as there are checkpoints of all seeds, then as soon as there is a record."""
    calm, stormy = Home(tmp_path / "calm"), Home(tmp_path / "stormy")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "KDBENCH_CHECKPOINT_SECONDS": "0"}
    subprocess.run([*CLI, "--out", str(calm.root)], env=env, check=True, capture_output=True, timeout=1500)
    words = [*CLI, "--out", str(stormy.root), "--seeds-together", "3"]
    for pattern, count in (("runs/*/current.pt", 3), ("records/*.json", 1)):
        process = subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(stormy.root.glob(pattern))) < count:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(words, env=env, check=True, capture_output=True, timeout=1500)
    assert len(results(stormy)) == 3
    check_equal(stormy, calm)
