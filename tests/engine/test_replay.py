"""A replayed step is the step: what a graph holds, when it is captured, what is refused.

There is no CUDA graph on a CPU; :class:`kdbench.checks.replayed.CpuGraphs` stands in for it and freezes what one would.
That every step of every method may be replayed is a rule of the contract (``tests/checks/test_contract.py``).
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tinies import captured, tiny_of
from torch import Tensor
from waiting import LOOKS

from kdbench.base.errors import UserError
from kdbench.checks.replayed import STEPS, CpuGraphs, on_a_cpu
from kdbench.contract import At, Batch, Group
from kdbench.engine import optim
from kdbench.engine.assemble import require_shared
from kdbench.engine.graphs import Replay
from kdbench.engine.stage import StageRun
from kdbench.engine.trainer import Trainer
from kdbench.specs.config import run_config
from kdbench.specs.options import EAGER, EngineOptions
from kdbench.specs.protocol import Optimizer

GRAPHS = EngineOptions(fused=True, cuda_graphs=True)
CAPTURED = [name for name in captured() if name not in LOOKS]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _graphs_of_a_cpu() -> Iterator[None]:
    CpuGraphs.captures = CpuGraphs.replays = 0
    with on_a_cpu():
        yield


# methods


def trained(
    method: str, folder: Path, options: EngineOptions = GRAPHS, device: torch.device = CPU
) -> Iterator[list[float]]:
    """Terms of the first steps of each stage with losses."""
    prepared = tiny_of(method, options).prepare(folder, device=device)
    for number, stage in enumerate(prepared.method.stages()):
        torch.manual_seed(number)
        prepared.method.to(prepared.task.device).train()
        run = StageRun(prepared.method, stage, prepared.task)
        if stage.losses is not None:
            yield [float(value) for step in range(STEPS) for value in run.step().values()]


@pytest.mark.gpu
@pytest.mark.parametrize("method", CAPTURED)
def test_cuda_replays_the_step(method, tmp_path):
    cuda = torch.device("cuda")
    replayed = list(trained(method, tmp_path / "replayed", GRAPHS, cuda))
    eager = list(trained(method, tmp_path / "eager", EngineOptions(fused=True), cuda))
    for terms, own_terms in zip(replayed, eager, strict=True):
        assert terms == pytest.approx(own_terms, rel=1e-3, abs=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["kd", "reviewkd", "crd", "ccd", "dml"])
def test_cuda_replays_compiled_networks(method, tmp_path):
    cuda, compiled = torch.device("cuda"), GRAPHS.model_copy(update={"compile": True})
    replayed = list(trained(method, tmp_path / "replayed", compiled, cuda))
    eager = list(trained(method, tmp_path / "eager", EAGER, cuda))
    for terms, own_terms in zip(replayed, eager, strict=True):
        assert terms == pytest.approx(own_terms, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("method", LOOKS)
def test_a_step_that_looks_at_a_result_is_refused(method, tmp_path):
    with pytest.raises(UserError, match=r"no step of stage 'distill' can be captured .*nonzero.*; leave it out"):
        list(trained(method, tmp_path))


def test_a_replayed_run_resumes_to_the_same_bits(tmp_path):
    def train(folder: Path, seconds: float) -> list[float]:
        prepared = tiny_of("dkd", GRAPHS).prepare(folder)
        done = Trainer(prepared.method, prepared.task, folder / "run", None, None, seconds).run()
        return [*done.digest, *(float(p.detach().double().sum()) for p in prepared.method.parameters())]

    whole = train(tmp_path / "whole", 1e9)
    train(tmp_path / "cut", 0.0)
    for late in (tmp_path / "cut" / "run").glob("stage-*.pt"):
        late.unlink()  # what is left is the checkpoint within the stage
    assert train(tmp_path / "cut", 1e9) == whole


def test_what_makes_batches_ahead_ends_with_its_stage(tmp_path):
    prepared = tiny_of("mlkd", GRAPHS).prepare(tmp_path)  # its second view is made by worker processes
    before = set(multiprocessing.active_children())
    gc.disable()  # a stage that can be replayed holds itself
    try:
        Trainer(prepared.method, prepared.task).run()
        assert set(multiprocessing.active_children()) <= before
    finally:
        gc.enable()


def test_a_counted_step_is_never_replayed(tmp_path):
    prepared = tiny_of("kd", GRAPHS).prepare(tmp_path)
    run = StageRun(prepared.method.train(), next(prepared.method.stages()), prepared.task)
    for _ in range(STEPS):
        run.step(eagerly=True)
    assert CpuGraphs.captures == CpuGraphs.replays == 0


# what a graph holds

Work = Callable[[Batch, At], "dict[str, Tensor]"]


def batch_of(number: int, rows: int = 4) -> Batch:
    y = torch.arange(rows) + number
    return Batch({"image": y * 0.5}, y, y)


def both(work: Callable[[Tensor], Work], ats: list[At], rows: Callable[[int], int] = lambda n: 4) -> tuple[int, int]:
    """Does the same steps eager and replayed, each on state of its own, and holds them to be equal.

    Returns captures and replays.
    """
    found = []
    for eagerly in (True, False):
        state, rng = torch.zeros(3), torch.Generator()
        step = work(state)
        steps: Work = step if eagerly else Replay("work", step, CPU, [rng])
        told = []
        for n, at in enumerate(ats):
            rng.manual_seed(n)
            told.append(steps(batch_of(n, rows(n)), at._replace(rng=rng)))
        found.append(([float(terms["a"]) for terms in told], state.tolist()))
    assert found[0] == found[1]
    return CpuGraphs.captures, CpuGraphs.replays


def ats(steps: int, epoch_steps: int) -> list[At]:
    return [At(n, n // epoch_steps, steps // epoch_steps, n / steps, torch.Generator()) for n in range(steps)]


def moving(state: Tensor, amount: Callable[[Batch, At], Tensor | float]) -> Work:
    def work(batch: Batch, at: At) -> dict[str, Tensor]:
        state.add_(batch.x["image"].sum() * amount(batch, at))
        return {"a": state.sum(), "b": state[0] * 2}

    return work


def test_what_reads_no_place_is_captured_once():
    assert both(lambda state: moving(state, lambda batch, at: 0.5 * at.epochs), ats(12, 4)) == (1, 9)


def test_what_reads_the_epoch_is_captured_in_each():
    assert both(lambda state: moving(state, lambda batch, at: at.epoch), ats(12, 4)) == (3, 1 + 3 + 3)


def test_a_number_that_follows_the_epoch_is_captured_once():
    def work(state: Tensor) -> Work:
        return moving(
            state, lambda batch, at: at.by_epoch(lambda epoch: 0.25 * epoch) + at.by_epoch(lambda epoch: 2.0**-epoch)
        )

    assert both(work, ats(16, 4)) == (1, 16 - 3)


@pytest.mark.parametrize("method", ["reviewkd", "dkd", "ffsd", "introspective", "pskd", "lwr"])
def test_a_ramp_is_captured_once(method, tmp_path):
    tiny = tiny_of(method, GRAPHS)
    own = tiny.config.method
    if method == "lwr":  # what it reads it keeps at the end of an interval alone
        tiny = replace(tiny, config=replace(tiny.config, method=replace(own, params={**own.params, "interval": 2})))
    losses = {}
    for eagerly in (True, False):
        prepared = tiny.prepare(tmp_path / str(eagerly))
        run = StageRun(prepared.method.train(), next(prepared.method.stages()), prepared.task)
        run._rng.manual_seed(0)
        steps = 3 * run.loader.steps  # over the ramp and beyond
        losses[eagerly] = [float(run.step(eagerly=eagerly)["total"]) for _ in range(steps)]
    assert losses[True] == losses[False]
    assert CpuGraphs.captures == len({len(run.loader.draw(n)) for n in range(run.loader.steps)})


@pytest.mark.parametrize("read", [lambda at: at.t, lambda at: at.step, lambda at: at[0], lambda at: list(at)[3]])
def test_what_reads_the_step_is_never_captured(read):
    assert both(lambda state: moving(state, lambda batch, at: read(at)), ats(12, 4)) == (0, 0)


def test_draws_follow_the_generator_of_the_step():
    assert both(lambda state: moving(state, lambda batch, at: torch.rand(3, generator=at.rng)), ats(8, 4)) == (1, 5)


def test_a_ragged_batch_has_a_graph_of_its_own():
    work, rows = lambda state: moving(state, lambda batch, at: 1.0), lambda n: 2 if n % 4 == 3 else 4
    assert both(work, ats(16, 4), rows) == (2, 16 - 3 - 1)


def test_terms_outlive_the_next_step():
    state = torch.zeros(3)
    steps = Replay("work", moving(state, lambda batch, at: 1.0), CPU, [torch.Generator()])
    told = [steps(batch_of(1), at)["a"] for at in ats(8, 4)]
    assert [float(a) for a in told] == [3 * 5.0 * (n + 1) for n in range(8)]


def test_what_python_counts_is_frozen():
    """The boundary of what can be replayed, and a proof that the stand-in freezes."""
    counts = iter(range(100))
    with pytest.raises(AssertionError):
        both(lambda state: moving(state, lambda batch, at: next(counts)), ats(8, 4))


# the update


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_learning_rate_is_no_part_of_a_graph(name):
    weight = torch.nn.Parameter(torch.ones(2))
    own = Optimizer(name=name, lr=0.5)
    optimizer = optim.build(Group("all", [weight]), own, GRAPHS)
    optim.set_lr(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == torch.tensor(0.25)
    plain = optim.build(Group("all", [weight]), own, EAGER)
    optim.set_lr(plain, 0.25)
    assert plain.param_groups[0]["lr"] == 0.25


def test_several_processes_are_refused():
    config = run_config("kd", "digits/few-shot", ["engine.cuda_graphs=true", "engine.fused=true"])
    with pytest.raises(UserError, match=r"engine\.cuda_graphs=true is for runs of one process"):
        require_shared(config, 2)
