"""A table as it is printed: heads, rows of cells, caption."""

from __future__ import annotations

from dataclasses import dataclass

from kdbench.leaderboard.tables.cells import TableCell

Words = str | tuple[str, str]
"""What a cell of a plain table says; with the page behind it, from the site's root, or "" for none."""


@dataclass(frozen=True)
class Head:
    """A column as a table prints it."""

    key: str
    head: str
    unit: str
    group: str
    about: str
    default: bool
    numeric: bool


@dataclass(frozen=True)
class Line:
    """A row as a table prints it: ``method`` heads it, ``level`` can be filtered by, ``role`` is its style."""

    method: str
    cells: dict[str, TableCell]
    level: str = ""
    role: str = ""


@dataclass(frozen=True)
class Table:
    """A table: columns, rows in order, caption; ``references`` stand below, unranked and unsorted.

    ``compare`` is the section of the page of comparisons that ticked rows are shown in, ``picks`` the methods that it
    has; "" where there is none.
    """

    key: str
    caption: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    references: tuple[Line, ...] = ()
    compare: str = ""
    picks: frozenset[str] = frozenset()
