"""A suite's board: one ranking over the tasks that its methods have in common; nothing is compared across suites."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kdbench.leaderboard.model.entries import Entry, TaskVersion, place_of
from kdbench.leaderboard.model.ranking import TaskBoard, margin_of
from kdbench.leaderboard.model.ratios import Ratio, geometric, recipe_ratio, step_ratio, usual_processor
from kdbench.specs.registry import PLAIN
from kdbench.stats import (
    Layout,
    PooledDelta,
    Suite,
    TaskScale,
    TieGroups,
    Told,
    WithBest,
    common_set,
    pooled_delta,
    tie_groups,
    told,
    with_best,
)
from kdbench.stats.layout import ScoresOrMissing


@dataclass(frozen=True)
class SuiteRow:
    """A ranked method of a suite.

    Attributes:
        best: ``best``, ``≈ best``, ``undecided`` or "" (:class:`kdbench.stats.WithBest`).
        delta: mean over the common tasks of the difference to the baseline; None for the baseline itself.
        matched: the same to plain trained for as long as the method's recipe takes.
        step_ratio, recipe_ratio: (value, lo, hi), geometric means over the common tasks; None where one lacks it.
        elsewhere: the processors that they were measured on, where most rows of the suite have another.
        rows: its rows on the common tasks.
    """

    method: str
    rank: str
    first: int
    best: str
    delta: PooledDelta | None
    matched: PooledDelta | None
    step_ratio: Ratio | None
    recipe_ratio: Ratio | None
    coverage: tuple[int, int]
    elsewhere: str = ""
    rows: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class SuiteBoard:
    """One suite on one device class, by one ruleset.

    Attributes:
        tasks: those compared on, complete for every ranked method.
        below: methods that hold fewer tasks, with their coverage, not ranked.
        layout: the complete table, None where there is nothing to rank.
        told: reference (``baseline``, ``matched``) to method to what its difference is taken for.
    """

    suite: str
    device: str
    ruleset: str
    unit: str
    points: str
    baseline: str
    tasks: tuple[TaskVersion, ...]
    all_tasks: tuple[TaskVersion, ...]
    rows: tuple[SuiteRow, ...]
    below: tuple[tuple[str, tuple[int, int]], ...]
    layout: Layout | None
    ties: TieGroups | None
    note: str
    boards: tuple[TaskBoard, ...]
    told: Mapping[str, Mapping[str, Told]] = field(default_factory=dict)
    best: WithBest | None = None

    @property
    def place(self) -> str:
        """Device class and ruleset in words."""
        return place_of(self.device, self.ruleset)


def suites(boards: Sequence[TaskBoard]) -> Iterator[SuiteBoard]:
    """One a suite of ranked tasks, device class, ruleset and unit, from the boards of their newest versions."""
    places: dict[tuple[str, str, str, str, str], list[TaskBoard]] = defaultdict(list)
    for one in boards:
        if one.task.ranked and one.task.newest:
            places[one.task.suite, one.device, one.ruleset, one.task.unit, one.task.direction].append(one)
    for (suite, device, ruleset, unit, _), members in sorted(places.items()):
        yield _suite(suite, device, ruleset, unit, [one for one in members if one.seeds])


def _suite(name: str, device: str, ruleset: str, unit: str, boards: list[TaskBoard]) -> SuiteBoard:
    every = tuple(one.task for one in boards)
    baselines = sorted({one.task.baseline for one in boards})
    empty = SuiteBoard(
        name,
        device,
        ruleset,
        unit,
        "pt" if unit == "%" else unit,
        " / ".join(baselines),
        (),
        every,
        (),
        (),
        None,
        None,
        "no complete result yet",
        tuple(boards),
    )
    scores: dict[str, dict[str, ScoresOrMissing]] = defaultdict(dict)
    for one in boards:
        for method, cell in one.scores.items():
            scores[method][one.task.label] = cell
    if not scores:
        return empty
    scales = {one.task.label: TaskScale(one.task.direction, unit, one.seeds) for one in boards}
    table = Suite(name, scales, dict(sorted(scores.items())))
    shares = sorted({done / total for done, total in common_set(table).coverage.values() if done}, reverse=True)
    # The coverage that ranks most cells; between equals the one with more tasks.
    options = [common_set(table, min_coverage=share) for share in shares]
    options = [option for option in options if option.layout is not None]
    if not options:
        return empty
    best = max(
        options,
        key=lambda o: (len(o.layout.methods) * len(o.layout.tasks), len(o.layout.tasks)) if o.layout else (0, 0),
    )
    assert best.layout is not None
    ties = tie_groups(best.layout)
    used = [one for one in boards if one.task.label in best.layout.tasks]
    below = tuple((method, best.coverage[method]) for method in best.below)
    margin = sum(margin_of(one.task, one.ranked) for one in used) / len(used)
    lead = with_best(best.layout, margin)
    usual = usual_processor(row for one in used for row in one.ranked)
    rows = tuple(
        _suite_row(method, lead, first, label, used, best.coverage[method], usual)
        for method, (first, _), label in zip(ties.methods, ties.ranks, ties.labels, strict=True)
    )
    return SuiteBoard(
        name,
        device,
        ruleset,
        unit,
        empty.points,
        empty.baseline,
        tuple(one.task for one in used),
        every,
        rows,
        below,
        best.layout,
        ties,
        best.note,
        tuple(boards),
        {
            "baseline": told({row.method: row.delta for row in rows}),
            "matched": told({row.method: row.matched for row in rows}),
        },
        lead,
    )


def _suite_row(
    method: str,
    lead: WithBest | None,
    first: int,
    label: str,
    boards: Sequence[TaskBoard],
    coverage: tuple[int, int],
    usual: str | None,
) -> SuiteRow:
    rows = [row for one in boards if (row := one.entry(method)) is not None]
    deltas = [row.vs_baseline for row in rows if row.vs_baseline is not None]
    longer = [row.result.to_matched for row in rows if row.result.to_matched is not None]
    alike = method == PLAIN or all(row.processor == usual for row in rows if row.result.cost is not None)
    return SuiteRow(
        method=method,
        rank=label,
        first=first,
        best=lead.word(method) if lead is not None else "",
        delta=pooled_delta(deltas) if len(deltas) == len(boards) else None,
        matched=pooled_delta(longer) if len(longer) == len(boards) else None,
        step_ratio=geometric([step_ratio(row) for row in rows]) if alike else None,
        recipe_ratio=geometric([recipe_ratio(row) for row in rows]) if alike else None,
        elsewhere=", ".join(sorted({row.processor for row in rows})) if not alike else "",
        coverage=coverage,
        rows=tuple(rows),
    )
