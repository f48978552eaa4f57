"""Who is compared with whom, in what order: one table a task, device class and ruleset, one ranking a suite of them.

Nothing is compared across suites, device classes, rulesets or task versions. Within a table only rows of one teacher
and one engine version meet; the others stand apart with their reason.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kdbench.leaderboard.model.catalogue import Catalogue
from kdbench.leaderboard.model.entries import (
    CUSTOM,
    INCOMPLETE,
    MATCHED,
    OTHER_DATA,
    SMOKE,
    Entry,
    TaskVersion,
    entries,
    place_of,
    tasks,
)
from kdbench.leaderboard.model.second import Second, second
from kdbench.leaderboard.model.source import IndexRow, Source
from kdbench.results.costs import SEARCH
from kdbench.specs.registry import PLAIN
from kdbench.stats import (
    Layout,
    Missing,
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

MARGIN_POINTS, MARGIN_SHARE = 1.0, 0.05
FAILED = {"failed", "timeout", "oom", "diverged"}


@dataclass(frozen=True)
class Hole:
    """A method without a complete cell: which kind of missing, why, and a run to look at."""

    method: str
    kind: Missing
    reason: str = ""
    run: str = ""


@dataclass(frozen=True)
class TaskBoard:
    """One task on one device class, by one ruleset.

    Attributes:
        seeds: the seeds a complete cell holds: those of the baseline, else of plain, else all that were tried.
        ranked: complete rows, best first; ``ranks`` holds their tie-group label, empty strings on an unranked task.
        apart: rows with numbers that are not ranked, with the reason in ``Entry.apart``.
        holes: methods without a result.
        seconds: the same rows ranked by other metrics, by metric.
        best: which rows could be the best; None on an unranked task, or where nothing tells.
        told: reference (``baseline``, ``plain``, ``matched``) to method to what its difference is taken for.
    """

    task: TaskVersion
    device: str
    ruleset: str
    seeds: tuple[int, ...]
    ranked: tuple[Entry, ...]
    ranks: Mapping[str, str]
    apart: tuple[Entry, ...]
    holes: tuple[Hole, ...]
    ties: TieGroups | None
    seconds: Mapping[str, Second] = field(default_factory=dict)
    best: WithBest | None = None
    told: Mapping[str, Mapping[str, Told]] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Device class and ruleset in words."""
        return place_of(self.device, self.ruleset)

    @property
    def comparable(self) -> tuple[Entry, ...]:
        """Complete rows and those that lack only seeds."""
        return (*self.ranked, *(row for row in self.apart if row.apart.startswith(INCOMPLETE)))

    def entry(self, method: str) -> Entry | None:
        """The comparable row of a method."""
        return next((row for row in self.comparable if row.method == method), None)

    @property
    def scores(self) -> dict[str, ScoresOrMissing]:
        """Method to its seeds' scores or kind of missing, for the suite's table."""
        cells: dict[str, ScoresOrMissing] = {
            hole.method: hole.kind for hole in self.holes if hole.kind is not Missing.NOT_RUN
        }
        for row in self.comparable:
            cells[row.method] = {s: row.result.scores.get(s, Missing.NOT_RUN) for s in self.seeds}
        return cells


@dataclass(frozen=True)
class SuiteRow:
    """A ranked method of a suite.

    Attributes:
        best: ``best``, ``≈ best``, ``undecided`` or "" (:class:`kdbench.stats.WithBest`).
        delta: mean over the common tasks of the difference to the baseline; None for the baseline itself.
        matched: the same to plain trained for as long as the method's recipe takes.
        step_ratio, recipe_ratio: (value, lo, hi), geometric means over the common tasks; None where one lacks it.
        elsewhere: the processors that they were measured on, where most rows of the suite have another.
    """

    method: str
    rank: str
    first: int
    best: str
    delta: PooledDelta | None
    matched: PooledDelta | None
    step_ratio: tuple[float, float, float] | None
    recipe_ratio: tuple[float, float, float] | None
    coverage: tuple[int, int]
    elsewhere: str = ""


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


