"""A task's board: who is compared with whom, in what order, one table a device class and ruleset.

Nothing is compared across device classes, rulesets or task versions. Within a table only rows of one teacher and one
engine version meet; the others stand apart with their reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kdbench.leaderboard.model.entries import (
    CUSTOM,
    MATCHED,
    OTHER_DATA,
    SMOKE,
    Entry,
    TaskVersion,
    lost_words,
    place_of,
)
from kdbench.leaderboard.model.ratios import most, usual_processor
from kdbench.leaderboard.model.second import Second, second
from kdbench.leaderboard.model.source import IndexRow
from kdbench.specs.registry import PLAIN
from kdbench.stats import (
    Missing,
    Suite,
    TaskScale,
    TieGroups,
    Told,
    WithBest,
    common_set,
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
        processor: the one that the costs of most rows were measured on, None where nothing was measured.
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
    processor: str | None = None

    @property
    def place(self) -> str:
        """Device class and ruleset in words."""
        return place_of(self.device, self.ruleset)

    @property
    def comparable(self) -> tuple[Entry, ...]:
        """Complete rows and those that lack only seeds."""
        return (*self.ranked, *(row for row in self.apart if row.lost))

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


def task_board(
    task: TaskVersion,
    device: str,
    ruleset: str,
    rows: Sequence[Entry],
    runs: Sequence[IndexRow],
    methods: Iterable[str],
) -> TaskBoard:
    """The board of a task's rows and runs at one place; ``methods``: those run there, and what it lacks of others."""
    rows = _of_one_basis([row for row in rows if row.apart != MATCHED])
    open_rows = {row.method: row for row in rows if not row.apart}
    seeds = _seeds(task, open_rows, runs)
    holes = _holes(runs, methods, {row.method for row in rows if row.apart not in {CUSTOM, SMOKE}})
    missing = {(run["method"], run["seed"]): _kind(run) for run in runs if not run["custom"] and not run["smoke"]}
    held: dict[str, Mapping[int, float | Missing]] = {
        row.method: {s: row.result.scores.get(s, missing.get((row.method, s)) or Missing.NOT_RUN) for s in seeds}
        for row in open_rows.values()
    }
    complete, ties, best = list(open_rows.values()), None, None
    if seeds and held:
        scores = {method: {task.label: cell} for method, cell in held.items()}
        suite = Suite(task.suite, {task.label: TaskScale(task.direction, task.unit, seeds)}, scores)
        rows = [row if row.apart else _marked_incomplete(row, held[row.method]) for row in rows]
        complete = [row for row in rows if not row.apart]
        layout = common_set(suite, [row.method for row in complete]).layout if complete else None
        ties = tie_groups(layout) if layout is not None else None
        best = with_best(layout, margin_of(task, open_rows.values())) if layout is not None else None
    order = {name: i for i, name in enumerate(ties.methods)} if ties else {}
    processor = usual_processor(complete)
    complete = _of_one_processor(complete, processor)
    complete.sort(key=lambda row: (order.get(row.method, 0), row.method))
    ranked = task.ranked and task.newest
    labels = dict(zip(ties.methods, ties.labels, strict=True)) if ties and ranked else {}
    apart = sorted(
        (row for row in rows if row.apart), key=lambda row: (row.apart, row.method, row.cell["adapter_version"])
    )
    seconds = {metric: second(task, metric, seeds, complete, ranked) for metric in task.also}
    return TaskBoard(
        task, device, ruleset, seeds, tuple(complete), labels, tuple(apart), tuple(holes), ties if ranked else None,
        seconds, best if ranked else None, _told([*complete, *apart]), processor,
    )  # fmt: skip


def _of_one_processor(rows: Sequence[Entry], usual: str | None) -> list[Entry]:
    """Rows whose costs another processor measured than most rows' are marked; plain costs 1 anywhere."""
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
    data = most((row.data, row.rows[0]) for row in open_rows)
    seen = most(row.rows[1] for row in open_rows if (row.data, row.rows[0]) == data and row.rows[1])
    teacher = most(row.cell["teacher_sha256"] for row in open_rows if row.cell["teacher_sha256"]) or ""
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


def _seeds(task: TaskVersion, rows: Mapping[str, Entry], runs: Sequence[IndexRow]) -> tuple[int, ...]:
    for method in (task.baseline, PLAIN):
        if method in rows:
            return tuple(sorted(rows[method].result.scores))
    tried = {run["seed"] for run in runs if run["method"] in rows and not run["custom"] and not run["smoke"]}
    return tuple(sorted(tried))


def _marked_incomplete(row: Entry, seeds: Mapping[int, float | Missing]) -> Entry:
    lost = {seed: score for seed, score in seeds.items() if isinstance(score, Missing)}
    return replace(row, apart=f"incomplete: {lost_words(lost)}", lost=lost) if lost else row


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
