"""Rows of one part of a data set, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
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
    """

    name: str
    files: Sequence[Path]
    count: int
    read: Read
    schema: pa.Schema | None = None


def share(table: Table, part: str, every: int) -> Table:
    """The rows of one part where a table holds both: every n-th row is for tests, the others are to train on.

    Rows of a folder a class stand class by class, so that both parts have all classes in one proportion.
    """
    tests = table.count // every

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for number, row in enumerate(table.read(columns), start=1):
            if (number % every == 0) == (part == "test"):
                yield row

    return replace(table, count=tests if part == "test" else table.count - tests, read=read)
