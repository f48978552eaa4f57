"""A suite's ranking and its charts of cost against quality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdbench import kinds
from kdbench.leaderboard.draw.figures import Chart, key_of, suite_charts, year_chart
from kdbench.leaderboard.draw.numbers import NONE, digits_for, significant
from kdbench.leaderboard.model.entries import NO_CARD, RECONSTRUCTION, UNVERIFIED, TaskVersion
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.leaderboard.model.suites import SuiteBoard, SuiteRow
from kdbench.leaderboard.tables.cells import TableCell, all_measured_in, context, places, runs_behind, with_half
from kdbench.leaderboard.tables.columns import COLUMNS, head
from kdbench.leaderboard.tables.costs import launch_words, ratio_text
from kdbench.leaderboard.tables.table import Head, Line, Table
from kdbench.leaderboard.views.answer import Answer, answer_of, difference
from kdbench.leaderboard.views.overview import pickable
from kdbench.specs.registry import PLAIN

SMALL_ROWS = 10_000
"""A task with fewer training rows says so in its title."""


NAMED = 6
"""Names in a sentence."""


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
    answer: Answer | None = None
    years: Chart | None = None
    own: Table | None = None


def most_rows(tasks: Sequence[TaskVersion]) -> int | None:
    """Training rows of the task that has most, None where no record tells them."""
    return max((task.train_rows for task in tasks if task.train_rows), default=None)


def small_word(tasks: Sequence[TaskVersion]) -> str:
    """What the title of small tasks says, "" for larger ones."""
    rows = most_rows(tasks)
    if rows is None or rows >= SMALL_ROWS:
        return ""
    return f"small data ({rows} training rows), no evidence about sets as large as CIFAR or ImageNet"


def by_answer(suites: Sequence[SuiteBoard]) -> list[SuiteBoard]:
    """Suites that tell most of the board's question first: methods set against plain trained for as long, counted."""
    told = Counter[str]()
    for suite in suites:
        told[suite.suite] = max(told[suite.suite], len(suite.told.get("matched", {})))
    return sorted(suites, key=lambda suite: -told[suite.suite])


def suite_view(suite: SuiteBoard, years: Mapping[str, int], *, local: bool = False) -> SuiteView:
    """The view of a suite.

    Args:
        years: method to the year of its paper.
        local: the board is of records that nobody verified, so one's own.
    """
    made = _view(suite)
    made = replace(made, years=year_chart(suite, years, made.key) if made.table is not None else None)
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
    return Table(f"{key}-own", f"Suite {suite.suite} on {suite.place}: shown, not ranked.", tuple(heads), tuple(lines))


def _view(suite: SuiteBoard) -> SuiteView:
    small = small_word(suite.all_tasks)
    key = key_of("suite", suite.suite, suite.place)
    title = f"{suite.suite} on {suite.place}" + (f": {small}" if small else "")
    count = len(suite.tasks)
    tasks = f"{count} task{'s' if count != 1 else ''}"
    deck = f"{len(suite.rows)} methods on {tasks}, differences to {suite.baseline} in {suite.points}."
    if said := launch_words(one for row in suite.rows for one in row.rows):
        deck += f" {said}"
    if suite.layout is None or suite.ties is None:
        return SuiteView(key, suite, title, deck, None, (), (), _below(suite))
    notes = [f"{suite.note.capitalize()}; {suite.ties.note}." if suite.ties.note else f"{suite.note.capitalize()}."]
    if not suite.ties.split and len(suite.rows) > 1:
        notes.insert(0, "No two methods are separated: the order below is not evidence of any difference.")
    return SuiteView(
        key,
        suite,
        title,
        deck,
        pickable(_table(suite, key), suite),
        suite_charts(suite, key),
        tuple(notes),
        _below(suite),
        answer_of(suite, key),
    )


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
    caption = f"Suite {suite.suite} on {suite.place}: methods by mean score, tie groups as ranges of ranks."
    return Table(f"{key}-table", caption, tuple(heads), lines)


def _line(suite: SuiteBoard, row: SuiteRow, used: Sequence[TaskBoard], digits: int) -> Line:
    is_baseline = all(board.task.baseline == row.method for board in used)
    cells = {
        "rank": places(row.rank, row.best),
        "method": TableCell(
            row.method, row.method, tags=("baseline",) if is_baseline else ("reference",) if row.method == PLAIN else ()
        ),
        "delta": TableCell("0", 0.0, sub="reference")
        if is_baseline
        else difference(row.delta, suite.told["baseline"].get(row.method, ""), digits, row.rows),
        "step": ratio_text(row.step_ratio, row.method, row.elsewhere, all_measured_in(row.rows)),
        "recipe": ratio_text(row.recipe_ratio, row.method, row.elsewhere, all_measured_in(row.rows)),
        "coverage": TableCell(f"{row.coverage[0]} / {row.coverage[1]}", float(row.coverage[0])),
    }
    for i, board in enumerate(used):
        cells[f"task-{i}"] = _score_cell(board, row.method)
    return Line(row.method, cells, role="baseline" if is_baseline else "")


def _score_cell(board: TaskBoard, method: str) -> TableCell:
    row = board.entry(method)
    if row is None:
        return TableCell(NONE, None)
    digits = digits_for(board.task.unit, [v for other in board.ranked for v in other.result.scores.values()])
    stat = row.result.stat
    return TableCell(with_half(stat, digits), stat.mean, lo=stat.lo, hi=stat.hi, behind=runs_behind(row.cell))


def separation_word(board: TaskBoard) -> str:
    """What the ranking of a task can tell, in a sentence."""
    if board.ties is None or len(board.ranked) < 2:
        return ""
    if not board.ties.split:
        return "No two methods are separated: the order is not evidence of any difference."
    if board.best is None:
        return ""
    leaders = [method for method in board.ties.methods if method in board.best.candidates]
    if len(leaders) == 1:
        better = f"{leaders[0]} is better than every other method"
        if board.ranks[leaders[0]] == "1":
            return f"{better}."
        return f"{better} by the comparison with the best; ranks hold for all pairs at once and separate fewer."
    shown = leaders if len(leaders) <= NAMED else [*leaders[:NAMED], f"{len(leaders) - NAMED} others"]
    margin = f"{significant(board.best.margin, 2)} {board.task.points}"
    near = [method for method in leaders if board.best.word(method) == "≈ best"]
    close = f"{', '.join(near)} surely within {margin} of the best" if near else f"none is surely within {margin} of it"
    return f"{', '.join(shown)} could each be the best; {close}."


def noise_word(metric: str, value: float, items: int) -> str:
    """Noise of the test set beside the seeds' interval, "" where the items alone do not tell it."""
    noise = kinds.metrics()[metric].noise(value, items) if metric in kinds.metrics() else None
    if noise is None:
        return ""
    return f"the test set itself is uncertain by {significant(noise, 2)} pt at {value:.1f} % (binomial, {items} items)"
