"""What a method asks of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdbench.base.fields import INPUT_WORDS

ANY_TEACHER = "*"
"""A teacher role in :attr:`Needs.teachers`: whichever teacher the task names first."""
ALL_TEACHERS = "**"
"""In :attr:`Needs.teachers`: every teacher the task names, at least one."""
TEACHER_INPUT = "teacher_input"
"""In :attr:`Needs.batch`: the picture that the teacher reads."""
VALUES = "values"
"""In :attr:`Needs.batch`: inputs of numbers that can be moved or mixed, which symbols of a vocabulary are not."""
UNSHOWN = "it has not been shown that several processes compute what one does"
"""Why a method that does not say otherwise runs in one process."""


@dataclass(frozen=True)
class Needs:
    """What a method asks of a task. Checked against what the task offers before any work.

    Attributes:
        kinds: task kinds it can run on, for what it reads of targets or class scores; None for any kind.
        inputs: ``same`` if student and teachers must see one picture, at whatever size, ``other`` if they must not.
        teachers: roles it reads, ``()`` for none, ``(ANY_TEACHER,)`` for the task's first, ``(ALL_TEACHERS,)`` for all.
        students: networks of the student's architecture it trains; the first is deployed unless ``deployed`` differs.
        student, teacher: what it reads of networks: fields of :class:`Out`, or ``classifier``, ``norm``, ``tail``,
            ``generate``; of detectors fields of :class:`Dense`, ``taps:<block>``, ``head``, which is entered by
            ``head_from``, and ``roi_head``. Of a student the task's own loss is no need. A teacher computes what is
            named here and no more.
        batch: what it reads of a batch beyond the student's input and ``y``: ``index``, ``present``; ``boxes`` of
            :class:`Objects`; ``teacher_input``, the picture that the teacher reads, which one of stored features lacks;
            ``values``, inputs of numbers that it moves or mixes.
        data: properties the task's data must have, e.g. ``rotation_safe``, ``rgb``.
        views: views that a batch must hold, of each row or of its partner.
        min_batch: smallest number of rows (before views) a step is defined for.
        teacher_batchnorm: ``batch`` if the teacher normalises with the statistics of the batch.
        trains_teacher: the method itself updates the teacher.
        changes_student: the deployed network is not the plain student (it keeps an extra module).
        one_process: why a run cannot be shared by several processes, each with some rows of every batch; None for a
            method whose losses are means over rows, or of rows from ``TaskInfo.gather``, whose stages have ``losses``,
            and which draws for the rows of the joined batch.
    """

    kinds: frozenset[str] | None = frozenset({"classification"})
    inputs: Literal["any", "same", "other"] = "any"
    teachers: tuple[str, ...] = (ANY_TEACHER,)
    students: int = 1
    student: frozenset[str] = frozenset({"logits"})
    teacher: frozenset[str] = frozenset({"logits"})
    batch: frozenset[str] = frozenset()
    data: frozenset[str] = frozenset()
    views: int = 1
    min_batch: int = 1
    teacher_batchnorm: Literal["eval", "batch"] = "eval"
    trains_teacher: bool = False
    changes_student: bool = False
    one_process: str | None = UNSHOWN

    def words(self) -> list[str]:
        """What it asks for beyond labels and the student's own output, in short words: the card's ``needs``."""
        roles = ["teacher" if role in (ANY_TEACHER, ALL_TEACHERS) else f"{role} teacher" for role in self.teachers]
        found = [f"{self.students} students"] * (self.students > 1) + roles
        found += [word] if (word := INPUT_WORDS[self.inputs]) is not None else []
        found += [f"teacher {what}" for what in sorted(self.teacher) if self.teachers and what != "logits"]
        found += [f"student {what}" for what in sorted(self.student - {"logits"})]
        found += ["teacher input"] * (TEACHER_INPUT in self.batch)
        found += [f"row {what}" for what in sorted(self.batch - {TEACHER_INPUT, VALUES})] + sorted(self.data)
        found += [f"{self.views} views"] * (self.views > 1)
        found += [f"batch of {self.min_batch}"] * (self.min_batch > 1)
        found += ["trains the teacher"] * self.trains_teacher + ["changes the student"] * self.changes_student
        return found
