"""The engine's KD on a GPU, beside its kernels and beside mdistiller: resnet32x4 -> resnet8x4, CIFAR shapes, batch 64.

``KDBENCH_PEERS=DIR pytest tests/bench_engine_cuda.py -n0 -s --benchmark-only``; ``tests/support/peers.py`` says what
DIR holds. Skipped without CUDA, and never run there so far; without ``--benchmark-only`` two steps of each side are
taken on a CPU, by the same functions. mdistiller runs its trainer's step, progress bar and validation left out.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, SupportsFloat

import peers
import pytest
import torch
from bench_kd import BATCH, Engine, Pair, engine, networks, pixels, random_rows
from torch.profiler import ProfilerActivity, profile

from kdbench.data.feed.dataset import Dataset
from kdbench.engine.curve import CURVE_POINTS
from kdbench.engine.scoring import Scorer
from kdbench.engine.stage import StageRun

EXACT = ("engine.channels_last=true", "engine.fold_teacher=true", "engine.fused=true")
OPTIONS: dict[str, Sequence[str]] = {
    "eager": (),
    "exact": EXACT,
    "compiled": (*EXACT, "engine.compile=true"),
    "bf16": (*EXACT, "engine.compile=true", "engine.precision=bf16"),
    "graphs": (*EXACT, "engine.cuda_graphs=true"),
    "all": (*EXACT, "engine.compile=true", "engine.precision=bf16", "engine.cuda_graphs=true"),
}
METHODS = ("plain", "kd", "reviewkd", "dkd", "crd", "hkd", "ccd", "ffsd", "fitnet", "at")
ROWS = 50_000
WINDOW, WARMUP, PROFILED, ROUNDS, RING = 200, 20, 20, 5, 8
WORKERS = 2
"""Of mdistiller's loader, as its configuration ships."""
MOST_OVER_KERNELS = 2.0
LEAST_OVER_MDISTILLER = {"as shipped": 8.0, "batches on the device": 3.0}
MOST_MINUTES = 5.0


class Arm(NamedTuple):
    """One side of a comparison.

    Attributes:
        step: one training step, returns its loss.
        tunes: cuDNN tries its kernels before it chooses one, as mdistiller's script asks it to.
    """

    step: Callable[[], SupportsFloat]
    tunes: bool = False


@pytest.fixture(autouse=True)
def _kernels_of_a_run() -> Iterator[None]:
    """Neither kdbench's runs nor mdistiller's ask for deterministic algorithms, as the tests do."""
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(True)


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return random_rows(ROWS)


@pytest.fixture(scope="module")
def nets(rows: Dataset) -> Pair:
    return networks(rows)


def engines(
    rows: Dataset, nets: Pair, folder: Path, device: str, options: Mapping[str, Sequence[str]] = OPTIONS
) -> dict[str, Engine]:
    """The engine's KD by the name of its options."""
    return {name: engine(rows, nets, folder / name, chosen, device) for name, chosen in options.items()}


def own(made: Engine) -> Arm:
    """The engine's step; its loss stays on the device."""
    return Arm(lambda: made.run.step()["total"])


def mdistiller(rows: Dataset, nets: Pair, device: str, loader: str, batches: StageRun) -> Arm:
    """Its KD, with its own loader ``as shipped`` or on a ring of ``batches on the device``."""
    peer = peers.build("mdistiller", *nets, *pixels(rows), device, WORKERS)
    if loader == "as shipped":
        return Arm(peer.step, tunes=True)
    drawn = (batches.draw() for _ in range(RING))
    ring = itertools.cycle([(batch.x["image"], batch.y, batch.index) for batch in drawn])
    return Arm(lambda: peer.on(next(ring)), tunes=True)