@dataclass(frozen=True)
class Board:
    """Everything the pages show."""

    source: Source
    catalogue: Catalogue
    tasks: tuple[TaskVersion, ...]
    entries: tuple[Entry, ...]
    task_boards: tuple[TaskBoard, ...]
    suites: tuple[SuiteBoard, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """Registered methods and those with records."""
        return tuple(sorted({*self.catalogue.methods, *(row["method"] for row in self.source.runs.values())}))


def board(source: Source, catalogue: Catalogue) -> Board:
    """The board of an index."""
    known = tasks(source, catalogue)
    rows = entries(source, catalogue, known)
    by_place: dict[tuple[TaskVersion, str, str], list[Entry]] = defaultdict(list)
    runs: dict[tuple[TaskVersion, str, str], list[IndexRow]] = defaultdict(list)
    methods: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_place[row.task, row.device, row.ruleset].append(row)
    for run in source.runs.values():
        runs[known[run["task"], run["task_version"]], run["device_class"], run["ruleset"]].append(run)
        if not run["custom"] and not run["matched_method"]:
            methods[run["ruleset"]].add(run["method"])
    places = sorted(runs, key=lambda place: (place[0].name, -place[0].version, *place[1:]))
    boards = tuple(_task_board(*place, by_place[place], runs[place], sorted(methods[place[2]])) for place in places)
    listed = sorted(known.values(), key=lambda t: (t.name, -t.version))
    return Board(source, catalogue, tuple(listed), tuple(rows), boards, tuple(_suites(boards)))


def _task_board(
    task: TaskVersion,
    device: str,
    ruleset: str,
    rows: Sequence[Entry],
    runs: Sequence[IndexRow],
    methods: Iterable[str],
) -> TaskBoard:
    rows = _of_one_basis([row for row in rows if row.apart != MATCHED])
    open_rows = {row.method: row for row in rows if not row.apart}
    seeds = _seeds(task, open_rows, runs)
    holes = _holes(runs, methods, {row.method for row in rows if row.apart not in {CUSTOM, SMOKE}})
    missing = {(run["method"], run["seed"]): _kind(run) for run in runs if not run["custom"] and not run["smoke"]}
    cells: dict[str, dict[str, ScoresOrMissing]] = {
        row.method: {
            task.label: {s: row.result.scores.get(s, missing.get((row.method, s)) or Missing.NOT_RUN) for s in seeds}
        }
        for row in open_rows.values()
    }
    complete, ties, best = list(open_rows.values()), None, None
    if seeds and cells:
        suite = Suite(task.suite, {task.label: TaskScale(task.direction, task.unit, seeds)}, cells)
        rows = [_marked_incomplete(row, suite) if row.method in cells and not row.apart else row for row in rows]
        complete = [row for row in rows if not row.apart]
        layout = common_set(suite, [row.method for row in complete]).layout if complete else None
        ties = tie_groups(layout) if layout is not None else None
        best = with_best(layout, margin_of(task, open_rows.values())) if layout is not None else None
    order = {name: i for i, name in enumerate(ties.methods)} if ties else {}
    complete = _of_one_processor(complete)
    complete.sort(key=lambda row: (order.get(row.method, 0), row.method))
    ranked = task.ranked and task.newest
    labels = dict(zip(ties.methods, ties.labels, strict=True)) if ties and ranked else {}
    apart = sorted(
        (row for row in rows if row.apart), key=lambda row: (row.apart, row.method, row.cell["adapter_version"])
    )
    seconds = {metric: second(task, metric, seeds, complete, ranked) for metric in task.also}
    return TaskBoard(
        task, device, ruleset, seeds, tuple(complete), labels, tuple(apart), tuple(holes), ties if ranked else None,
        seconds, best if ranked else None, _told([*complete, *apart]),
    )  # fmt: skip


def _of_one_processor(rows: Sequence[Entry]) -> list[Entry]:
    """Rows whose costs another processor measured than most rows' are marked; plain costs 1 anywhere."""
    usual = _most(row.processor for row in rows if row.result.cost is not None and row.method != PLAIN)
    return [
        replace(row, elsewhere=row.processor)
        if row.result.cost is not None and row.method != PLAIN and row.processor != usual
        else row
        for row in rows
    ]


def margin_of(task: TaskVersion, rows: Iterable[Entry]) -> float:
    """A difference that nobody would mind: a point of a percentage, else 5 % of plain's score."""
    if task.unit == "%":
        return MARGIN_POINTS
    plain = [abs(row.result.stat.mean) for row in rows if row.method == PLAIN]
    return MARGIN_SHARE * plain[0] if plain else 0.0


def _told(rows: Iterable[Entry]) -> dict[str, Mapping[str, Told]]:
    """What each row's differences are taken for: the rows of a task are one family of questions a reference."""
    open_rows = [row for row in rows if row.apart not in {CUSTOM, SMOKE, "superseded"}]
    return {
        "baseline": told({row.method: row.vs_baseline for row in open_rows}),
        "plain": told({row.method: row.vs_plain for row in open_rows}),
        "matched": told({row.method: row.result.to_matched for row in open_rows}),
    }


def _of_one_basis(rows: Sequence[Entry]) -> list[Entry]:
    """Rows of the newest engine and, within it, of the data and the teacher that most have; the others marked apart."""
    open_rows = [row for row in rows if not row.apart]
    if not open_rows:
        return list(rows)
    engine = max(row.cell["engine_version"] for row in open_rows)
    open_rows = [row for row in open_rows if row.cell["engine_version"] == engine]
    data = _most((row.data, row.rows[0]) for row in open_rows)
    seen = _most(row.rows[1] for row in open_rows if (row.data, row.rows[0]) == data and row.rows[1])
    teacher = _most(row.cell["teacher_sha256"] for row in open_rows if row.cell["teacher_sha256"]) or ""
    marked = []
    for row in rows:
        if not row.apart and row.cell["engine_version"] != engine:
            row = replace(row, apart="older engine")
        elif not row.apart and ((row.data, row.rows[0]) != data or row.rows[1] not in {"", seen}):
            row = replace(row, apart=OTHER_DATA)
        elif not row.apart and row.cell["teacher_sha256"] not in {"", teacher}:
            row = replace(row, apart="other teacher")
        marked.append(row)
    return marked


def _most(values: Iterable[Any]) -> Any:
    """The value that most have, of equals the first in order; None of none."""
    votes = Counter(values)
    return max(sorted(votes), key=lambda value: votes[value]) if votes else None


def _seeds(task: TaskVersion, rows: Mapping[str, Entry], runs: Sequence[IndexRow]) -> tuple[int, ...]:
    for method in (task.baseline, PLAIN):
        if method in rows:
            return tuple(sorted(rows[method].result.scores))
    tried = {run["seed"] for run in runs if run["method"] in rows and not run["custom"] and not run["smoke"]}
    return tuple(sorted(tried))


def _marked_incomplete(row: Entry, suite: Suite) -> Entry:
    task = next(iter(suite.tasks))
    state = suite.state(row.method, task)
    if state is None:
        return row
    cell = suite.scores[row.method][task]
    assert isinstance(cell, Mapping)
    lost = [str(seed) for seed, value in cell.items() if isinstance(value, Missing)]
    word = "failed" if state is Missing.FAILED else state.value.replace("_", " ")
    return replace(row, apart=f"{INCOMPLETE}: seed{'s' if len(lost) > 1 else ''} {', '.join(lost)} {word}")


def _kind(run: IndexRow) -> Missing | None:
    if run["is_withdrawn"]:
        return Missing.WITHDRAWN
    if run["status"] in FAILED:
        return Missing.FAILED
    return Missing.NOT_APPLICABLE if run["status"] == "not_applicable" else None


def _holes(runs: Sequence[IndexRow], methods: Iterable[str], present: set[str]) -> list[Hole]:
    found: dict[str, list[tuple[Missing, IndexRow]]] = defaultdict(list)
    for run in runs:
        kind = _kind(run)
        if kind is not None and not run["custom"] and not run["smoke"] and run["method"] not in present:
            found[run["method"]].append((kind, run))
    holes = []
    for method in methods:
        if method in present:
            continue
        kinds = found.get(method)
        if not kinds:
            holes.append(Hole(method, Missing.NOT_RUN))
            continue
        order = list(Missing)
        kind, run = min(kinds, key=lambda item: (order.index(item[0]), item[1]["seed"], item[1]["run_id"]))
        holes.append(Hole(method, kind, (run["error"] or "").partition(": ")[2] or (run["error"] or ""), run["run_id"]))
    return holes


def _suites(boards: Sequence[TaskBoard]) -> Iterable[SuiteBoard]:
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
    usual = _most(
        row.processor for one in used for row in one.ranked if row.result.cost is not None and row.method != PLAIN
    )
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
    )


