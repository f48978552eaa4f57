"""Rows of a part as two folders: pictures, and maps that are called like them. Needs neither numpy nor torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdbench.base.errors import UserError, nearest, printable
from kdbench.data.decode.classfolders import Passed
from kdbench.data.decode.folders import PICTURES, content
from kdbench.data.decode.specification import SetSpec
from kdbench.data.decode.table import Row, Table


def places(spec: SetSpec, folder: Path, part: str) -> tuple[Path, Path] | None:
    """Where a part's pictures and maps lie: ``<pictures>/<part>`` and ``<maps>/<part>``, or the other way round."""
    assert spec.map is not None
    both = (spec.map.pictures, spec.map.maps)
    for found in ([folder / name / part for name in both], [folder / part / name for name in both]):
        if found[0].is_dir():
            return found[0], found[1]
    return None


def open_paired(spec: SetSpec, folder: Path, part: str) -> Table:
    """The pictures of a part with their maps, in order of the names.

    Raises:
        UserError: a picture without a map, a map without a picture, or two of one name.
    """
    assert spec.map is not None
    there = places(spec, folder, part)
    if there is None:
        raise UserError(f"{folder}: no folder {spec.map.pictures}/{part} of pictures")
    if not there[1].is_dir():
        raise UserError(f"{folder}: {printable(there[1].relative_to(folder))}, the folder of maps, is missing")
    passed = Passed(folder)
    pictures, maps = (_named(at, ending, passed) for at, ending in zip(there, spec.map.endings, strict=True))
    if without := next((name for name in pictures if name not in maps), None):
        raise UserError(
            f"{pictures[without]}: it has no map; {printable(there[1] / (without + spec.map.endings[1]))}.png is "
            f"expected{nearest(without, maps)}"
        )
    for name in [name for name in maps if name not in pictures]:
        passed.add(str(maps.pop(name)))
    (given,) = spec.inputs.values()
    aim = spec.map.column

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for name, path in pictures.items():
            row: Row = {}
            for column, file in ((given.column, path), (aim, maps[name])):
                if column in columns:
                    row[column] = {"bytes": content(file), "path": printable(file.relative_to(folder))}
            if spec.id is not None:
                row[spec.id] = name
            yield printable(path.relative_to(folder)), row

    return Table(printable(there[0]), [*pictures.values(), *maps.values()], len(pictures), read, passed=str(passed))


def _named(folder: Path, ending: str, passed: Passed) -> dict[str, Path]:
    """The picture files below a folder, by their path there without suffix and ending, in order."""
    found: dict[str, Path] = {}
    for here, inner, names in os.walk(folder):
        inner.sort()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            path = Path(here) / name
            if name.startswith("."):
                continue
            if suffix.lower() not in PICTURES or not stem.endswith(ending):
                passed.add(str(path))
                continue
            key = str((Path(here) / stem.removesuffix(ending)).relative_to(folder))
            if key in found:
                raise UserError(f"{path}: {found[key].name} has the same name; keep one of them")
            found[key] = path
    return found
