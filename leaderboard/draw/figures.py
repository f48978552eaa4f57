"""Which charts a suite and a task show, each in a wide and a narrow drawing, with caption."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kdbench.leaderboard.draw.charts import Difference, Interval, Point, forest, pareto, shape
from kdbench.leaderboard.draw.numbers import digits_for, signed
from kdbench.leaderboard.draw.panels import Panel, bars, differences
from kdbench.leaderboard.draw.years import Dated, by_year
from kdbench.leaderboard.model.entries import Entry
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.leaderboard.model.ratios import Ratio, loose, over_plain, recipe_ratio, step_ratio
from kdbench.leaderboard.model.suites import SuiteBoard
from kdbench.specs.registry import PLAIN
from kdbench.stats import paired_delta, spearman

_COSTS = (("Recipe cost", "recipe cost, multiples of plain"), ("Step time", "step time, multiples of plain"))


@dataclass(frozen=True)
class Chart:
    """A drawing for wide and one for narrow screens, the word of its tab, its caption and what its shapes mean."""

    word: str
    wide: Markup
    narrow: Markup
    caption: str
    key: tuple[tuple[Markup, str, str], ...] = ()


def key_of(*parts: str) -> str:
    """An identifier for HTML made of names."""
    return "-".join("".join(c if c.isascii() and c.isalnum() else "-" for c in part) for part in parts)


def both_sizes(draw: Callable[..., Markup], key: str, *data: Any, **options: Any) -> tuple[Markup, Markup]:
    """A drawing for wide screens and one for narrow ones, which has a key of its own."""
    return draw(key, *data, narrow=False, **options), draw(f"{key}n", *data, narrow=True, **options)


def suite_charts(suite: SuiteBoard, key: str) -> tuple[Chart, ...]:
    """Cost against quality of a suite, one chart a kind of cost; none with fewer than two methods."""
    groups = {first: n for n, first in enumerate(sorted({row.first for row in suite.rows}))}
    baselines = suite.baseline.split(" / ")

    def points(cost: int) -> list[Point]:
        found = []
        for row in suite.rows:
            at = row.step_ratio if cost else row.recipe_ratio
            quality: Interval | None = (0.0, 0.0, 0.0) if row.method in baselines else None
            if row.delta is not None:
                quality = _interval(row.delta.mean, row.delta.lo, row.delta.hi)
            if at is not None and quality is not None:
                role = "baseline" if row.method in baselines else ""
                found.append(Point(row.method, at, quality, groups[row.first], role, any(map(loose, row.rows))))
        return found

    return _by_cost(
        points,
        key,
        suite.suite,
        suite.baseline,
        suite.points,
        len(suite.tasks),
        _key({row.method: row.rank for row in suite.rows}, groups),
    )


def task_charts(board: TaskBoard, key: str) -> tuple[Chart, ...]:
    """Cost against quality of one task."""
    firsts = {method: int(label.partition("-")[0]) for method, label in board.ranks.items()}
    groups = {first: n for n, first in enumerate(sorted(set(firsts.values())))}

    def points(cost: int) -> list[Point]:
        found = []
        for row in board.ranked:
            at, quality = (step_ratio(row) if cost else recipe_ratio(row)), _quality(row)
            if not row.elsewhere and at is not None and quality is not None:
                group = groups.get(firsts.get(row.method, 0), 0)
                role = "baseline" if row.is_baseline else ""
                found.append(Point(row.method, at, quality, group, role, loose(row)))
        return found

    return _by_cost(points, key, board.task.label, board.task.baseline, board.task.points, 1, _key(board.ranks, groups))


def difference_chart(board: TaskBoard, key: str) -> Chart | None:
    """Forest plot of the differences to the baseline; None with fewer than two methods."""
    told = board.told["baseline"]
    rows = [
        Difference(row.method, None if row.is_baseline else _quality(row), told.get(row.method, ""))
        for row in board.ranked
    ]
    rows = [row for row in rows if row.interval is not None or row.name == board.task.baseline]
    if len(rows) < 2:
        return None
    task = board.task
    label = f"Δ to {task.baseline}, {task.points}"
    digits = digits_for(task.unit, [value for row in board.ranked for value in row.result.scores.values()])
    wide, narrow = both_sizes(
        forest, f"{key}-forest", rows, title=f"{task.label}: {label}", label=label, unit=task.points, digits=digits
    )
    caption = (
        "Seed-paired differences, each with its own 95 % interval. Triangles and colour are the table’s ▲ and ▼: of "
        "all that bear one, about 5 % are false. Positive is better. A mark on the edge is off the scale."
    )
    return Chart("", wide, narrow, caption)


def external_chart(board: TaskBoard, key: str) -> Chart | None:
    """Differences to plain on the test rows beside those on every external test set; None where there is none."""
    task, plain = board.task, board.entry(PLAIN)
    if plain is None or not plain.external:
        return None
    rows = [row for row in board.ranked if row.method != PLAIN and row.external]
    if not rows:
        return None

    def over_plain(row: Entry, scores: Mapping[int, float], theirs: Mapping[int, float]) -> Interval | None:
        if not scores.keys() & theirs.keys():
            return None
        delta = paired_delta(dict(scores), dict(theirs), task.direction)
        return _interval(delta.mean, delta.lo, delta.hi)

    panels: list[Panel] = [
        ("test rows", [over_plain(row, row.result.scores, plain.result.scores) for row in rows]),
        *(
            (name, [over_plain(row, row.external.get(name, {}), theirs) for row in rows])
            for name, theirs in plain.external.items()
        ),
    ]
    names, title = [row.method for row in rows], f"{task.label}: Δ to plain, {task.points}"
    digits = digits_for(task.unit, [value for row in rows for value in row.result.scores.values()])
    wide, narrow = both_sizes(differences, f"{key}-external", names, panels, title=title, digits=digits)
    sets = "; ".join(f"{name}: {about}" for name, about in task.external.items())
    caption = (
        f"Seed-paired differences to plain, {task.points}, each with its own 95 % interval; positive is better. {sets}."
    )
    return Chart("", wide, narrow, caption)


def year_chart(suite: SuiteBoard, years: Mapping[str, int], key: str) -> Chart | None:
    """A suite's differences to the baseline against the years of the papers; None of fewer than two years.

    Args:
        years: of the methods that come from a paper; others are left out.
    """
    told = suite.told.get("baseline", {})
    points = [
        Dated(
            row.method,
            years[row.method],
            _interval(row.delta.mean, row.delta.lo, row.delta.hi),
            told.get(row.method, ""),
        )
        for row in suite.rows
        if row.delta is not None and row.method in years
    ]
    if len({point.year for point in points}) < 2:
        return None
    label = f"Δ to {suite.baseline}, {suite.points}"
    digits = digits_for(
        suite.unit, [v for one in suite.boards for row in one.ranked for v in row.result.scores.values()]
    )
    title = f"{suite.suite}: {label} by the year of the paper"
    wide, narrow = both_sizes(
        by_year, f"{key}-years", points, title=title, label=label, unit=suite.points, digits=digits
    )
    found = spearman([point.year for point in points], [point.y[0] for point in points])
    tied = f"Spearman’s rank correlation of year and difference is {signed(found, 2)}. " if found is not None else ""
    caption = (
        f"{tied}Triangles and colour are the table’s ▲ and ▼. A paper with variants is several marks, and papers were "
        "tuned on other data than these: this is no measure of progress in general."
    )
    return Chart("", wide, narrow, caption)


def cost_chart(board: TaskBoard, key: str) -> Chart | None:
    """Bars of time, memory, operations and whole recipe against plain's; None where nothing was measured."""
    rows = [row for row in board.ranked if not row.elsewhere and (row.result.cost is not None or row.recipe_ratio)]
    if len(rows) < 2:
        return None
    panels: list[Panel] = [
        ("step time, × plain", [step_ratio(row) for row in rows]),
        ("peak memory, × plain", [_over_plain(row, "peak_alloc_mib") for row in rows]),
        ("FLOPs a sample, × plain", [_over_plain(row, "flops_fwd_bwd") for row in rows]),
        ("recipe cost, × plain", [recipe_ratio(row) for row in rows]),
    ]
    panels = [panel for panel in panels if any(value is not None for value in panel[1])]
    title = f"{board.task.label}: training cost as multiples of plain's"
    names = [row.method for row in rows]
    caption = "Multiples of the cost of plain training; the line stands at 1. Whiskers are 95 % intervals."
    if unsure := [row.method for row in rows if loose(row)]:
        caption += f" The measurement of {', '.join(unsure)} did not converge."
    wide, narrow = both_sizes(bars, f"{key}-bars", names, panels, title=title)
    return Chart("", wide, narrow, caption)


