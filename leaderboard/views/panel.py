"""Test pictures with what is on them, and what plain and methods find there, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdbench.base.files import sha256
from kdbench.kinds.base import Mark
from kdbench.leaderboard.model.ranking import TaskBoard
from kdbench.records import examples
from kdbench.records.examples import Example, Examples
from kdbench.specs.registry import PLAIN

METHODS = 3
"""Beside plain; more are hard to compare by eye."""
COLOURS = 6
"""Of outlines, by class; further classes begin anew."""


@dataclass(frozen=True)
class Outline:
    """A polygon of a drawing of 100 by 100: its points, its class of colour, and what it is in words."""

    points: str
    colour: int
    title: str


@dataclass(frozen=True)
class Shown:
    """One picture with marks.

    Attributes:
        picture: name of its file.
    """

    picture: str
    width: int
    height: int
    alt: str
    outlines: tuple[Outline, ...]


@dataclass(frozen=True)
class Panel:
    """Columns of pictures; the first is what is there.

    Attributes:
        heads: of the columns, with the run behind each ("" for what is there).
        legend: number of a colour to the classes that have it.
        files: file name to PNG.
    """

    seed: int
    heads: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Shown, ...], ...]
    legend: tuple[tuple[int, str], ...]
    files: Mapping[str, bytes]


def found_in(records: Path) -> dict[str, Path]:
    """Run id to its examples, of a folder of records."""
    return {path.stem: path for path in sorted(records.rglob(f"{examples.FOLDER}/*.zip"))} if records.is_dir() else {}


def panel_of(one: TaskBoard, kept: Mapping[str, Path]) -> Panel | None:
    """Pictures of the first seed that plain has some of, of plain and the first methods that have the same ones."""
    plain = one.entry(PLAIN)
    if plain is None or not kept:
        return None
    for seed in sorted(plain.result.runs):
        known = _of(plain.result.runs[seed], kept)
        if known is None:
            continue
        columns: list[tuple[str, str, Examples]] = [(PLAIN, plain.result.runs[seed], known)]
        for row in one.comparable:
            run = row.result.runs.get(seed, "")
            other = _of(run, kept) if row.method != PLAIN and len(columns) <= METHODS else None
            if other is not None and _alike(other, known):
                columns.append((row.method, run, other))
        return _drawn(seed, columns)
    return None


def _of(run: str, kept: Mapping[str, Path]) -> Examples | None:
    return examples.load(kept[run]) if run in kept else None


def _alike(one: Examples, other: Examples) -> bool:
    return [e.row for e in one.examples] == [e.row for e in other.examples] and one.pictures == other.pictures


def _drawn(seed: int, columns: Sequence[tuple[str, str, Examples]]) -> Panel:
    first = columns[0][2]
    files = {name: f"{sha256(png)[:16]}.png" for name, png in first.pictures.items()}
    rows = []
    for place, example in enumerate(first.examples):
        sides = [("what is there", example.truth)]
        sides += [(f"found by {name}", found.examples[place].found) for name, _, found in columns]
        rows.append(tuple(_shown(example, files[example.picture], word, marks, first.names) for word, marks in sides))
    labels = sorted({mark.label for *_, e in columns for x in e.examples for mark in (*x.truth, *x.found)})
    colours = sorted({label % COLOURS for label in labels})
    legend = [(c, ", ".join(_name(x, first.names) for x in labels if x % COLOURS == c)) for c in colours]
    heads = (("there", ""), *((name, run) for name, run, _ in columns))
    return Panel(seed, heads, tuple(rows), tuple(legend), {files[name]: png for name, png in first.pictures.items()})


def _name(label: int, names: Sequence[str] | None) -> str:
    return names[label] if names is not None and label < len(names) else f"class {label}"


def _shown(example: Example, file: str, word: str, marks: Sequence[Mark], names: Sequence[str] | None) -> Shown:
    outlines = []
    for mark in marks:
        points = " ".join(f"{100 * x:.1f},{100 * y:.1f}" for x, y in mark.points)
        sure = "" if mark.score is None else f", {mark.score:.2f}"
        outlines.append(Outline(points, mark.label % COLOURS, f"{_name(mark.label, names)}{sure}"))
    alt = f"test picture {example.row}, {word}: {len(marks)} object{'s' * (len(marks) != 1)}"
    return Shown(file, example.width, example.height, alt, tuple(outlines))
