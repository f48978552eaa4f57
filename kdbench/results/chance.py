"""Whether a score says that anything was learnt at all. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdbench import kinds
from kdbench.base.errors import UserError
from kdbench.records.files import Record


def level(record: Record) -> float | None:
    """The primary metric of an answer that ignores the input; None where that is not known.

    Records that do not state it: that of equally frequent classes, as many as the registered task's data have.
    """
    if record.task.chance is not None:
        return record.task.chance
    metric = kinds.metrics().get(record.task.metric_primary)
    if metric is None or metric.chance is None or metric.unit is None:
        return None
    from kdbench.data import status
    from kdbench.specs import registry

    if record.task.name not in registry.task_files():  # asked for every cell, and an error searches the folders anew
        return None
    try:
        classes = status.classes(registry.task(record.task.name))
    except UserError:
        return None
    return metric.chance(range(classes)) if classes > 1 else None


def seeds(record: Record, scores: Mapping[int, float]) -> tuple[int, ...]:
    """Those of a cell's seeds whose score is not told from that of an answer which ignores the input.

    Args:
        record: any run of the cell.
    """
    chance = level(record)
    if chance is None or record.metrics is None:
        return ()
    metric, items = kinds.metrics()[record.task.metric_primary], record.metrics.test_items
    return tuple(seed for seed, score in scores.items() if metric.at_chance(score, chance, items))


def words(at: int, n: int) -> str:
    """``4 of 5 learned`` where ``at`` of ``n`` seeds stayed at chance; "" for none."""
    return f"{n - at} of {n} learned" if at else ""


def learned(scores: Mapping[int, float], at_chance: Sequence[int]) -> dict[int, float]:
    """The seeds that means are taken over: those that learned, all of them where none did."""
    return {seed: score for seed, score in scores.items() if seed not in at_chance} or dict(scores)
