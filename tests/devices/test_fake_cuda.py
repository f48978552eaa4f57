"""The engine on a CUDA device that is none (``tests/support/fake_cuda``): what a first run on a GPU would meet.

Every operator has its tensors and generators on one device, values are the CPU's bit for bit, the host copies and waits
where it is excused alone, and no captured step reads memory that is freed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, Mismatch, Seen, fake_cuda, lies_on_cuda
from fake_cuda.graphs import FakeGraphs, Freed
from fake_cuda.nvml import fake_nvml
from gloo_ranks import on_ranks
from tinies import captured, tiny_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from waiting import EXCUSED, LOOKS

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.base.progress import Progress
from kdbench.checks.replayed import on_a_cpu
from kdbench.checks.tiny import Tiny
from kdbench.devices import backends
from kdbench.devices.machine import device_class, environment
from kdbench.engine.assemble import needs_of, prepare
from kdbench.engine.graphs import WARM_STEPS
from kdbench.engine.place import RunPlace
from kdbench.engine.stage import StageRun
from kdbench.overhead import measure, worker
from kdbench.overhead.latency import latency
from kdbench.overhead.order import MeasureOrder
from kdbench.parallel.ranks import Ranks
from kdbench.records.files import Record
from kdbench.runs import run, verify
from kdbench.runs.request import Request
from kdbench.specs import registry
from kdbench.specs.config import run_config
from kdbench.specs.options import EngineOptions

STEPS = 2 * WARM_STEPS + 1
"""Of a stage: eager, captured and replayed, also where a tiny task's second epoch brings other numbers."""
FUSED, GRAPHS = EngineOptions(fused=True), EngineOptions(fused=True, cuda_graphs=True)
AHEAD = EngineOptions(fused=True, teacher_ahead=3)
"""One form of update on both devices: an unfused one goes through lists of tensors on CUDA alone."""
CPU = torch.device("cpu")
LAUNCHES = 3
"""Outside of a replayed step beside learning rates: row numbers, joined with partners' and handed in, and its terms."""
FEW = ("kd", "crd", "ccd", "energykd-heda", "cgan_kd")
"""Plain tensors, memory banks, views, a step that looks, stages that make updates of their own."""
SHARED = ("crd",)
"""Batch norms of all ranks, and gathered rows."""
EVERY = list(registry.methods())


def slow_but(names: Iterable[str], fast: Collection[str]) -> list[Any]:
    """Names as parameters of a test, all but a few left to the slow set."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(autouse=True)
def _as_users_run() -> Iterator[None]:
    """CUDA's deterministic kernels are no part of this."""
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(True)


# the instrument


def rows() -> Tensor:
    return torch.arange(6.0, device="cuda").view(3, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x * torch.ones(3, 2),
        lambda x: x @ x.T * torch.eye(3),
        lambda x: torch.zeros(9)[x.argmax(1)],
        lambda x: torch.cat([x.sum(0), torch.ones(2)]),
        lambda x: torch.rand(3, generator=torch.Generator(), device=x.device),
        lambda x: x.uniform_(generator=torch.Generator()),
        lambda x: torch.rand(3, generator=torch.Generator("cuda")),
    ],
    ids=["two devices", "eye", "CPU tensor, CUDA index", "cat", "generator", "in place", "CUDA generator"],
)
def test_what_cuda_refuses_is_refused(wrong):
    with fake_cuda(), pytest.raises(Mismatch):
        wrong(rows())


def test_a_cuda_tensor_has_no_numpy_array():
    with fake_cuda(), pytest.raises(TypeError, match="no NumPy array"):
        rows().numpy()