Ratio = tuple[float, float, float]


def step_ratio(row: Entry) -> Ratio | None:
    """Step-time ratio with its interval; plain is 1 by definition."""
    if row.method == PLAIN:
        return (1.0, 1.0, 1.0)
    return (row.result.cost["step_ratio"], row.result.cost["lo"], row.result.cost["hi"]) if row.result.cost else None


def recipe_ratio(row: Entry) -> Ratio | None:
    """Recipe cost over plain's; a recipe of one stage has the interval of its step time, others have none."""
    value, step = row.recipe_ratio, step_ratio(row)
    if not value:
        return None
    if step is None or sum(line.ledger != SEARCH for line in row.result.stages) > 1:
        return (value, value, value)
    return (value, value * step[1] / step[0], value * step[2] / step[0])


def geometric(ratios: Sequence[Ratio | None]) -> Ratio | None:
    """Geometric mean of ratios with independent intervals combined on the log scale; None where one is missing."""
    known = [ratio for ratio in ratios if ratio is not None]
    if not known or len(known) < len(ratios):
        return None
    centre = sum(math.log(value) for value, _, _ in known) / len(known)
    below = math.sqrt(sum(math.log(value / lo) ** 2 for value, lo, _ in known)) / len(known)
    above = math.sqrt(sum(math.log(hi / value) ** 2 for value, _, hi in known)) / len(known)
    return math.exp(centre), math.exp(centre - below), math.exp(centre + above)