def wait(device: str) -> None:
    """Until the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_a_step(arm: Arm, device: str, window: int) -> float:
    """Of a window of steps, whose ends alone wait for the device."""
    wait(device)
    torch.backends.cudnn.benchmark = arm.tunes
    begin = time.perf_counter()
    for _ in range(window):
        arm.step()
    wait(device)
    torch.backends.cudnn.benchmark = False
    return (time.perf_counter() - begin) / window


def one_round(arms: Mapping[str, Arm], device: str, window: int) -> dict[str, float]:
    """Seconds a step of every arm, one window each."""
    return {name: seconds_a_step(arm, device, window) for name, arm in arms.items()}


def in_turns(benchmark: Any, arms: Mapping[str, Arm]) -> list[dict[str, float]]:
    """Rounds on the GPU, the first of which warms up and is left out."""
    found: list[dict[str, float]] = []
    benchmark.pedantic(lambda: found.append(one_round(arms, "cuda", WINDOW)), rounds=ROUNDS, warmup_rounds=1)
    for name in arms:
        step_s = median(seconds[name] for seconds in found[1:])
        benchmark.extra_info[name] = {"step_ms": step_s * 1e3, "images_per_s": BATCH / step_s}
        print(f"{name:12} {step_s * 1e3:7.2f} ms a step, {BATCH / step_s:8.0f} images a second")
    return found[1:]


def beside_kernels(benchmark: Any, arm: Arm) -> tuple[float, float]:
    """Milliseconds of a step, and of its kernels."""
    for _ in range(WARMUP):
        arm.step()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            arm.step()
        torch.cuda.synchronize()
    kernels_ms = sum(event.self_device_time_total for event in profiler.key_averages()) / PROFILED / 1e3
    step_ms = median(seconds["step"] for seconds in in_turns(benchmark, {"step": arm})) * 1e3
    benchmark.extra_info["kernels_ms"] = kernels_ms
    print(f"{kernels_ms:.2f} ms of kernels a step")
    return step_ms, kernels_ms


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPTIONS)
def test_bench_step_beside_its_kernels(benchmark: Any, name: str, rows: Dataset, nets: Pair, tmp_path: Path) -> None:
    step_ms, kernels_ms = beside_kernels(benchmark, own(engine(rows, nets, tmp_path, OPTIONS[name], "cuda")))
    assert step_ms <= MOST_OVER_KERNELS * kernels_ms


@pytest.mark.gpu
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", METHODS)
def test_bench_a_method_beside_its_kernels(benchmark: Any, method: str, load: Any, tmp_path: Path) -> None:
    """Eager, whose host is the slower one by far with nets this small: both numbers are told."""
    phase = load("bench_methods.py").main_phase(method, tmp_path, "cuda")
    step_ms, kernels_ms = beside_kernels(benchmark, Arm(phase.step))
    assert 0 < kernels_ms < step_ms * MOST_OVER_KERNELS


@pytest.mark.gpu
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("loader", LEAST_OVER_MDISTILLER)
def test_bench_beside_mdistiller(
    benchmark: Any, loader: str, rows: Dataset, nets: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    built = engines(rows, nets, tmp_path, "cuda")
    arms = {name: own(made) for name, made in built.items()}
    peer = mdistiller(rows, nets, "cuda", loader, built["eager"].run)
    found = in_turns(benchmark, {"mdistiller": peer, **arms})
    faster = {name: median(seconds["mdistiller"] / seconds[name] for seconds in found) for name in arms}
    print(", ".join(f"{name}: {value:.2f} x mdistiller, {loader}" for name, value in faster.items()))
    assert max(faster.values()) >= LEAST_OVER_MDISTILLER[loader]


def minutes(made: Engine, step_s: float, scoring_s: float) -> float:
    """Of the task's whole training, from the time of a step and that of scoring the test rows for the curve."""
    return (made.run.total * step_s + CURVE_POINTS * scoring_s) / 60


def scoring_seconds(made: Engine, device: str) -> float:
    """Of one point of the curve, its second time."""
    scorer, net = Scorer(made.prepared.task), made.prepared.method.deployed
    scorer.primary(net)
    wait(device)
    begin = time.perf_counter()
    scorer.primary(net)
    return time.perf_counter() - begin


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_bench_minutes_of_240_epochs(benchmark: Any, rows: Dataset, nets: Pair, tmp_path: Path) -> None:
    built = engines(rows, nets, tmp_path, "cuda")
    found = in_turns(benchmark, {name: own(made) for name, made in built.items()})
    whole = {
        name: minutes(made, median(seconds[name] for seconds in found), scoring_seconds(made, "cuda"))
        for name, made in built.items()
    }
    print(", ".join(f"{name}: {value:.1f} minutes for 240 epochs" for name, value in whole.items()))
    benchmark.extra_info["minutes"] = whole
    assert min(whole.values()) < MOST_MINUTES


@pytest.mark.timeout(600)
@pytest.mark.parametrize("loader", LEAST_OVER_MDISTILLER)
def test_two_steps_of_each_side_on_a_cpu(loader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed above, by the same functions; on the same batches the losses agree."""
    monkeypatch.chdir(tmp_path)
    rows = random_rows(2 * BATCH)
    nets = networks(rows)
    built = engines(rows, nets, tmp_path, "cpu", {"eager": (), "exact": EXACT})
    sides = {name: own(made) for name, made in built.items()}
    sides["mdistiller"] = mdistiller(rows, nets, "cpu", loader, engine(rows, nets, tmp_path / "ring").run)
    losses: dict[str, list[float]] = {name: [] for name in sides}

    def noted(name: str) -> Arm:
        def step() -> float:
            losses[name].append(float(sides[name].step()))
            return losses[name][-1]

        return Arm(step)

    found = one_round({name: noted(name) for name in sides}, "cpu", window=2)
    assert all(step_s > 0 for step_s in found.values())
    assert minutes(built["exact"], found["exact"], scoring_seconds(built["exact"], "cpu")) > 0
    assert losses["exact"] == pytest.approx(losses["eager"], rel=1e-5)
    if loader == "batches on the device":
        assert losses["mdistiller"] == pytest.approx(losses["eager"], rel=1e-5)
