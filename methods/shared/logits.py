"""What methods on class scores share: least numbers of classes, the divergence of a row, scores without the target
class.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdbench.base.once import said_once
from kdbench.contract import Method, NotApplicable, TaskInfo
from kdbench.methods.shared.ramps import ramp


def require_classes(task: TaskInfo, least: int) -> None:
    """Raises :class:`NotApplicable` when a task has fewer classes than the method's losses are defined for."""
    if task.classes < least:
        raise NotApplicable(f"its loss needs at least {least} classes, the task has {task.classes}")


class ScoreMethod(Method):
    """A method on class scores; a task with too few classes is refused.

    Attributes:
        min_classes: classes its losses are defined for.
    """

    min_classes: ClassVar[int] = 2

    def setup(self) -> None:
        require_classes(self.task, self.min_classes)


def require_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError, naming both shapes, when two networks' (N, C) logits cannot be compared."""
    if student.shape != teacher.shape:
        raise ValueError(f"student logits {tuple(student.shape)} and teacher logits {tuple(teacher.shape)} differ")


def row_divergence(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """(N,) T^2 KL(softmax(teacher / T) || softmax(student / T)) of each row; (N, h, w) of each cell of maps.

    Args:
        student, teacher: (N, C, ...) logits; the teacher's are constants.
        temperature: T, one number or an (N, 1) column.

    Raises:
        ValueError: the numbers of classes differ.
    """
    require_same_shape(student, teacher)
    log_p, log_q = (F.log_softmax(z / temperature, dim=1) for z in (student, teacher.detach()))
    return (temperature**2 * F.kl_div(log_p, log_q, reduction="none", log_target=True)).sum(dim=1)


def others(logits: Tensor, y: Tensor) -> Tensor:
    """(N, C - 1) scores of the classes other than each row's own.

    Args:
        logits: (N, C).
        y: (N,) classes.
    """
    place = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, place + (place >= y[:, None]))


def __getattr__(name: str) -> Any:
    """What has moved, for adapters of before."""
    if name != "linear_ramp":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    said_once("logits.linear_ramp(epoch, epochs) is kdbench.methods.shared.ramps.ramp('linear', epoch, epochs) now", 4)
    return partial(ramp, "linear")
