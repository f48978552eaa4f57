"""A task's table: its rows under the columns that say something here, and the references beneath them."""

from __future__ import annotations

from kdbench.leaderboard.draw.numbers import NONE, fixed
from kdbench.leaderboard.model.entries import Entry
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.leaderboard.tables import cells
from kdbench.leaderboard.tables.cells import Context, TableCell
from kdbench.leaderboard.tables.columns import columns_of, head
from kdbench.leaderboard.tables.table import Line, Table
from kdbench.results.taught import is_worse
from kdbench.specs.registry import PLAIN


def task_table(board: TaskBoard, rows: tuple[Entry, ...], key: str, caption: str, *, apart: bool = False) -> Table:
    """Rows of a task as a table; rows that stand apart carry their reason where the others carry their rank."""
    ctx = cells.context(board)
    dull = {"vs_plain"} if board.task.baseline == PLAIN else set()  # the same column twice
    dull |= set() if any(row.matched for row in rows) else {"vs_matched"}
    columns = columns_of(board.task)
    heads = tuple(head(column, board.task) for column in columns if column.key not in dull)
    lines = []
    for row in rows:
        made = {column.key: column.make(row, ctx) for column in columns}
        if apart:
            made["rank"] = TableCell(NONE, None, sub=row.why_apart)
        lines.append(Line(row.method, made, str(row.cell["level"]), "baseline" if row.is_baseline else ""))
    return Table(key, caption, heads, tuple(lines), () if apart else _references(rows, ctx))


def _references(rows: tuple[Entry, ...], ctx: Context) -> tuple[Line, ...]:
    """The teacher, and plain trained for as long as the baseline's recipe takes; that of others is on their rows."""
    blank = {column.key: TableCell("") for column in columns_of(ctx.board.task)}
    lines, taught = [], next((row for row in rows if row.result.teacher is not None), None)
    if taught is not None and taught.result.teacher is not None:
        higher = ctx.board.task.direction == "max"
        own = [row.result.stat.mean for row in rows if row.cell["teacher_sha256"] == taught.cell["teacher_sha256"]]
        better = sum(is_worse(taught.result.teacher, mean, higher) for mean in own)
        note = "one teacher for all seeds" + (f"; worse than {better} of {len(own)} students" if better else "")
        score = TableCell(
            fixed(taught.result.teacher, ctx.digits), taught.result.teacher, sub=note, behind=cells.measured_in(taught)
        )
        lines.append(
            Line(
                "", {**blank, "method": TableCell(f"teacher {taught.cell['teacher']}"), "score": score}, role="teacher"
            )
        )
    for row in rows:
        if row.matched is not None and row.is_baseline:
            of = row.result.matched
            score = TableCell(
                cells.with_half(row.matched, ctx.digits), row.matched.mean, sub=f"n = {row.matched.n}",
                behind=cells.runs_behind(of) if of is not None else "",
            )  # fmt: skip
            recipe = TableCell("", sub=f"as long as {row.method}")
            lines.append(
                Line(
                    "",
                    {**blank, "method": TableCell(f"plain@{row.method}"), "score": score, "recipe": recipe},
                    role="matched",
                )
            )
    return tuple(lines)
