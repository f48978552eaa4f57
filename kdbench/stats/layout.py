"""The scores of one suite, and the largest complete seed-paired table that can be ranked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdbench.base.errors import UserError, nearest
from kdbench.stats.cell import finite
from kdbench.stats.missing import Missing

Direction = Literal["max", "min"]
ScoresOrMissing = Missing | Mapping[int, float | Missing]
"""A whole missing cell, or seed to last-epoch score or kind of missing."""


def sign(direction: Direction) -> float:
    """+1 where more is better, -1 where less is.

    Raises:
        UserError: another word.
    """
    if direction not in ("max", "min"):
        raise UserError(f"direction {direction!r}: say 'max' or 'min'")
    return 1.0 if direction == "max" else -1.0


@dataclass(frozen=True)
class TaskScale:
    """How a task's score reads, and which seeds make a cell complete."""

    direction: Direction
    unit: str
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Suite:
    """Tasks of one kind, one unit and one scale, with every method's scores. Nothing is compared across suites.

    Attributes:
        name: the suite's name.
        tasks: task to its scale.
        scores: method to task to :data:`ScoresOrMissing`. What is absent was not run.

    Raises:
        UserError: tasks of different direction or unit, a task without seeds, a score that is not finite, or a score
            for a task that the suite lacks.
    """

    name: str
    tasks: Mapping[str, TaskScale]
    scores: Mapping[str, Mapping[str, ScoresOrMissing]]

    def __post_init__(self) -> None:
        scales = {(scale.direction, scale.unit) for scale in self.tasks.values()}
        if len(scales) > 1:
            found = ", ".join(f"{direction} {unit}" for direction, unit in sorted(scales))
            raise UserError(
                f"suite {self.name!r} mixes {found}; rank suites of one direction and unit, or bring every task to "
                "one scale first and give that scale's own unit"
            )
        for direction, _ in scales:
            sign(direction)
        for task, scale in self.tasks.items():
            if not scale.seeds or len(set(scale.seeds)) != len(scale.seeds):
                raise UserError(f"task {task!r}: seeds {scale.seeds} must be distinct and at least one")
        for method, cells in self.scores.items():
            for task, cell in cells.items():
                if task not in self.tasks:
                    raise UserError(f"{method}: no task {task!r} in suite {self.name!r}{nearest(task, self.tasks)}")
                held = [] if isinstance(cell, Missing) else [x for x in cell.values() if not isinstance(x, Missing)]
                if held:
                    finite(held, f"{method} on {task}")

    def state(self, method: str, task: str) -> Missing | None:
        """None for a complete cell (a score for every seed of the task), else what is missing."""
        cell = self.scores.get(method, {}).get(task, Missing.NOT_RUN)
        if isinstance(cell, Missing):
            return cell
        kinds = {x for s in self.tasks[task].seeds if isinstance(x := cell.get(s, Missing.NOT_RUN), Missing)}
        return next((kind for kind in Missing if kind in kinds), None)

    def oriented(self, method: str, task: str) -> NDArray[np.float64]:
        """(seeds,) scores of a complete cell, in the order of the task's seeds, turned so that more is better."""
        missing, scale = self.state(method, task), self.tasks[task]
        cell = self.scores.get(method, {}).get(task)
        if missing is not None or not isinstance(cell, Mapping):
            raise UserError(f"{method} on {task}: {missing}, there is no complete cell to compare")
        return sign(scale.direction) * np.array([cell[s] for s in scale.seeds], dtype=np.float64)

    def chosen(self, methods: Iterable[str] | None) -> tuple[str, ...]:
        """The named methods, or all.

        Raises:
            UserError: a name without scores, or a name given twice.
        """
        if methods is None:
            return tuple(self.scores)
        names = tuple(methods)
        for name in names:
            if name not in self.scores:
                raise UserError(f"no method {name!r} in suite {self.name!r}{nearest(name, self.scores)}")
        if len(set(names)) != len(names):
            raise UserError(f"suite {self.name!r}: a method is named twice in {', '.join(names)}")
        return names


@dataclass(frozen=True)
class Layout:
    """A complete table: every method holds every seed of every task.

    Attributes:
        methods, tasks: names, in the order of the axes.
        values: one (methods, seeds) array a task, turned so that more is better; column s is the same seed for all.
        unit: of the values.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    values: tuple[NDArray[np.float64], ...]
    unit: str

    def __post_init__(self) -> None:
        fits = len(self.values) == len(self.tasks) > 0 and self.methods
        if not fits or any(v.ndim != 2 or len(v) != len(self.methods) or v.shape[1] < 1 for v in self.values):
            raise UserError("layout: one (methods, seeds) array is needed for each of one or more tasks")
        if len(set(self.methods)) != len(self.methods):
            raise UserError("layout: a method is named twice")
        if not all(np.isfinite(v).all() for v in self.values):
            raise UserError("layout: a value is not finite")

    @property
    def means(self) -> NDArray[np.float64]:
        """(methods, tasks) means over seeds."""
        return np.stack([v.mean(axis=1) for v in self.values], axis=1)

    def index(self, method: str) -> int:
        """Row of a method."""
        if method not in self.methods:
            raise UserError(f"no method {method!r} in the compared set{nearest(method, self.methods)}")
        return self.methods.index(method)

    def against(self, reference: str) -> Layout:
        """Seed-paired differences to ``reference``: one scale for easy and hard tasks of one unit."""
        row = self.index(reference)
        return Layout(self.methods, self.tasks, tuple(v - v[row] for v in self.values), self.unit)


@dataclass(frozen=True)
class Common:
    """The common complete set.

    Attributes:
        layout: the ranked methods on the tasks complete for all of them; None where there is none.
        coverage: method to (tasks complete, tasks of the suite), of every chosen method.
        below: methods under the chosen coverage, to be listed apart and not ranked.
        note: the tasks in common, or why there is nothing to rank.
    """

    layout: Layout | None
    coverage: Mapping[str, tuple[int, int]]
    below: tuple[str, ...]
    note: str


def common_set(suite: Suite, methods: Iterable[str] | None = None, *, min_coverage: float = 1.0) -> Common:
    """Methods covering at least ``min_coverage`` of the suite's tasks, on the tasks complete for all of them.

    Raises:
        UserError: an unknown method, or a coverage outside 0 to 1.
    """
    if not 0 <= min_coverage <= 1:
        raise UserError(f"coverage {min_coverage}: say a share from 0 to 1")
    names, total = suite.chosen(methods), len(suite.tasks)
    complete = {m: {t for t in suite.tasks if suite.state(m, t) is None} for m in names}
    coverage = {m: (len(done), total) for m, done in complete.items()}
    ranked = tuple(m for m in names if complete[m] and len(complete[m]) >= min_coverage * total - 1e-9)
    below = tuple(m for m in names if m not in ranked)
    tasks = tuple(t for t in suite.tasks if ranked and all(t in complete[m] for m in ranked))
    if not tasks:
        why = (
            "no task is complete for all its methods" if ranked else f"no method covers {min_coverage:.0%} of its tasks"
        )
        note = f"nothing to rank in {suite.name}: {why}"
        return Common(None, coverage, below, note)
    values = tuple(np.stack([suite.oriented(m, t) for m in ranked]) for t in tasks)
    layout = Layout(ranked, tasks, values, suite.tasks[tasks[0]].unit)
    return Common(layout, coverage, below, f"ranked on {len(tasks)} of {total} tasks")
