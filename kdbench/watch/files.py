"""What a run writes of itself as it goes: ``log.txt`` and ``curves.csv`` in its folder. Nothing is read again."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from kdbench.base.files import write_atomic
from kdbench.base.progress import Point, Work
from kdbench.watch import words
from kdbench.watch.lines import Silence

FIXED = ("stage", "epoch", "step", "seconds", "lr", "loss")
"""Columns of every run; its terms stand after them as ``loss/<name>``, its scores as ``score/<name>``."""


class Log(Silence):
    """All that is said of a run, with the time, and a line an epoch. Goes on where a killed run stopped.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def said(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n")

    def began(self, work: Work) -> None:
        at = f" from {work.done:,}" if work.done else ""
        self.said(f"{work.name}: {work.total:,} steps{at}" if work.total is not None else work.name)

    def point(self, work: Work, point: Point) -> None:
        self.said(words.epoch(work, point))


class Curves:
    """The points of a run as rows of a CSV file, each there once whatever kills the run in between.

    Args:
        path: of the file; rows of a run that was killed are taken over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        read = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))  # a row that was cut off is none
        self._rows = [{str(name): value or "" for name, value in row.items()} for row in read]
        self._columns = list(read.fieldnames or FIXED)
        self._whole = bool(text) and text.endswith("\n")

    @property
    def rows(self) -> int:
        """Points in the file."""
        return len(self._rows)

    def point(self, number: int, point: Point) -> None:
        """Writes a point, ``number`` in its run; rows from there on are of a run that was killed, and go."""
        row = _row(point)
        new = [name for name in row if name not in self._columns]
        append = self._whole and not new and number >= len(self._rows)
        self._columns += new
        self._rows = [*self._rows[:number], row]
        if append:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text(self._rows[-1:]))
        else:  # a further stage has further terms
            write_atomic(self._path, ",".join(self._columns) + "\n" + self._text(self._rows))
            self._whole = True

    def _text(self, rows: Sequence[Mapping[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, restval="", lineterminator="\n").writerows(rows)
        return text.getvalue()


def _row(point: Point) -> dict[str, str]:
    values = {f"loss/{name}": repr(value) for name, value in point.terms.items()}
    scores = {f"score/{name}": repr(value) for name, value in point.scores.items()}
    epoch = "" if point.epoch is None else str(point.epoch)
    fixed = (point.stage, epoch, str(point.step), f"{point.seconds:.3f}", repr(point.lr), repr(point.loss))
    return dict(zip(FIXED, fixed, strict=True)) | values | scores
