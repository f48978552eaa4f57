"""The engine's KD step on a GPU, launch by launch: ``pytest tests/bench_engine_cuda.py -n0 -s --benchmark-only``.

resnet32x4 -> resnet8x4, CIFAR shapes, batch 64. Skipped without CUDA; never run so far.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from kdbench.config import run_config
from kdbench.contract import Rows
from kdbench.data.dataset import Dataset, Transform
from kdbench.engine.prepare import Place, prepare
from kdbench.engine.stage import StageRun
from kdbench.engine.task import build_network
from kdbench.engine.teachers import TrainedTeacher
from kdbench.home import Home

TASK = "cifar100/resnet32x4-resnet8x4"
EXACT = ("engine.channels_last=true", "engine.fold_teacher=true", "engine.fused=true")
OPTIONS = {
    "eager": (),
    "exact": EXACT,
    "compiled": (*EXACT, "engine.compile=true"),
    "bf16": (*EXACT, "engine.compile=true", "engine.precision=bf16"),
}
WINDOW, WARMUP, PROFILED = 200, 20, 20
MOST_OVER_KERNELS = 2.0

pytestmark = pytest.mark.gpu


@pytest.fixture
def run(request: pytest.FixtureRequest, tmp_path: Path) -> StageRun:
    """The engine's KD with the options named by the parameter."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(256, (50_000, 3, 32, 32), generator=rng, dtype=torch.uint8)
    part = Rows({"image": x}, torch.arange(len(x)) % 100)
    norm = {"image": Transform((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))}
    data = Dataset("random", part, part, 100, norm, properties=frozenset({"rgb"}))
    device = torch.device("cuda")
    net = build_network("resnet32x4", "image", data).to(device).eval().requires_grad_(False)
    trained = {"image": TrainedTeacher("image", deepcopy(net), 0.0, {"arch": "resnet32x4", "source": "random"})}
    place = Place(device, Home(tmp_path), None, tmp_path / "run")
    prepared = prepare(run_config("kd", TASK, OPTIONS[request.param]), 0, place, data, trained)
    return StageRun(prepared.method.train(), next(prepared.method.stages()), prepared.task)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", OPTIONS, indirect=True)
def test_bench_step_beside_its_kernels(benchmark: Any, run: StageRun) -> None:
    for _ in range(WARMUP):
        run.step()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            run.step()
        torch.cuda.synchronize()
    kernels_ms = sum(event.self_device_time_total for event in profiler.key_averages()) / PROFILED / 1e3

    def window() -> None:
        for _ in range(WINDOW):
            run.step()
        torch.cuda.synchronize()

    benchmark.pedantic(window, rounds=5, warmup_rounds=1)
    step_ms = benchmark.stats.stats.median / WINDOW * 1e3
    benchmark.extra_info.update(step_ms=step_ms, kernels_ms=kernels_ms, images_per_s=64e3 / step_ms)
    print(f"{step_ms:.2f} ms a step, {kernels_ms:.2f} ms of kernels, {64e3 / step_ms:.0f} images a second")
    assert step_ms <= MOST_OVER_KERNELS * kernels_ms
