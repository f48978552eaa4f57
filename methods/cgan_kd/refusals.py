"""What cannot serve the method: hyper-parameters that do not go together, tasks without one image or a label range."""

from __future__ import annotations

from typing import Any

from kdbench.base.errors import UserError
from kdbench.contract import Network, NotApplicable, TaskInfo
from kdbench.methods.cgan_kd.ratio import GROUPS


def check(hp: Any) -> None:
    """Raises :class:`UserError` for hyper-parameters that do not go together."""
    if hp.relabel and not hp.filter:
        raise UserError("method.relabel=true needs method.filter=true: only filtered fakes get the teacher's label")
    if wrong := [width for width in hp.ratio_widths if width % GROUPS or width < 4 * GROUPS]:
        raise UserError(
            f"method.ratio_widths: {wrong[0]} is not a multiple of {GROUPS} of at least {4 * GROUPS}; "
            "its group norm would leave nothing to tell rows apart"
        )


def check_classes(classes: int, filters: bool) -> None:
    """Raises :class:`NotApplicable` for a filter that nothing can pass."""
    if classes < 2 and filters:
        raise NotApplicable("of a single class the teacher's loss is 0 on every fake, so none is below its quantile")


def image_input(task: TaskInfo, student: Network, teacher: Network) -> str:
    """Name of the one image input that student and teacher read.

    Raises:
        NotApplicable: there are others, or it is not a square image.
    """
    names = list(task.raw_shape)
    if len(names) > 1 or student.input != teacher.input:
        raise NotApplicable(f"its generator makes rows of one image input, the task has {', '.join(names)}")
    shape = task.raw_shape[names[0]]
    if len(shape) != 3 or shape[1] != shape[2]:
        raise NotApplicable(f"its generator makes square images, input {names[0]!r} has shape {tuple(shape)}")
    return names[0]


def checked_range(task: TaskInfo) -> tuple[float, float]:
    """The label range of a regression.

    Raises:
        NotApplicable: the task names none, or a training label lies outside.
    """
    if task.label_range is None:
        raise NotApplicable("the task names no range of its labels")
    low, high = task.label_range
    slack = 1e-5 * (high - low)
    if float(task.train_labels.min()) < low - slack or float(task.train_labels.max()) > high + slack:
        raise NotApplicable("a training label lies outside the range that the task names")
    return low, high
