"""Optimisers and learning-rate schedules, from a task's protocol and a method's groups."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch.optim import Optimizer

from kdbench.contract import Group
from kdbench.specs import protocol as spec
from kdbench.specs.options import EAGER, EngineOptions

HIDDEN = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")
"""Methods of an optimiser that torch hides from its compiler."""


def uncompiled(kind: type[Optimizer]) -> type[Optimizer]:
    """An optimiser without the wrappers of torch for its compiler, which they import: seconds, for nothing.

    All else that they do is to record no gradients in a step.
    """
    bare = {name: inspect.unwrap(getattr(kind, name)) for name in HIDDEN}
    return type(kind.__name__, (kind,), {**bare, "step": torch.no_grad()(bare["step"])})


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": uncompiled(torch.optim.SGD),
    "adam": uncompiled(torch.optim.Adam),
    "adamw": uncompiled(torch.optim.AdamW),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "weight_decay": 0.0, "momentum": 0.0, "nesterov": False},
    "adam": {"lr": 1e-3, "weight_decay": 0.0, "betas": (0.9, 0.999)},
    "adamw": {"lr": 1e-3, "weight_decay": 0.01, "betas": (0.9, 0.999)},
}

COUNTING = ("adam", "adamw")
"""Optimisers that count their steps; torch asks whether they shall do so where a graph can."""


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


def build(group: Group, task: spec.Optimizer, options: EngineOptions = EAGER) -> Optimizer:
    """The optimiser of a group."""
    name, kwargs = settings(task, dict(group.optimizer))
    params = list(group.params)
    if options.fused:
        kwargs["fused"] = True
    if options.cuda_graphs:
        kwargs["lr"] = torch.tensor(kwargs["lr"], device=params[0].device)  # a number would be frozen with the step
        if name in COUNTING:
            kwargs["capturable"] = True
    return OPTIMIZERS[name](params, **kwargs)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def factor(schedule: spec.Schedule, epoch: float, epochs: int) -> float:
    """What the learning rate is multiplied by, ``epoch`` (with its fraction) of ``epochs`` being done."""
    if epoch < schedule.warmup:
        return (int(epoch) + 1) / (schedule.warmup + 1)  # by epoch, as papers state it; never exactly 0
    if schedule.name == "steps":
        return schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
    done = (epoch - schedule.warmup) / max(1, epochs - schedule.warmup)
    if schedule.name == "poly":
        assert schedule.power is not None
        return max(0.0, 1 - done) ** schedule.power
    if schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
