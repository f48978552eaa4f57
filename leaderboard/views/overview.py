"""Pages across tasks: costs by device class, coverage with the four kinds of missing, all pairs of a suite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from kdbench.base.errors import UserError
from kdbench.leaderboard.draw.charts import critical_difference_diagram
from kdbench.leaderboard.draw.figures import key_of
from kdbench.leaderboard.draw.numbers import NONE, between, digits_for, fixed, si, signed, significant
from kdbench.leaderboard.model.board import Board
from kdbench.leaderboard.model.entries import Entry, TaskVersion
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.leaderboard.model.ratios import step_ratio
from kdbench.leaderboard.model.suites import SuiteBoard
from kdbench.leaderboard.tables.cells import TableCell, measured_in, runs_behind
from kdbench.leaderboard.tables.costs import based, cautions, launch_words
from kdbench.leaderboard.tables.table import Table
from kdbench.records.schema.overhead import QUANTITIES
from kdbench.specs.registry import PLAIN
from kdbench.specs.tuned import AS_PUBLISHED
from kdbench.stats import (
    BOOTSTRAP_WARNING,
    Estimate,
    Layout,
    Missing,
    critical_difference,
    friedman,
    iqm,
    mean_ranks,
    probability_of_improvement,
    t_quantile,
    win_rates,
)


@dataclass(frozen=True)
class CostLine:
    """A method on a task in the table of costs."""

    method: str
    task: TaskVersion
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class CostTable:
    """All costs measured on one device class with one model of processor; ``caution``: why ratios do not carry over."""

    key: str
    device: str
    caution: str
    heads: tuple[tuple[str, str], ...]
    lines: tuple[CostLine, ...]


ENERGY = "Energy"
"""The one column that is a mean over a cell's runs; the others are of the run that measured."""


def _over(field: str) -> Callable[[Entry], float | None]:
    return lambda row: row.result.cost[field] if row.result.cost else None


def _deploy(field: str) -> Callable[[Entry], float | None]:
    return lambda row: row.deploy[field] if row.deploy else None


def _recipe_hours(row: Entry) -> tuple[str, ...]:
    return based(row.result.totals)


@dataclass(frozen=True)
class _Cost:
    """A column of costs; ``based``: what its hours go by, of one that has hours."""

    head: str
    unit: str
    get: Callable[[Entry], float | None]
    show: Callable[[float], str] = significant
    based: Callable[[Entry], tuple[str, ...]] = lambda row: ()


_COSTS = (
    *(
        _Cost(said.head, said.column_unit, _over(field), si if said.si else significant)
        for field, said in QUANTITIES.items()
        if said.head and field != "step_ratio"  # it stands first, with its interval
    ),
    _Cost("One more student", "device-h", lambda row: row.result.totals.student_h, based=_recipe_hours),
    _Cost("Recipe", "device-h", lambda row: row.result.totals.recipe_h, based=_recipe_hours),
    _Cost(
        "Full", "device-h", lambda row: row.result.totals.full_h,
        based=lambda row: based(row.result.totals, teacher=True),
    ),
    _Cost(ENERGY, "kWh", lambda row: row.energy_kwh),
    _Cost("Deployed", "params", _deploy("params"), si),
    _Cost("Latency b = 1", "ms", _deploy("latency_ms_b1")),
    _Cost("Latency b = 128", "ms", _deploy("latency_ms_b128")),
)  # fmt: skip


def cost_tables(board: Board) -> list[CostTable]:
    """One table a device class, ruleset and processor; the newest version of every task, rows that are comparable."""
    devices: dict[str, list[CostLine]] = defaultdict(list)
    rows: dict[str, list[Entry]] = defaultdict(list)
    for one in board.task_boards:
        for row in one.comparable if one.task.newest else ():
            line = CostLine(row.method, one.task, tuple(_cost_cells(row)))
            devices[f"{one.place}, {row.processor}"].append(line)
            rows[f"{one.place}, {row.processor}"].append(row)
    heads = (("Step time", "× plain"), *((cost.head, cost.unit) for cost in _COSTS))
    measured = sorted(devices, key=lambda device: (all(row.result.cost is None for row in rows[device]), device))
    return [_cost_table(device, devices[device], heads, launch_words(rows[device])) for device in measured]


def _cost_table(device: str, lines: list[CostLine], heads: Sequence[tuple[str, str]], caution: str) -> CostTable:
    """The columns in which something was measured."""
    told = [n for n, _ in enumerate(heads) if any(line.cells[n].behind for line in lines)]
    kept = (replace(line, cells=tuple(line.cells[n] for n in told)) for line in lines)
    return CostTable(
        key_of("costs", device), device, caution, tuple(heads[n] for n in told),
        tuple(sorted(kept, key=lambda line: (line.task.name, line.method))),
    )  # fmt: skip