@pytest.mark.parametrize(
    ("waits", "what"),
    [
        (lambda x: x.sum().item(), "wait"),
        (lambda x: bool((x > 1).any()), "wait"),
        (lambda x: x[x > 1], "wait"),
        (lambda x: x.nonzero(), "wait"),
        (lambda x: x.unique(), "wait"),
        (lambda x: x.repeat_interleave(x.argmax(1), dim=0), "wait"),
        (lambda x: x.cpu(), "to host"),
        (lambda x: x.to("cpu"), "to host"),
        (lambda x: x.tolist(), "to host"),
        (lambda x: x.new_tensor(1.0), "to device"),
        (lambda x: torch.tensor([1, 2], device="cuda"), "to device"),
        (lambda x: torch.ones(2).to(x), "to device"),
        (lambda x: x[torch.tensor([0, 1])], "to device"),
        (lambda x: x.copy_(torch.ones(3, 2)), "to device"),
    ],
)
def test_what_makes_the_host_wait_is_noted(waits, what):
    with fake_cuda() as fake:
        x = rows()
        with fake.watched() as seen:
            waits(x)
    assert {kind for kind, _, _ in seen.events} == {what}


@pytest.mark.parametrize(
    "right",
    [
        lambda x: x * 2 + torch.tensor(1.0),
        lambda x: x[x.argmax(1)],
        lambda x: torch.nn.functional.one_hot(x.argmax(1), 2) * x,
        lambda x: torch.where(x > 0, 1.0, x),
        lambda x: x.new_full((), 3) * torch.full((2,), 1.0, device=x.device),
        lambda x: torch.rand(3, 2, generator=torch.Generator(x.device), device=x.device) * x,
        lambda x: torch.ones(3, 2).to("cuda", non_blocking=True) * x,
        lambda x: torch.nn.functional.cross_entropy(x, x.argmax(1), label_smoothing=0.1),
    ],
)
def test_what_is_right_is_passed_in_silence(right):
    with fake_cuda() as fake:
        x = rows()
        with fake.watched() as seen:
            assert lies_on_cuda(right(x))
    assert not seen.events
    assert sum(seen.launches.values())


def test_a_graph_whose_input_is_freed_is_refused():
    with fake_cuda() as fake:
        held = [torch.ones((), device="cuda")]

        def work() -> dict[str, Tensor]:
            held[0] = held[0] * 2
            return {"twice": held[0]}

        with pytest.raises(Freed, match="mul of"):
            FakeGraphs(fake).capture(work)


# methods


def trained(
    tiny: Tiny,
    folder: Path,
    device: torch.device,
    step: Callable[[StageRun], dict[str, Tensor]],
    ranks: Ranks | None = None,
) -> Any:
    """Terms of each stage's first steps, by stage."""
    prepared = tiny.prepare(folder, device=device, ranks=ranks)
    found = {}
    for number, stage in enumerate(prepared.method.stages()):
        torch.manual_seed(number)
        prepared.method.to(prepared.task.device).train()
        stage_run = StageRun(prepared.method, stage, prepared.task)
        terms = [step(stage_run) for _ in range(min(STEPS, stage_run.total))]
        found[stage.name] = [{name: float(term) for name, term in some.items()} for some in terms]
        stage_run.state()
    return found


def as_watched(stage_run: StageRun) -> dict[str, Tensor]:
    """An eager step on the CPU."""
    with Idle():
        return stage_run.step(eagerly=True)


def set_up(method: str) -> Tiny:
    """A method's tiny task, with graphs where a step of it can be captured."""
    found = tiny_of(method, FUSED)
    looks = method in LOOKS or found.config.task.of_kind.eager is not None
    return found if looks else tiny_of(method, GRAPHS)


