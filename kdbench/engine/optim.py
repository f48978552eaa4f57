"""Optimisers and learning-rate schedules, from a task's protocol and a method's groups."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer

from kdbench import spec
from kdbench.contract import Group

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False},
    "adam": {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999)},
    "adamw": {"lr": 1e-3, "weight_decay": 0.01, "betas": (0.9, 0.999)},
}


def settings(task: spec.Optimizer, changes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments of a group's optimiser: the task's, or another's defaults, with the group's changes.

    Raises:
        ValueError: an unknown optimiser, or a setting it does not have.
    """
    name = changes.get("name", task.name)
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; known are {', '.join(OPTIMIZERS)}")
    base = dict(DEFAULTS[name])
    if name == task.name:
        base |= {k: v for k, v in task.model_dump(exclude={"name"}).items() if k in base and v is not None}
    extra = {k: v for k, v in changes.items() if k != "name"}
    if unknown := set(extra) - set(base):
        raise ValueError(f"optimizer {name!r} has no setting {sorted(unknown)[0]!r}; it has {', '.join(base)}")
    return name, {**base, **extra}


def build(group: Group, task: spec.Optimizer, fused: bool = False) -> Optimizer:
    """The optimiser of a group; ``fused`` updates in one kernel instead of several for each parameter."""
    name, kwargs = settings(task, dict(group.optimizer))
    if fused:
        kwargs["fused"] = True
    return OPTIMIZERS[name](list(group.params), **kwargs)


def factor(schedule: spec.Schedule, epoch: float, epochs: int) -> float:
    """What the learning rate is multiplied by, ``epoch`` (with its fraction) of ``epochs`` being done."""
    if epoch < schedule.warmup:
        return (int(epoch) + 1) / (schedule.warmup + 1)  # by epoch, as papers state it; never exactly 0
    if schedule.name == "steps":
        return schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
    if schedule.name == "cosine":
        done = (epoch - schedule.warmup) / max(1, epochs - schedule.warmup)
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