def _cost_cells(row: Entry) -> list[TableCell]:
    ratio = step_ratio(row)
    if ratio is None:
        cells = [TableCell(NONE)]
    elif row.method == PLAIN:
        cells = [TableCell("1", 1.0, sub="reference")]
    else:
        interval = between(ratio[1], ratio[2], 2)
        cells = [
            TableCell(
                significant(ratio[0]),
                ratio[0],
                sub=interval,
                tags=cautions(row),
                lo=ratio[1],
                hi=ratio[2],
                behind=measured_in(row),
            )
        ]
    for cost in _COSTS:
        value, behind = cost.get(row), runs_behind(row.cell) if cost.head == ENERGY else measured_in(row)
        cells.append(
            TableCell(NONE)
            if value is None
            else TableCell(cost.show(value), value, tags=cost.based(row), behind=behind)
        )
    return cells


@dataclass(frozen=True)
class CoverageCell:
    """A method on a task: its seeds, or which kind of missing and why; ``behind``: the page of its runs."""

    text: str
    kind: str
    why: str = ""
    behind: str = ""


@dataclass(frozen=True)
class CoverageTable:
    """Methods by tasks on one device class.

    Attributes:
        tasks: those with records first; of these there are ``begun``.
    """

    key: str
    device: str
    tasks: tuple[TaskVersion, ...]
    begun: int
    rows: tuple[tuple[str, tuple[CoverageCell, ...]], ...]


def coverage_tables(board: Board) -> list[CoverageTable]:
    """Every registered method and every current task as published, device class by device class."""
    current = tuple(task for task in board.tasks if task.newest)
    methods = sorted({*board.catalogue.methods, *(m for one in board.task_boards for m in _present(one))})
    kinds = {task.kind for task in current}
    untried = {(method, kind): _untried(board, method, kind) for method in methods for kind in kinds}
    tables = []
    published = [one for one in board.task_boards if one.ruleset == AS_PUBLISHED]
    for device in sorted({one.device for one in published}):
        places = {one.task: one for one in published if one.device == device}
        listed = tuple(sorted(current, key=lambda task: task not in places))
        rows = tuple(
            (method, tuple(_coverage(places.get(task), method, untried[method, task.kind]) for task in listed))
            for method in methods
        )
        begun = sum(task in places for task in listed)
        tables.append(CoverageTable(key_of("coverage", device), device, listed, begun, rows))
    return tables


def _present(one: TaskBoard) -> set[str]:
    return {row.method for row in (*one.ranked, *one.apart)} | {hole.method for hole in one.holes}


def _untried(board: Board, method: str, kind: str) -> CoverageCell:
    """Of a method without a record on a task of a kind: that its card rules it out, or that nobody ran it."""
    reason = board.catalogue.refusal(method, kind)
    hole = Missing.NOT_RUN if reason is None else Missing.NOT_APPLICABLE
    return CoverageCell(hole.label, hole.value, reason or "not run")


def _coverage(one: TaskBoard | None, method: str, untried: CoverageCell) -> CoverageCell:
    if one is None:
        return untried
    row = one.entry(method)
    if row is not None:
        done, whole = len(row.result.scores.keys() & set(one.seeds)), len(one.seeds)
        if done == whole:
            word = f"{len(row.result.scores)} seeds" if len(row.result.scores) > 1 else "1 seed"
            return CoverageCell(word, "ok", behind=runs_behind(row.cell))
        kind = "failed" if "failed" in row.apart else "part"
        return CoverageCell(f"{done} of {whole}", kind, row.apart, runs_behind(row.cell))
    aside = next((row for row in one.apart if row.method == method and not row.custom), None)
    if aside is not None:
        return CoverageCell("apart", "part", aside.apart, runs_behind(aside.cell))
    hole = next((hole for hole in one.holes if hole.method == method), None)
    if hole is None:
        return untried
    return CoverageCell(hole.kind.label, hole.kind.value, hole.reason, f"runs/{hole.run}.html" if hole.run else "")


@dataclass(frozen=True)
class PairTable:
    """All pairs of a suite on one device class.

    Attributes:
        scores: method; of each task mean score, seeds' scores as the page's script reads them, the page of its runs.
        deltas: method, then the mean difference to each other method and whether the two are separated.
        extra: rows of the secondary statistics, method first.
    """

    key: str
    suite: SuiteBoard
    methods: tuple[str, ...]
    scores: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]
    deltas: tuple[tuple[str, tuple[tuple[str, bool], ...]], ...]
    extra: tuple[tuple[str, ...], ...]
    extra_note: str
    diagram: Markup | None
    digits: int


