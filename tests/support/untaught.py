"""A method's first stage on a task whose teachers are untrained: speed and launches do not depend on weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from kdbench.base.home import Home
from kdbench.data.feed.dataset import Dataset
from kdbench.engine import teachers
from kdbench.engine.assemble import prepare
from kdbench.engine.place import RunPlace
from kdbench.engine.stage import StageRun
from kdbench.specs.config import run_config

CPU = torch.device("cpu")


def stage_run(
    method: str,
    task: str,
    rows: Dataset,
    seed: int,
    folder: Path,
    overrides: tuple[str, ...] = (),
    device: torch.device = CPU,
) -> StageRun:
    """A method's first stage, ready to step.

    Args:
        rows: all of the task.
        folder: home and run folder lie there.
    """
    config = run_config(method, task, overrides)
    untrained = {
        role: replace(teachers.untrained(config.task, role, rows, device), score=0.0)
        for role in config.task.pair.teachers
    }
    prepared = prepare(config, seed, RunPlace(device, Home(folder), None, folder / "run"), rows, untrained)
    torch.manual_seed(seed)
    return StageRun(prepared.method.train(), next(prepared.method.stages()), prepared.task)
