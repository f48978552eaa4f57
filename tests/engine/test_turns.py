"""Trainers that take turns, a step each, train as each does alone: the same bits, and no launch or wait more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy_methods as toys
from fake_cuda import CUDA, FakeCuda, fake_cuda
from fake_cuda.graphs import FakeGraphs
from killed_run import toy_task
from tinies import tiny_of
from torch import Tensor
from waiting import EXCUSED

from kdbench.checks.replayed import CpuGraphs, on_a_cpu
from kdbench.checks.tiny import Tiny
from kdbench.devices import backends
from kdbench.engine import trainer as trainer_module
from kdbench.engine.assemble import Prepared
from kdbench.engine.stage import StageRun
from kdbench.engine.trainer import Trainer
from kdbench.specs.options import EAGER, EngineOptions

CPU = torch.device("cpu")
AHEAD = EngineOptions(teacher_ahead=3)
GRAPHS = EngineOptions(fused=True, cuda_graphs=True)
Made = tuple[Prepared, Trainer]
Task = tuple[Tiny, int]
"""A tiny task and the seed of a run of it."""


def toy(cls: type, epochs: int = 2, options: EngineOptions = EAGER) -> Tiny:
    found = toy_task(toys.toy_ref(cls), "classification")
    train = found.config.task.train.model_copy(update={"epochs": epochs})
    task = found.config.task.model_copy(update={"train": train})
    return replace(found, config=replace(found.config, task=task, engine=options))


def made(task: Task, folder: Path, device: torch.device = CPU) -> Made:
    prepared = task[0].prepare(folder, task[1], device=device)
    return prepared, Trainer(prepared.method, prepared.task, folder / "run")


def in_turns(tasks: Sequence[Task], folder: Path, device: torch.device = CPU) -> list[Made]:
    """Trained a step in turn, whatever their lengths."""
    found: list[Made] = []
    going: deque[tuple[Any, Iterator[None]]] = deque()
    for number, task in enumerate(tasks):
        found.append(made(task, folder / str(number), device))
        going.append((backends.of(device).lane(device), found[-1][1].steps()))
    while going:
        lane, steps = going.popleft()
        with lane.turn():
            over = next(steps, "over") == "over"
        if not over:
            going.append((lane, steps))
    return found


def alone(tasks: Sequence[Task], folder: Path, device: torch.device = CPU) -> list[Made]:
    found = []
    for number, task in enumerate(tasks):
        found.append(made(task, folder / str(number), device))
        torch.manual_seed(17)  # whatever a process did before
        found[-1][1].run()
    return found


def left(runs: Sequence[Made]) -> list[tuple[list[float], list[Any], dict[str, Tensor]]]:
    """First losses, curve without its clock, and state, of each run."""
    return [
        (
            trainer.done.digest,
            [{key: value for key, value in point.items() if key != "elapsed_s"} for point in trainer.done.curve],
            {name: value.clone() for name, value in prepared.method.state_dict().items()},
        )
        for prepared, trainer in runs
    ]


def check_equal(some: Sequence[Made], others: Sequence[Made]) -> None:
    for (losses, curve, state), (own, points, ours) in zip(left(some), left(others), strict=True):
        assert losses == own
        assert curve == points
        assert state.keys() == ours.keys()
        assert all(torch.equal(state[name], ours[name]) for name in state)


SETS: dict[str, Callable[[], list[Task]]] = {
    "stages, modules between them and dropout": lambda: [(toy(toys.Adversary), seed) for seed in (0, 1)],
    "stages of uneven length": lambda: [(toy(toys.Adversary, 1), 0), (toy(toys.Generated, 3), 1), (toy(toys.Bank), 1)],
    "several students, views, a trained teacher": lambda: [
        (toy(toys.Mutual), 0), (toy(toys.RawViews), 0), (toy(toys.TrainedTeacher), 2),
    ],
    "teachers asked ahead": lambda: [(tiny_of("kd", AHEAD), 0), (toy(toys.Bank, 3, AHEAD), 1)],
    "methods": lambda: [(tiny_of(name), seed) for seed, name in enumerate(("cgan_kd", "crd", "ffsd", "rdrop", "ccd"))],
}  # fmt: skip


@pytest.mark.parametrize("which", [pytest.param(n, marks=[pytest.mark.slow] * (n == "methods")) for n in SETS])
def test_turns_change_no_bit(which, tmp_path):
    tasks = SETS[which]()
    check_equal(in_turns(tasks, tmp_path / "turns"), alone(tasks, tmp_path / "alone"))


def test_captured_steps_that_take_turns_are_their_own(tmp_path):
    tasks = [(toy(toys.Adversary, 3, GRAPHS), 0), (toy(toys.Bank, 3, GRAPHS), 1)]
    with on_a_cpu():
        CpuGraphs.captures = CpuGraphs.replays = 0
        turns = in_turns(tasks, tmp_path / "turns")
        replays = CpuGraphs.replays
        check_equal(turns, alone(tasks, tmp_path / "alone"))
    assert replays > 10
    assert CpuGraphs.replays == 2 * replays


def launches(fake: FakeCuda, tasks: Sequence[Task], folder: Path, together: bool) -> tuple[list[Made], dict[Any, int]]:
    """What is launched outside of graphs in all steps, by step; nothing that the host waits for."""
    counts: dict[Any, int] = {}
    step = StageRun.step

    def watched(self: StageRun, *, eagerly: bool = False) -> dict[str, Tensor]:
        with fake.watched() as seen:
            terms = step(self, eagerly=eagerly)
        assert seen.where - EXCUSED.keys() == set()
        counts[self.task.seed, self.stage.name, self.step_number] = seen.launches.total()
        return terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageRun, "step", watched)
        found = (in_turns if together else alone)(tasks, folder, CUDA)
    return found, counts


def test_turns_launch_nothing_more_on_cuda(tmp_path):
    tasks = [(tiny_of("kd", GRAPHS), seed) for seed in range(2)]
    torch.use_deterministic_algorithms(False)
    try:
        with fake_cuda() as fake:
            FakeGraphs.captures = FakeGraphs.replays = 0
            turns, counts = launches(fake, tasks, tmp_path / "turns", True)
            assert FakeGraphs.captures >= len(tasks), "each has graphs of its own"
            single, own = launches(fake, tasks, tmp_path / "alone", False)
            check_equal(turns, single)
    finally:
        torch.use_deterministic_algorithms(True)
    assert counts == own
    assert min(counts.values()) <= 4, "some steps are replayed"


class Paced(toys.Toy):
    """A step of seed 1 takes 4 s of a clock that nothing else moves, one of another seed 0.25."""

    now = 0.0

    def losses(self, batch: Any, at: Any) -> dict[str, Tensor]:
        Paced.now += 4.0 if self.task.seed == 1 else 0.25
        return super().losses(batch, at)


def test_seconds_are_those_of_own_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: Paced.now))
    runs = [trainer.done for _, trainer in in_turns([(toy(Paced), 0), (toy(Paced), 1)], tmp_path)]
    (quick,), (slow,) = (done.stages for done in runs)
    assert (quick.seconds, slow.seconds) == (0.25 * quick.steps, 4.0 * slow.steps)
    assert [done.curve[-1]["elapsed_s"] for done in runs] == [quick.seconds, slow.seconds]
    assert quick.steps > 1


class Draws(toys.Toy):
    """Takes numbers from the global generator."""

    def losses(self, batch: Any, at: Any) -> dict[str, Tensor]:
        terms = super().losses(batch, at)
        return terms | {"draw": torch.rand(()) + 0 * terms["task"]}


@pytest.mark.parametrize("kept", [True, False])
def test_the_state_of_the_global_generators_is_what_turns_must_keep(kept, tmp_path, monkeypatch):
    if not kept:
        monkeypatch.setattr(backends.of(CPU).lane(CPU).__class__, "turn", lambda self: nullcontext())
    tasks = [(toy(Draws), seed) for seed in (0, 1)]
    turns, single = (
        [trainer.done.digest for _, trainer in way(tasks, tmp_path / way.__name__)] for way in (in_turns, alone)
    )
    assert (turns == single) is kept
