"""Rows of a CSV file, of which no value is lost."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdbench.base.errors import UserError

Named = Iterator[tuple[int, dict[str, str | None]]]
"""Of each row its line, and column to value, None where a short row lacks one."""


def sheet(path: Path, text: Iterable[str]) -> tuple[list[str], Named]:
    """The columns of a CSV file, and its rows. Empty lines are none.

    Args:
        path: the file, for messages.
        text: its lines.

    Raises:
        UserError: a row of more values than columns, or what is no CSV; names file and line.
    """
    rows = _values(path, text)
    _, names = next(rows, (0, []))
    return names, _named(path, names, rows)


def _named(path: Path, names: list[str], rows: Iterator[tuple[int, list[str]]]) -> Named:
    for line, values in rows:
        if len(values) > len(names):
            raise UserError(
                f"{path} line {line}: {len(values)} values for {len(names)} columns; "
                'write a value that holds a comma in "quotes"'
            )
        yield line, dict(zip(names, [*values, *[None] * (len(names) - len(values))], strict=True))


def _values(path: Path, text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(text)
    try:
        for values in reader:
            if values:
                yield reader.line_num, values
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: no CSV ({error}); mend it, or use parquet") from error
