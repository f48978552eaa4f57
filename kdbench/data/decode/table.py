"""Rows of one part of a data set, wherever they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdbench.base.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
DIGITS = 10
"""From as many on a number is no side of a picture."""
SPLIT_SEED = 0
"""Of the draw of test rows: equal rows have equal parts everywhere."""
Read = Callable[[Sequence[str]], Iterator[tuple[str, Row]]]


@dataclass(frozen=True)
class Table:
    """Rows of one part.

    Attributes:
        name: of the first file, for messages.
        files: what is read, in order.
        count: rows.
        read: columns to read -> where each row lies, for messages, and its values.
        schema: of the files; None where rows are put together from a folder.
        classes: names of the classes, where they are folders.
        passed: one line on files that are no rows, empty without any.
    """

    name: str
    files: Sequence[str] | Sequence[Path]
    count: int
    read: Read
    schema: pa.Schema | None = None
    classes: Sequence[str] | None = None
    passed: str = ""


class Stated(NamedTuple):
    """Objects of a picture whose size is said beside them, as COCO's and Pascal VOC's files do.

    Attributes:
        entries: one mapping an object.
        size: height and width, None where it is not said.
    """

    entries: Sequence[Mapping[str, Any]]
    size: tuple[int, int] | None

    @classmethod
    def of(cls, entries: Sequence[Mapping[str, Any]], height: Any, width: Any) -> Stated:
        """With the size where both sides are whole numbers above 0: some programs write 0 for what they do not know."""
        sides = [_side(height), _side(width)]
        return cls(entries, (sides[0], sides[1]) if all(sides) else None)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, each by itself or by its place in a dictionary."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def share(table: Table, part: str, aim: str, every: int, *, by_class: bool) -> Table:
    """The rows of one part where a table holds both.

    Args:
        aim: column of the label or target.
        every: one row in so many is for tests.
        by_class: whether this holds within each class; otherwise over all rows.

    Raises:
        UserError: a class has one row alone.
    """
    aims = [row[aim] for _, row in table.read([aim])]
    tests = held_back(aims if by_class else [0] * len(aims), every)
    lone = lone_class(aims) if by_class else None
    if lone is not None:
        raise UserError(f"{table.name}: {one_row(table.classes[lone] if table.classes is not None else lone)}")

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for test, row in zip(tests, table.read(columns), strict=True):
            if test == (part == "test"):
                yield row

    count = sum(tests)
    return replace(table, count=count if part == "test" else table.count - count, read=read)


def held_back(groups: Sequence[Any], every: int) -> list[bool]:
    """Which rows are for tests: of each group one in ``every``, drawn with a fixed seed, one at least.

    Args:
        groups: of each row its class; None is in no group, and never held back.
    """
    import numpy as np

    members: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    tests = [False] * len(groups)
    for group, rows in members.items():
        if group is None:
            continue
        # Each group draws by itself, so that rows of one class decide nothing about those of another.
        draws = np.random.default_rng([SPLIT_SEED, *repr(group).encode()])
        for row in draws.permutation(rows)[: max(1, round(len(rows) / every))]:
            tests[row] = True
    return tests


def lone_class(labels: Sequence[int | None]) -> int | None:
    """A class that has one row, which cannot stand in both parts; None if there is none."""
    return next((label for label, count in Counter(labels).items() if count == 1 and label is not None), None)


def one_row(name: object) -> str:
    """What is wrong with a class of one row."""
    return f"class {name} has one row, which cannot stand in both parts; add rows of it or leave it out"


def _side(value: Any) -> int:
    """Pixels of a side, as a number or its digits, 0 of anything else."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < DIGITS:
        return int(value)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**DIGITS
    return int(value) if whole and value == int(value) else 0
