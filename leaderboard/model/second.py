"""A second ranking of a task's rows, by a metric that it scores beside its primary one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdbench import kinds
from kdbench.leaderboard.model.entries import Entry, TaskVersion
from kdbench.stats import CellStat, Missing, Suite, TaskScale, clipped, common_set, summarise, tie_groups
from kdbench.stats.layout import ScoresOrMissing


@dataclass(frozen=True)
class Second:
    """Rows ranked by another metric; of rows that lack it for a seed nothing is said.

    Attributes:
        stats: method to its scores' mean and interval.
        ranks: method to its tie-group label; empty on an unranked task.
        higher_is_better, unit: of the metric.
    """

    stats: Mapping[str, CellStat]
    ranks: Mapping[str, str]
    higher_is_better: bool
    unit: str


def second(task: TaskVersion, metric: str, seeds: Sequence[int], rows: Sequence[Entry], ranked: bool) -> Second:
    """The complete rows of a task ranked by ``metric``, as by the primary one."""
    known = kinds.metrics()[metric]
    unit = known.unit or task.unit
    scores = {row.method: row.also.get(metric, {}) for row in rows}
    whole = {method: found for method, found in scores.items() if seeds and set(seeds) <= found.keys()}
    stats = {method: clipped(summarise(dict(found)), *known.bounds) for method, found in whole.items()}
    ranks: dict[str, str] = {}
    if ranked and whole:
        cells: dict[str, dict[str, ScoresOrMissing]] = {
            method: {task.label: {seed: found.get(seed, Missing.NOT_RUN) for seed in seeds}}
            for method, found in whole.items()
        }
        scale = TaskScale("max" if known.higher_is_better else "min", unit, tuple(seeds))
        layout = common_set(Suite(task.suite, {task.label: scale}, cells), list(whole)).layout
        if layout is not None:
            ties = tie_groups(layout)
            ranks = dict(zip(ties.methods, ties.labels, strict=True))
    return Second(stats, ranks, known.higher_is_better, unit)
