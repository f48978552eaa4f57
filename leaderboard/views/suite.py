"""A suite's ranking and its charts of cost against quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdbench import kinds
from kdbench.leaderboard.draw.figures import Chart, key_of, suite_charts
from kdbench.leaderboard.draw.numbers import NONE, between, digits_for, range_of, signed, significant, times
from kdbench.leaderboard.model.entries import NO_CARD, RECONSTRUCTION, UNVERIFIED, TaskVersion
from kdbench.leaderboard.model.ranking import Ratio, SuiteBoard, SuiteRow, TaskBoard, best_word
from kdbench.leaderboard.tables.cells import TableCell, context, verdict_word, with_half
from kdbench.leaderboard.tables.columns import COLUMNS, Head, Line, Table, head
from kdbench.specs.registry import PLAIN

SMALL_ROWS = 10_000
"""A task with fewer training rows says so in its title."""


@dataclass(frozen=True)
class SuiteView:
    """A suite on one device class as the front page shows it.

    Attributes:
        own: on a board of one's own, the rows of methods whose card is not verified, or not here: shown, not ranked.
    """

    key: str
    board: SuiteBoard
    title: str
    deck: str
    table: Table | None
    charts: tuple[Chart, ...]
    notes: tuple[str, ...]
    below: tuple[tuple[str, str], ...]
    own: Table | None = None


def small_word(tasks: Sequence[TaskVersion]) -> str:
    """What the title of small tasks says, "" for larger ones."""
    rows = [task.train_rows for task in tasks if task.train_rows]
    if not rows or max(rows) >= SMALL_ROWS:
        return ""
    return f"small data ({max(rows)} training rows), no evidence about CIFAR or ImageNet"


def suite_view(suite: SuiteBoard, *, local: bool = False) -> SuiteView:
    """The view of a suite.

    Args:
        local: the board is of records that nobody verified, so one's own.
    """
    made = _view(suite)
    return replace(made, own=_own(suite, made.key)) if local else made


def _own(suite: SuiteBoard, key: str) -> Table | None:
    rows = [
        (board, row)
        for board in suite.boards
        for row in board.apart
        if row.apart in (NO_CARD, UNVERIFIED, RECONSTRUCTION) and board.task.newest
    ]
    if not rows:
        return None
    kinds = ("method", "score", "vs_baseline", "step_ratio", "recipe")
    columns = [column for column in COLUMNS if column.key in kinds]
    task = rows[0][0].task
    heads = [Head("task", "Task", "", "Quality", "The task.", True, False), *(head(column, task) for column in columns)]
    heads.append(Head("why", "Not ranked", "", "Quality", "Why the row has no rank.", True, False))
    lines = []
    for board, row in rows:
        ctx = context(board)
        cells = {column.key: column.make(row, ctx) for column in columns}
        lines.append(
            Line(
                row.method,
                {"task": TableCell(board.task.label), **cells, "why": TableCell(row.apart)},
                str(row.cell["level"]),
            )
        )
    return Table(f"{key}-own", f"Suite {suite.suite} on {suite.device}: shown, not ranked.", tuple(heads), tuple(lines))


def _view(suite: SuiteBoard) -> SuiteView:
    small = small_word(suite.all_tasks)
    key = key_of("suite", suite.suite, suite.device)
    title = f"{suite.suite} on {suite.device}" + (f": {small}" if small else "")
    count = len(suite.tasks)
    tasks = f"{count} task{'s' if count != 1 else ''}"
    deck = f"{len(suite.rows)} methods on {tasks}, differences to {suite.baseline} in {suite.points}."
    if suite.layout is None or suite.ties is None:
        return SuiteView(key, suite, title, deck, None, (), (), _below(suite))
    notes = [f"{suite.note.capitalize()}; {suite.ties.note}." if suite.ties.note else f"{suite.note.capitalize()}."]
    if not suite.ties.split and len(suite.rows) > 1:
        notes.insert(0, "No two methods are separated: the order below is not evidence of any difference.")
    return SuiteView(key, suite, title, deck, _table(suite, key), suite_charts(suite, key), tuple(notes), _below(suite))


def _below(suite: SuiteBoard) -> tuple[tuple[str, str], ...]:
    return tuple((method, f"{done} of {total} tasks") for method, (done, total) in suite.below)


def _table(suite: SuiteBoard, key: str) -> Table:
    used = [board for board in suite.boards if board.task in suite.tasks]
    heads = [
        Head("rank", "Rank", "", "Quality", "Every place the method could hold in this suite.", True, True),
        Head("method", "Method", "", "Quality", "Name of the card, or of its variant.", True, False),
        Head(
            "delta",
            f"Δ to {suite.baseline}",
            suite.points,
            "Quality",
            "Mean over tasks of the seed-paired difference to the baseline, 95 % interval.",
            True,
            True,
        ),
        Head(
            "step",
            "Step time",
            "× plain",
            "Overhead",
            "Geometric mean over tasks of the step-time ratio, 95 % interval.",
            True,
            True,
        ),
        Head(
            "recipe",
            "Recipe cost",
            "× plain",
            "Overhead",
            "Geometric mean over tasks of the recipe-cost ratio.",
            True,
            True,
        ),
    ]
    heads += [
        Head(
            f"task-{i}",
            board.task.label,
            board.task.unit,
            "Tasks",
            "Score, mean over seeds ± half the 95 % interval.",
            True,
            True,
        )
        for i, board in enumerate(used)
    ]
    heads.append(
        Head("coverage", "Coverage", "tasks", "Quality", "Tasks of the suite with a complete cell.", True, True)
    )
    digits = digits_for(suite.unit, [v for board in used for row in board.ranked for v in row.result.scores.values()])
    lines = tuple(_line(suite, row, used, digits) for row in suite.rows)
    caption = f"Suite {suite.suite} on {suite.device}: methods by mean score, tie groups as ranges of ranks."
    return Table(f"{key}-table", caption, tuple(heads), lines)


def _line(suite: SuiteBoard, row: SuiteRow, used: Sequence[TaskBoard], digits: int) -> Line:
    is_baseline = all(board.task.baseline == row.method for board in used)
    split = suite.ties is not None and suite.ties.split
    mark = "best" if row.best == "best" else "≈ best" if row.best == "tied" and split else ""
    cells = {
        "rank": TableCell(range_of(row.rank), float(row.first), mark=mark),
        "method": TableCell(
            row.method, row.method, tags=("baseline",) if is_baseline else ("reference",) if row.method == PLAIN else ()
        ),
        "delta": _delta_cell(row, is_baseline, digits),
        "step": _ratio_cell(row.step_ratio, row.method),
        "recipe": _ratio_cell(row.recipe_ratio, row.method),
        "coverage": TableCell(f"{row.coverage[0]} / {row.coverage[1]}", float(row.coverage[0])),
    }
    for i, board in enumerate(used):
        cells[f"task-{i}"] = _score_cell(board, row.method)
    return Line(row.method, cells, role="baseline" if is_baseline else "")


def _delta_cell(row: SuiteRow, is_baseline: bool, digits: int) -> TableCell:
    if is_baseline:
        return TableCell("0", 0.0, sub="reference")
    if row.delta is None:
        return TableCell(NONE, None, sub="no common seed")
    if row.delta.lo is None or row.delta.hi is None:
        return TableCell(signed(row.delta.mean, digits), row.delta.mean, sub="no interval")
    return TableCell(
        signed(row.delta.mean, digits),
        row.delta.mean,
        sub=between(row.delta.lo, row.delta.hi, digits, sign=True),
        verdict=verdict_word(row.delta),
    )


def _ratio_cell(ratio: Ratio | None, method: str) -> TableCell:
    if ratio is None:
        return TableCell(NONE, None, sub="not measured")
    if method == PLAIN:
        return TableCell("1 ×", 1.0, sub="reference")
    value, lo, hi = ratio
    return TableCell(times(value), value, sub=between(lo, hi, 2) if hi > lo else "")


def _score_cell(board: TaskBoard, method: str) -> TableCell:
    row = board.entry(method)
    if row is None:
        return TableCell(NONE, None)
    digits = digits_for(board.task.unit, [v for other in board.ranked for v in other.result.scores.values()])
    return TableCell(with_half(row.result.stat, digits), row.result.stat.mean)


def separation_word(board: TaskBoard) -> str:
    """What the ranking of a task can tell, in a sentence."""
    if board.ties is None or len(board.ranked) < 2:
        return ""
    leaders = [m for m in board.ties.methods if best_word(board.ties, m)]
    if not board.ties.split:
        return "No two methods are separated: the order is not evidence of any difference."
    if len(leaders) == 1:
        return f"{leaders[0]} is separated from every other method."
    return f"{', '.join(leaders)} could each be the best: they are not separated from each other."


def noise_word(metric: str, value: float, items: int) -> str:
    """Noise of the test set beside the seeds' interval, "" where the items alone do not tell it."""
    noise = kinds.metrics()[metric].noise(value, items) if metric in kinds.metrics() else None
    if noise is None:
        return ""
    return f"the test set itself is uncertain by {significant(noise, 2)} pt (binomial, {items} items)"
