"""About how long a task takes: multiply-adds of its nets times rows and epochs, over a device's speed. Needs no torch.

A rough guide for a person who chooses a task: within a factor of three or so.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdbench import models
from kdbench.base.errors import UserError
from kdbench.devices import backends
from kdbench.devices.base import Speed
from kdbench.specs.pair import Teacher
from kdbench.specs.task import TaskSpec

BACKWARD = 2.0
"""Work of a backward pass over that of a forward pass."""


def speed() -> tuple[str, Speed]:
    """This machine's device and its rough speed: an accelerator if there seems to be one, else its cores."""
    likely = (backend for backend in backends.every() if backend.likely())
    found = next(likely, backends.named(backends.HOST))
    return found.name, found.speed()


def forward(net: str, shape: tuple[int, ...]) -> float | None:
    """Million multiply-adds of a forward pass on one row; None for a net that does not state it, or is not known."""
    try:
        return models.work(net, shape)
    except UserError:
        return None


def minutes(
    spec: TaskSpec, rows: int, shapes: Mapping[str, tuple[int, ...]], student_rows: int, at: Speed
) -> tuple[float | None, float | None]:
    """Minutes of one kd run with one seed, and of training the pair's teachers once.

    Args:
        rows: training rows of teachers.
        shapes: of one row of each input.
        student_rows: training rows of the student.

    Returns:
        None where a net is not known.
    """
    student = forward(spec.pair.student.net, shapes[spec.pair.student.input])
    teachers = {name: forward(t.net, shapes[t.input]) for name, t in spec.pair.teachers.items()}
    if student is None or any(cost is None for cost in teachers.values()):
        return None, None
    first = next((cost or 0.0 for cost in teachers.values()), 0.0)
    run = _seconds(student * (1 + BACKWARD) + first, student_rows, spec.train.epochs, spec.train.batch, at)
    made = 0.0
    for name, teacher in spec.pair.teachers.items():
        if teacher.weights == "auto":
            made += _seconds((teachers[name] or 0.0) * (1 + BACKWARD), rows, *_protocol(spec, teacher), at)
    return run / 60, made / 60


def _protocol(spec: TaskSpec, teacher: Teacher) -> tuple[int, int]:
    return teacher.train.epochs or spec.train.epochs, teacher.train.batch or spec.train.batch


def _seconds(macs_a_row: float, rows: int, epochs: int, batch: int, at: Speed) -> float:
    steps = epochs * -(-rows // batch)
    return steps * at.step + epochs * rows * macs_a_row / at.macs
