"""The primary metric of each class, on a task's page."""

from __future__ import annotations

from dataclasses import dataclass

from kdbench.leaderboard.draw.numbers import NONE, digits_for
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.leaderboard.tables.cells import metric_word, runs_behind, with_half
from kdbench.leaderboard.tables.table import Words
from kdbench.results.beside import Told


@dataclass(frozen=True)
class ClassTable:
    """A line a method, a column a class."""

    key: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Words, ...], ...]


def class_table(one: TaskBoard, key: str, told: Told) -> ClassTable | None:
    """Ranked rows in their order, then those that stand apart; None where no metric of theirs is told by class."""
    held = [(row, {score.name: score for score in told.cell(row.cell)}) for row in (*one.ranked, *one.apart)]
    held = [(row, own) for row, own in held if own]
    names = sorted({name for _, own in held for name in own})
    if not names:
        return None
    digits = digits_for(one.task.unit, [own[name].stat.mean for _, own in held for name in own])
    rows: tuple[tuple[Words, ...], ...] = tuple(
        (
            (row.method, f"methods/{row.method}.html"),
            *((with_half(own[name].stat, digits), runs_behind(row.cell)) if name in own else NONE for name in names),
        )
        for row, own in held
    )
    caption = f"{metric_word(one.task.metric)} of each class on {one.place}, mean ± half its 95 % interval over seeds."
    return ClassTable(f"{key}-classes", caption, ("Method", *names), rows)