def _key(labels: Mapping[str, str], groups: Mapping[int, int]) -> tuple[tuple[Markup, str, str], ...]:
    """Shape, best place and methods of those that could hold the same best place, best first."""
    members: dict[int, list[str]] = defaultdict(list)
    for method, label in labels.items():
        members[int(label.partition("-")[0])].append(method)
    return tuple((shape(groups[first]), str(first), ", ".join(names)) for first, names in sorted(members.items()))


def _by_cost(
    points: Callable[[int], Sequence[Point]],
    key: str,
    name: str,
    baseline: str,
    unit: str,
    tasks: int,
    shapes: tuple[tuple[Markup, str, str], ...],
) -> tuple[Chart, ...]:
    charts, about = [], f"Δ to {baseline}, {unit}"
    for cost, (word, label) in enumerate(_COSTS):
        found = points(cost)
        if len(found) < 2:
            continue
        title = f"{name}: {about} against {label}"
        wide, narrow = both_sizes(
            pareto, f"{key}-pareto{cost}", found, title=title, x_label=label, y_label=about, unit=unit
        )
        charts.append(Chart(word, wide, narrow, _caption(not cost, baseline, tasks, found), shapes))
    return tuple(charts)


def _caption(recipe: bool, baseline: str, tasks: int, found: Sequence[Point]) -> str:
    mean = f"Means over {tasks} tasks. " if tasks > 1 else ""
    crosses = (
        "Crosses are 95 % intervals; recipe cost, steps times step time, has one where a recipe is one stage."
        if recipe
        else "Crosses are 95 % intervals."
    )
    pale = "The measurement of a pale mark’s cost did not converge. " if any(p.loose for p in found) else ""
    return (
        f"{mean}{crosses} {pale}A mark’s shape tells the best place the method could hold, the cross standing for "
        "all from the sixth shape on; blue could be first. "
        f"The open mark is {baseline}. The dotted line joins the methods that none beats on both means. "
        "A mark without a name shows it when pointed at or touched; one on the edge is off the scale."
    )


def _interval(mean: float, lo: float | None, hi: float | None) -> Interval:
    return (mean, mean if lo is None else lo, mean if hi is None else hi)


def _quality(row: Entry) -> Interval | None:
    if row.is_baseline:
        return (0.0, 0.0, 0.0)
    delta = row.vs_baseline
    return None if delta is None else _interval(delta.mean, delta.lo, delta.hi)


def _over_plain(row: Entry, field: str) -> Ratio | None:
    if row.method == PLAIN:
        return (1.0, 1.0, 1.0)
    value = over_plain(row, field)
    return None if value is None else (value, value, value)
