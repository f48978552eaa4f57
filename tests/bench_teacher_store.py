"""A study with and without ``engine.teacher_store``: ``KDBENCH_DATA=DIR pytest tests/bench_teacher_store.py -s -n0``.

Methods and seeds follow one another as in a sweep, on one store. Beside each run go plain and the same method with a
teacher that computes; the three take turns, block by block, in one process on one thread, and processor time counts.
Teachers are untrained, for speed does not depend on weights. Medians over blocks leave out the one or two batches of a
run that are computed to be compared with what is kept.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import pytest
import torch
from untaught import stage_run

from kdbench.base.home import Home, data_folder
from kdbench.base.progress import Progress
from kdbench.data.feed.dataset import Dataset
from kdbench.engine.assemble import load_data
from kdbench.specs.config import run_config

METHODS = tuple(os.environ.get("KDBENCH_BENCH_METHODS", "kd,dkd,nkd,pkt,rkd").split(","))
SEEDS = tuple(map(int, os.environ.get("KDBENCH_BENCH_SEEDS", "0,1").split(",")))
BLOCKS = int(os.environ.get("KDBENCH_BENCH_BLOCKS", "9"))
SMALLEST = {"digits/few-shot": 12, "cifar10-jpeg/small": 4}
"""Tasks, and steps of a block."""
MOST = 1.15
"""Of a step of plain, what the second and every later run of a study is to take in the mean."""


class Timed(NamedTuple):
    """One run of a study: processor time of a step over plain's, with a teacher that computes and with the store."""

    method: str
    seed: int
    computing: float
    stored: float
    kept: int


def timed(method: str, task: str, rows: Dataset, seed: int, folder: Path) -> Timed:
    """A run of a study beside plain and beside itself without the store."""
    arms = {
        "plain": stage_run("plain", task, rows, seed, folder, ()),
        "computing": stage_run(method, task, rows, seed, folder, ()),
        "stored": stage_run(method, task, rows, seed, folder, ("engine.teacher_store=true",)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for block in range(BLOCKS + 1):
        for name in sorted(arms, key=lambda name: (block + list(arms).index(name)) % len(arms)):
            begin = time.process_time()
            for _ in range(SMALLEST[task]):
                arms[name].step()
            seconds[name].append(time.process_time() - begin)
    ratios = {
        name: median(own / plain for own, plain in zip(seconds[name][1:], seconds["plain"][1:], strict=True))
        for name in arms
    }
    filling = arms["stored"].task.filling
    assert filling is not None
    return Timed(method, seed, ratios["computing"], ratios["stored"], filling.kept)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("task", SMALLEST)
def test_the_second_and_later_runs_of_a_study(task, tmp_path):
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)
    config, folder = run_config("kd", task), data_folder()
    if config.task.data.source != "digits" and folder is None:
        pytest.skip("KDBENCH_DATA names no folder")
    rows = load_data(config, folder, Home(tmp_path / "data"), Progress.silent())
    runs = [timed(method, task, rows, seed, tmp_path) for seed in SEEDS for method in METHODS]
    print(f"\n{task}: processor time of a step, plain = 1\nmethod       seed  computing  stored  rows kept")
    for run in runs:
        print(f"{run.method:12} {run.seed:4} {run.computing:10.2f} {run.stored:7.2f} {run.kept:10}")
    later, read = runs[1:], [run for run in runs[1:] if not run.kept]
    for which, some in (("second and later runs", later), ("of them those that kept nothing", read)):
        computing, stored = fmean(run.computing for run in some), fmean(run.stored for run in some)
        print(f"{which}, mean: computing {computing:.2f}, stored {stored:.2f} (aim {MOST})")
    assert fmean(r.stored for r in read) < fmean(r.computing for r in read)
