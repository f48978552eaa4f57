"""What methods on class scores share: checks of the class count, scores without the target class, a ramp by epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from kdbench.contract import NotApplicable, TaskInfo


def require_classes(task: TaskInfo, least: int) -> None:
    """Raises :class:`NotApplicable` when a task has fewer classes than the method's losses are defined for."""
    if task.classes < least:
        raise NotApplicable(f"its loss needs at least {least} classes, the task has {task.classes}")


def others(logits: Tensor, y: Tensor) -> Tensor:
    """(N, C - 1) scores of the classes other than each row's own.

    Args:
        logits: (N, C).
        y: (N,) classes.
    """
    place = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, place + (place >= y[:, None]))


def linear_ramp(epoch: int, epochs: int) -> float:
    """A weight that rises to 1 over the first ``epochs``, ``epoch`` of them done; never 0, and 1 for no epochs."""
    return min((epoch + 1) / epochs, 1.0) if epochs else 1.0
