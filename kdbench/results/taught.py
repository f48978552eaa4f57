"""How good a run's teachers are, in words: what a student is told by matters as much as how."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kdbench.records.files import Record


def score_of(record: Record) -> float | None:
    """The primary metric of what the student learnt from: of the mean of its teachers, or of the best of them; of a
    teacher that the method trained on, that of before, which other methods share."""
    models = record.models
    if models.ensemble is not None:
        return models.ensemble.val_metric
    known = [teacher.val_metric for teacher in models.teachers if teacher.val_metric is not None]
    if not known:
        return None
    return max(known) if record.task.higher_is_better else min(known)


def each(record: Record) -> list[dict[str, Any]]:
    """Role, net and primary metric (None where it is not known) of every teacher, and ``trained_score`` of one that the
    method trained on."""
    return [
        {"role": each.role, "arch": each.arch, "score": each.val_metric}
        | ({} if each.trained_metric is None else {"trained_score": each.trained_metric})
        for each in record.models.teachers
    ]


def before_and_after(record: Record) -> list[tuple[str, float, float]]:
    """Role and primary metric, before and after, of every teacher that the method itself trained on."""
    return [
        (each.role, each.val_metric, each.trained_metric)
        for each in record.models.teachers
        if each.val_metric is not None and each.trained_metric is not None
    ]


def words(record: Record) -> str:
    """``teacher 99.12 %``, several by role, and what one became that the method trained on; empty where there is none
    or its score is not known."""
    models = record.models
    known = [teacher for teacher in models.teachers if teacher.val_metric is not None]
    if models.ensemble is not None:
        return f"mean of {len(models.teachers)} teachers {models.ensemble.val_metric:.2f} {record.task.unit}"
    each = [f"{teacher.val_metric:.2f}{_became(teacher.trained_metric)} {record.task.unit}" for teacher in known]
    if len(known) == 1:
        return f"teacher {each[0]}"
    by_role = ", ".join(f"{teacher.role} {said}" for teacher, said in zip(known, each, strict=True))
    return f"teachers {by_role}" if known else ""


def _became(score: float | None) -> str:
    return "" if score is None else f" → {score:.2f}"


def is_worse(teacher: float | None, student: float | None, higher_is_better: bool) -> bool:
    """Whether a student learnt from something worse than it became; False where either score is not known."""
    if teacher is None or student is None:
        return False
    return teacher < student if higher_is_better else teacher > student


def warning(records: Iterable[Record]) -> str | None:
    """Says that a teacher is worse than its student, where it is so in any of some runs; smoke runs tell nothing."""
    for record in records:
        taught, own = score_of(record), record.score
        if not record.smoke and is_worse(taught, own, record.task.higher_is_better):
            unit, metric = record.task.unit, record.task.metric_primary
            return (
                f"{record.task.name}: the teacher is worse than its student ({metric} {taught:.2f} {unit} against "
                f"{own:.2f} {unit}, {record.method_name} seed {record.seed}); are its weights and its training right?"
            )
    return None