class Idle(TorchDispatchMode):
    """Does nothing, and yet under any mode autograd sums gradients into new tensors and takes other formulas.

    That is another last bit in detectors' gradients, of the CPU's own: so the CPU's values are those under a mode.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", slow_but(EVERY, FEW))
def test_a_method_runs_as_on_the_cpu_and_waits_nowhere(method, tmp_path):
    tiny = set_up(method)
    with on_a_cpu():
        expected = trained(tiny, tmp_path / "cpu", CPU, as_watched)
    FakeGraphs.captures, may_capture = 0, False
    with fake_cuda() as fake:
        seen = Seen()

        def step(stage_run: StageRun) -> dict[str, Tensor]:
            nonlocal may_capture
            replays, steps = FakeGraphs.replays, stage_run.loader.steps
            may_capture |= stage_run._replay is not None and stage_run.total > WARM_STEPS
            with fake.watched() as now:
                terms = stage_run.step()
            seen.events.update(now.events)
            assert all(map(lies_on_cuda, terms.values()))
            if FakeGraphs.replays > replays and stage_run._drawn_within and stage_run.step_number % steps != 1:
                assert now.launches.total() <= LAUNCHES + len(stage_run.optimizers)
            return terms

        found = trained(tiny, tmp_path / "cuda", CUDA, step)
    assert bool(FakeGraphs.captures) == may_capture
    assert found == expected
    if method in captured():
        assert seen.where - EXCUSED.keys() == set()


@pytest.mark.parametrize("method", ["kd", pytest.param("reviewkd", marks=pytest.mark.slow)])
def test_a_teacher_asked_ahead_runs_as_on_the_cpu_and_waits_once(method, tmp_path):
    tiny = tiny_of(method, AHEAD)
    expected, waits = trained(tiny, tmp_path / "cpu", CPU, as_watched), []
    launches: list[int] = []
    with fake_cuda() as fake:

        def step(stage_run: StageRun) -> dict[str, Tensor]:
            with fake.watched() as now:
                terms = stage_run.step()
            waits.append(now.where - {("kdbench/data/feed/loader.py:_index", "_to_copy")})
            launches.append(now.launches.total())
            return terms

        found = trained(tiny, tmp_path / "cuda", CUDA, step)
    assert found == expected
    assert set().union(*waits) <= EXCUSED.keys()
    assert [number for number, some in enumerate(waits) if some] == [0]
    for number in range(AHEAD.teacher_ahead, STEPS):  # of a group the first step alone asks
        assert (launches[number] > launches[1]) == (number % AHEAD.teacher_ahead == 0)


def on_two_ranks(tiny: Tiny, folder: Path, device: torch.device, ranks: Ranks) -> Any:
    """Terms of the first steps of a shared run, and where its steps waited."""
    if device is CPU:
        return trained(tiny, folder / "cpu", CPU, as_watched, ranks), []
    with fake_cuda() as fake:
        seen = Seen()

        def step(stage_run: StageRun) -> dict[str, Tensor]:
            with fake.watched() as now:
                terms = stage_run.step()
            seen.events.update(now.events)
            return terms

        found = trained(tiny, folder / "cuda", CUDA, step, ranks)
    return found, sorted(seen.where)


@pytest.mark.parametrize("method", slow_but(EVERY, SHARED))
def test_a_method_of_two_ranks_waits_nowhere(method, tmp_path):
    tiny = tiny_of(method, FUSED)
    if reason := needs_of(tiny.config.method).one_process or tiny.config.task.of_kind.one_process:
        pytest.skip(f"runs in one process: {reason}")

    def work(ranks: Ranks) -> Any:
        return on_two_ranks(tiny, tmp_path, CPU, ranks), on_two_ranks(tiny, tmp_path, CUDA, ranks)

    for (expected, _), (found, where) in on_ranks(2, tmp_path / "meet", work):
        assert found == expected
        if method in captured():
            assert set(where) - EXCUSED.keys() == set()


# whole runs


@pytest.fixture
def card(monkeypatch):
    """A card that this process and the one that measures are on; the list of their numbers."""
    processes = [os.getpid(), 1]
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(processes))
    return processes


def place(home: Path) -> RunPlace:
    return RunPlace(CUDA, Home(home), None, home / "run")


def evaluated(home: Path, mode: str, *overrides: str) -> Record:
    config = run_config("kd", "digits/few-shot", overrides, smoke=True)
    return run.run_seed(Request(config, 0, CUDA, Home(home), overhead=mode))


def test_a_whole_evaluation_ends_in_a_valid_record_that_can_be_verified(tmp_path, card):
    home, quiet = Home(tmp_path), Progress.silent()
    with fake_cuda():
        record = evaluated(tmp_path, "off", "engine.fused=true", "engine.cuda_graphs=true")
    assert record.status == "ok", record.error
    assert record.device_class == "cuda:NVIDIA-Fake-1/fp32/x1/cuda-graphs/fused"
    assert record.environment.gpu is not None
    assert record.environment.gpu.power_limit_w == 700
    assert verify.validate(tmp_path / "records" / f"{record.run_id}.json").passed
    weights = home.students / f"{record.run_id}.safetensors"
    assert verify.rescore(record, weights, home, None, quiet).passed, "on the CPU"
    with pytest.raises(UserError, match="--device cuda: torch sees no CUDA device here"):
        verify.replay(record, home, None, quiet)
    with fake_cuda():
        assert verify.rescore(record, weights, home, None, quiet).passed
        assert verify.replay(record, home, None, quiet).passed
        again = verify.rerun(record, None, [record.score - 1, record.score, record.score + 1], home, None, quiet)
    assert again.passed
    assert "judged by the cell's prediction interval" in again.what


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_products_are_as_the_device_class_says(precision, tmp_path, card):
    torch.backends.cuda.matmul.fp32_precision = "tf32"  # by somebody before, in torch's newer words
    override = f"engine.precision={precision}"
    try:
        with fake_cuda():
            prepared = prepare(run_config("kd", "digits/few-shot", [override], smoke=True), 0, place(tmp_path))
            found, of_class = environment(CUDA)["flags"], device_class(CUDA, prepared.task.options)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    products = "tf32" if precision == "tf32" else "ieee"
    assert (found["conv_fp32"], found["matmul_fp32"], found["tf32"]) == (products, products, products == "tf32")
    assert of_class == f"cuda:NVIDIA-Fake-1/{precision}/x1"


@pytest.mark.slow
def test_a_run_in_tf32_ends_in_a_valid_record(tmp_path, card):
    with fake_cuda():
        record = evaluated(tmp_path, "off", "engine.precision=tf32")
    assert record.device_class == "cuda:NVIDIA-Fake-1/tf32/x1"
    assert record.protocol.amp == "tf32"
    assert record.environment.flags.tf32
    assert verify.validate(tmp_path / "records" / f"{record.run_id}.json").passed


def test_a_card_for_one_process_is_named_before_another_is_started(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([os.getpid()], exclusive=True))
    config = run_config("kd", "digits/few-shot", smoke=True)
    with fake_cuda():
        with pytest.raises(measure.MeasurementFailed, match=r"of kd cannot be measured: .* exclusive-process mode"):
            measure.measure(config, 0, place(tmp_path), "quick", 1)
        assert any("no cost can be measured" in line for line in backends.of(CUDA).remarks())


@pytest.mark.slow
def test_a_whole_measurement_has_memory_and_energy(tmp_path, card, monkeypatch):
    def asked(order: MeasureOrder, answers: Any) -> Any:
        card.append(1)
        try:
            return answers.read(worker.run(order).text())
        finally:
            card.remove(1)  # it ends before anyone asks who else is on the card

    card.remove(1)
    monkeypatch.setattr(measure, "_ask", asked)
    monkeypatch.setattr(worker, "FULL", replace(worker.FULL, builds=2, block_s=0.01, warmup_s=0.2, limit_s=0.3))
    monkeypatch.setattr(worker, "data_wait", partial(worker.data_wait, seconds=0.2))
    quick = partial(worker.measure_energy, windows=2, window_s=0.2, idle_s=0.1)
    monkeypatch.setattr(worker, "measure_energy", quick)
    monkeypatch.setattr(worker, "latency", lambda *what, seconds: latency(*what, seconds=0.1))
    with fake_cuda():
        overhead = evaluated(tmp_path, "full").overhead
    assert overhead is not None
    assert overhead.aa_ratio is not None
    (gate,) = Home(tmp_path).gates.iterdir()
    assert gate.name == "digits__few-shot@v1@cuda-NVIDIA-Fake-1-fp32-x1.json"
    assert overhead.contended is False
    assert overhead.peak_alloc_mib == 1
    assert overhead.energy is not None, overhead.no_energy
    assert overhead.energy.idle_w == pytest.approx(400, rel=0.1)
