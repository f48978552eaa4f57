"""Steps with and without ``engine.teacher_ahead``: ``KDBENCH_DATA=DIR pytest tests/bench_teacher_ahead.py -s -n0``.

Launches are counted on a CUDA device that is none (``fake_cuda``), over whole groups after the first, in which teachers
are tried as well; of small batches, for their size changes none. Time is processor time of one thread; plain and the
method with every number of batches take turns, block by block, and each block holds whole groups. Teachers are
untrained, for speed does not depend on weights.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median, quantiles

import pytest
import torch
from bench_kd import TASK as CIFAR100
from bench_kd import random_rows
from fake_cuda import CUDA, fake_cuda
from untaught import stage_run

from kdbench.base.home import Home, data_folder
from kdbench.base.progress import Progress
from kdbench.data.feed.dataset import Dataset
from kdbench.engine.assemble import load_data
from kdbench.engine.stage import StageRun
from kdbench.specs.config import run_config

METHODS = ("kd", "reviewkd")
MANY = (1, 2, 4, 8)
BLOCKS = int(os.environ.get("KDBENCH_BENCH_BLOCKS", "9"))
SMALLEST = {"digits/few-shot": 24, "cifar10-jpeg/small": 8}
"""Tasks, and steps of a block, of every number of batches whole groups."""


@pytest.fixture(autouse=True)
def _as_users_run():
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


def options(many: int) -> tuple[str, ...]:
    return (f"engine.teacher_ahead={many}",)


def rows_of(task: str, folder: Path) -> Dataset:
    """All rows of a task; skips where they are not to be had."""
    config, given = run_config("kd", task), data_folder()
    if config.task.data.source != "digits" and given is None:
        pytest.skip("KDBENCH_DATA names no folder")
    return load_data(config, given, Home(folder / "data"), Progress.silent())


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", [*SMALLEST, CIFAR100])
def test_launches(task, method, tmp_path):
    rows, found = random_rows(500, 8) if task == CIFAR100 else rows_of(task, tmp_path), {}
    for many in MANY:
        with fake_cuda() as fake:
            run = stage_run(method, task, rows, 0, tmp_path / str(many), ("train.batch=8", *options(many)), CUDA)
            for _ in range(MANY[-1]):
                run.step()
            with fake.watched() as seen:
                for _ in range(MANY[-1]):
                    run.step()
        found[many] = seen.launches.total() / MANY[-1]
    print(f"\n{task}, {method}: launches a step", {many: round(count, 1) for many, count in found.items()})
    assert list(found.values()) == sorted(found.values(), reverse=True)


def timed(runs: dict[str, StageRun], steps: int) -> dict[str, list[float]]:
    """Processor time of a step, ms, by run and block; the first block of each is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for block in range(BLOCKS + 1):
        for name in sorted(runs, key=lambda name: (block + list(runs).index(name)) % len(runs)):
            begin = time.process_time()
            for _ in range(steps):
                runs[name].step()
            seconds[name].append(1000 * (time.process_time() - begin) / steps)
    return {name: some[1:] for name, some in seconds.items()}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("task", SMALLEST)
def test_time(task, method, tmp_path):
    rows = rows_of(task, tmp_path)
    runs = {"plain": stage_run("plain", task, rows, 0, tmp_path / "plain")}
    runs |= {str(many): stage_run(method, task, rows, 0, tmp_path / str(many), options(many)) for many in MANY}
    found = timed(runs, SMALLEST[task])
    print(f"\n{task}, {method}: ms of processor time a step, medians (quartiles); over one batch at a time; over plain")
    for name, own in found.items():
        low, middle, high = quantiles(own, n=4)
        over = [median(a / b for a, b in zip(own, found[other], strict=True)) for other in ("1", "plain")]
        print(f"{name:>6} {middle:9.2f} ({low:.2f} to {high:.2f})  {over[0]:.3f}  {over[1]:.2f}")
    assert all(len(own) == BLOCKS for own in found.values())
