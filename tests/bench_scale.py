"""A plain and a kd step of each CIFAR-100 pair, batch 64, one CPU thread, as in ``docs/measurements/scale.md``.

``pytest tests/bench_scale.py --benchmark-only``. Random rows and random teachers: speed does not depend on them.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from kdbench.base.home import Home
from kdbench.contract import Rows
from kdbench.data.feed.dataset import Dataset, Transform
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.stage import StageRun
from kdbench.engine.task import build_network, seeded
from kdbench.engine.teachers import TrainedTeacher
from kdbench.specs import registry
from kdbench.specs.config import run_config

TASKS = sorted(name for name in registry.tasks() if name.startswith("cifar100/") and "pct" not in name)
ROUNDS = 3


@functools.cache
def rows() -> Dataset:
    """Random rows of CIFAR-100's shape."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(256, (640, 3, 32, 32), generator=rng, dtype=torch.uint8)
    part = Rows({"image": x}, torch.arange(640) % 100)
    norm = {"image": Transform((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))}
    return Dataset("random", part, part, 100, norm, properties=frozenset({"rgb", "rotation_safe"}))


@pytest.mark.parametrize("method", ["plain", "kd"])
@pytest.mark.parametrize("task", TASKS)
def test_step(benchmark, tmp_path: Path, task: str, method: str) -> None:
    torch.set_num_threads(1)
    config = run_config(method, task, [])
    with seeded(0, "teacher"):
        net = build_network(config.task.pair.teachers["image"].net, "image", rows())
    facts = {"source": "random", "params": 0, "weights_sha256": "0" * 64, "seconds": None, "steps": None}
    teacher = TrainedTeacher("image", net.eval().requires_grad_(False), 0.0, facts)
    place = RunPlace(torch.device("cpu"), Home(tmp_path), None, tmp_path / "run")
    prepared = prepare(config, 0, place, rows(), {"image": teacher})
    run = StageRun(prepared.method.train(), next(iter(prepared.method.stages())), prepared.task)
    terms = benchmark.pedantic(run.step, rounds=ROUNDS, warmup_rounds=1)
    assert all(term.isfinite() for term in terms.values())
