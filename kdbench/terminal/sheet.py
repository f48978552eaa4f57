"""A table that fits any terminal: columns that find no room stand in a further part below, or are left out; never cut.

Numbers stay whole in every part; the first column, which names the row, is repeated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from kdbench.terminal import streams

GAP, EDGES = 3, 2
"""Blanks between two columns, and at both ends of a line together."""
READABLE = 16
"""A column of words is not made narrower than this, or than its words."""
EMPTY = frozenset({"", "–"})


class Screen(Console):
    """A console that lays out what its stream can show, see :mod:`kdbench.terminal.streams`."""

    def render_str(self, text: str, **settings: Any) -> Text:
        """As rich does, of letters that the stream has."""
        return super().render_str(streams.plain(text, self.encoding), **settings)


@dataclass(frozen=True)
class _Measured:
    """A column with the width at which it is still whole, and the one at which no line of it is broken."""

    column: Column
    least: int
    natural: int

    @property
    def empty(self) -> bool:
        """Whether no row has a value."""
        return EMPTY.issuperset(self.column.cells)

    def at_most(self, width: int) -> _Measured:
        return dataclasses.replace(self, least=min(self.least, width))


class Sheet(Table):
    """A table whose first column names the rows; right-aligned columns are numbers, left-aligned ones are wrapped.

    Args:
        title: above it.
        weight: of each column but the first, in order: where there is no room for all, the heaviest alone are shown and
            the others named below. None has all shown, in parts.

    Attributes:
        notes: lines below it.
    """

    def __init__(self, title: str, weight: Sequence[int] | None = None) -> None:
        super().__init__(title=title)
        self._weight = weight
        self.notes: list[str] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield console.render_str(str(self.title), style="table.title")
        measured = [self._measured(console, options, place) for place in range(len(self.columns))]
        room = options.max_width - EDGES
        shown = measured if self._weight is None else _heaviest(measured, self._weight, room)
        for part in _parts(shown, room) if self.rows else ():
            yield self._made(part, room)
        for note in self.notes:
            yield console.render_str(note)
        left = [" ".join(str(one.column.header).split()) for one in measured if one not in shown and not one.empty]
        if left:
            yield console.render_str(f"no room for: {', '.join(left)}; a wider terminal or --json shows all")

    def _measured(self, console: Console, options: ConsoleOptions, place: int) -> _Measured:
        column = self.columns[place]
        unlimited = options.update(width=10_000)

        def widths(cell: object) -> Measurement:
            return Measurement.get(console, unlimited, console.render_str(str(cell)))

        head, cells = widths(column.header), [widths(cell) for cell in column.cells]
        natural = max([head.maximum, *(cell.maximum for cell in cells)])
        if column.justify == "right" or place == 0:
            return _Measured(column, natural, natural)
        words = max([head.maximum, *(cell.minimum for cell in cells)])
        return _Measured(column, max(words, min(natural, READABLE)), natural)

    def _made(self, part: Sequence[_Measured], room: int) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        widths = _widths(part, room)
        for one, width in zip(part, widths, strict=True):
            whole = width >= one.natural
            made.add_column(
                one.column.header, justify=one.column.justify, width=width, no_wrap=whole, overflow="fold"
            )  # fmt: skip
        for cells in zip(*(one.column.cells for one in part), strict=True):
            made.add_row(*cells)
        return made


def _heaviest(columns: Sequence[_Measured], weight: Sequence[int], room: int) -> list[_Measured]:
    """The first column and the heaviest of the others that have room beside it, in their order; one at least."""
    if _width(columns) <= room:
        return list(columns)
    key, *others = columns
    found = [key]
    for one, _ in sorted(zip(others, weight, strict=True), key=lambda pair: -pair[1]):
        if not one.empty and (len(found) == 1 or _width([*found, one]) <= room):
            found.append(one)
    return [one for one in columns if one in found]


def _parts(columns: Sequence[_Measured], room: int) -> Iterator[list[_Measured]]:
    """The columns in as few parts as have room, in their order; where one part is not enough, empty ones are left out.

    A first column that leaves no room for the others is wrapped, as is a column wider than all the room that is left.
    """
    if _width(columns) <= room or len(columns) < 2:
        yield list(columns)
        return
    key, *others = columns
    needed = [one for one in others if not one.empty]
    widest = max((one.least for one in needed), default=0)
    key = key.at_most(max(room - GAP - widest, room // 2))
    left = max(1, room - GAP - key.least)
    part = [key]
    for one in needed:
        column = one.at_most(left)
        if len(part) > 1 and _width([*part, column]) > room:
            yield part
            part = [key]
        part.append(column)
    yield part


def _width(columns: Sequence[_Measured]) -> int:
    return sum(one.least for one in columns) + GAP * (len(columns) - 1)


def _widths(part: Sequence[_Measured], room: int) -> list[int]:
    """Least widths, and what room is left to the columns that would be broken most often."""
    widths = [one.least for one in part]
    for _ in range(room - _width(part)):
        place = max(range(len(part)), key=lambda n: part[n].natural / max(1, widths[n]))
        if widths[place] >= part[place].natural:
            break
        widths[place] += 1
    return widths