def pair_tables(board: Board) -> list[PairTable]:
    """One a suite and device class with something to compare."""
    return [_pairs(suite) for suite in board.suites if has_pairs(suite)]


def has_pairs(suite: SuiteBoard) -> bool:
    """Whether there is something to compare in a suite."""
    return suite.layout is not None and len(suite.rows) > 1


def pickable(table: Table, suite: SuiteBoard | None) -> Table:
    """A table whose rows can be ticked, and are then compared among the pairs of the suite."""
    if suite is None or not has_pairs(suite):
        return table
    return replace(table, compare=_pairs_key(suite), picks=frozenset(row.method for row in suite.rows))


def _pairs_key(suite: SuiteBoard) -> str:
    return key_of("pairs", suite.suite, suite.place)


def quantiles() -> str:
    """Student's two-sided 95 % quantiles as the page's script reads them, ``df:t`` from 1 degree of freedom up."""
    grid = [1 + n / 4 for n in range(16)] + [float(n) for n in range(5, 31)] + [40.0, 60.0, 120.0, 1000.0]
    return " ".join(f"{df:g}:{t_quantile(df):.6g}" for df in grid)


def _pairs(suite: SuiteBoard) -> PairTable:
    assert suite.layout is not None
    assert suite.ties is not None
    layout, names = suite.layout, suite.ties.methods
    values = [value for one in suite.boards for row in one.comparable for value in row.result.scores.values()]
    digits = digits_for(suite.unit, values)
    means = dict(zip(layout.methods, layout.means.mean(axis=1), strict=True))
    deltas = tuple(
        (
            a,
            tuple(
                (NONE if a == b else signed(float(means[a] - means[b]), digits), a != b and suite.ties.separated(a, b))
                for b in names
            ),
        )
        for a in names
    )
    scores = tuple(
        (name, tuple(_scores(one, name, digits) for one in suite.boards))
        for name in (*names, *(m for m, _ in suite.below))
    )
    key = _pairs_key(suite)
    extra, note = _extra(layout, suite, names, digits)
    diagram = None
    if len(layout.tasks) > 1 and len(names) > 2:
        found = critical_difference(layout)
        title = f"Critical-difference diagram of {suite.suite} on {suite.place}"
        diagram = critical_difference_diagram(f"{key}-cd", found, title=title)
    return PairTable(key, suite, names, scores, deltas, extra, note, diagram, digits)


def _scores(one: TaskBoard, method: str, digits: int) -> tuple[str, str, str]:
    row = one.entry(method)
    if row is None:
        hole = next((hole for hole in one.holes if hole.method == method), None)
        return (hole.kind.label if hole else NONE, "", "")
    turn = 1 if one.task.higher_is_better else -1
    if row.apart:
        return (row.apart, "", runs_behind(row.cell))
    return (
        fixed(row.result.stat.mean, digits),
        " ".join(f"{turn * row.result.scores[seed]:.6g}" for seed in one.seeds),
        runs_behind(row.cell),
    )


def _extra(
    layout: Layout, suite: SuiteBoard, names: tuple[str, ...], digits: int
) -> tuple[tuple[tuple[str, ...], ...], str]:
    """Secondary statistics, only where there is more than one task; the baseline must be among the methods."""
    if len(layout.tasks) < 2:
        return (), ""
    ranks, wins = mean_ranks(layout), win_rates(layout)
    middle: dict[str, Estimate] = {}
    chance: dict[str, Estimate] = {}
    try:
        middle = iqm(layout.against(suite.baseline))
        chance = {m: probability_of_improvement(layout, m, suite.baseline) for m in names}
    except UserError:
        pass  # the baseline is not complete on these tasks: ranks and wins stand without it
    rows = tuple(
        (
            method,
            fixed(ranks[method], 2),
            fixed(100 * wins[method], 0),
            _estimate(middle.get(method), digits, sign=True),
            _estimate(chance.get(method), 2),
        )
        for method in names
    )
    note = f"Over {len(layout.tasks)} tasks; {BOOTSTRAP_WARNING}. Win rates depend on who is listed."
    if len(names) > 2:
        test = friedman(layout)
        note += f" Friedman’s test over all methods: χ² = {significant(test.statistic)}, p = {significant(test.p, 2)}."
    return rows, note


def _estimate(found: Estimate | None, digits: int, *, sign: bool = False) -> str:
    if found is None:
        return NONE
    value = signed(found.value, digits) if sign else fixed(found.value, digits)
    return (
        value if found.lo is None or found.hi is None else f"{value} {between(found.lo, found.hi, digits, sign=sign)}"
    )
