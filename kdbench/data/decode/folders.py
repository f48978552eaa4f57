"""Rows of a part as files: pictures or videos in a folder a class, or beside a ``metadata.csv``.

Beside ``v.avi`` a file ``v.npy`` may hold the row's stored features.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError, nearest, printable
from kdbench.data.decode.classfolders import Passed, class_folders, some, unlisted
from kdbench.data.decode.inputs import ClipInput, ImageInput, PictureInput, VectorInput
from kdbench.data.decode.sheets import sheet
from kdbench.data.decode.specification import SetSpec
from kdbench.data.decode.table import Row, Table

PICTURES = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".avif", ".tga",
}  # fmt: skip
VIDEOS = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"}
METADATA = "metadata.csv"
FEATURES = ".npy"
SHOWN = 20
"""Classes that a message lists."""


@dataclass(frozen=True)
class _Found:
    """Rows of a part: a file and its values each; in class folders their names, and what was passed over."""

    rows: Sequence[tuple[str, Row]]
    classes: Sequence[str] | None = None
    passed: Passed | None = None


def open_folder(spec: SetSpec, folder: Path, classes: Sequence[str] | None = None) -> Table:
    """The pictures or videos of a part.

    Args:
        classes: names in the order of their numbers, of which the folder may lack some; None numbers its own.

    Raises:
        UserError: the set has other inputs too, the classes are not its own, or a listed file is missing.
    """
    shown, stored = _inputs(spec, folder)
    found = _found(spec, folder, classes)

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for file, values in found.rows:
            path, row = Path(file), dict(values)
            if shown in columns:
                row[shown] = {"bytes": content(path)}
            if spec.id is not None:
                row.setdefault(spec.id, path.stem)
            if stored is not None and stored.column in columns:
                row[stored.column] = features(path.with_suffix(FEATURES), stored)
            yield printable(path.relative_to(folder.parent)), row

    passed = str(found.passed) if found.passed is not None else ""
    return Table(
        printable(folder), _files(spec, folder, found), len(found.rows), read, classes=found.classes, passed=passed
    )


def files(spec: SetSpec, folder: Path) -> list[str]:
    """Every file that decides a part's rows.

    Raises:
        UserError: as :func:`open_folder`.
    """
    return _files(spec, folder, _found(spec, folder))


def _files(spec: SetSpec, folder: Path, found: _Found) -> list[str]:
    _, stored = _inputs(spec, folder)
    shown = [path for path, _ in found.rows]  # strings: a folder may hold a million
    beside = [str(Path(path).with_suffix(FEATURES)) for path in shown] if stored is not None else []
    return [path for path in [str(folder / METADATA), *beside] if os.path.isfile(path)] + shown


def _inputs(spec: SetSpec, folder: Path) -> tuple[str, VectorInput | None]:
    """Column of the pictures or videos, and the stored features beside them."""
    shown = [given for given in spec.inputs.values() if isinstance(given, ImageInput | PictureInput | ClipInput)]
    stored = [given for given in spec.inputs.values() if isinstance(given, VectorInput)]
    columns = {(given.column, given.kind == "clip") for given in shown}  # one picture may be read at several sizes
    if len(columns) != 1 or len(stored) > 1 or len(shown) + len(stored) != len(spec.inputs):
        raise UserError(f"{folder}: a folder of files cannot hold {', '.join(spec.columns)}; give parquet files")
    return shown[0].column, stored[0] if stored else None


def _found(spec: SetSpec, folder: Path, classes: Sequence[str] | None = None) -> _Found:
    return _listed(spec, folder) if (folder / METADATA).is_file() else _by_class(spec, folder, classes)


def _by_class(spec: SetSpec, folder: Path, classes: Sequence[str] | None) -> _Found:
    if spec.label is None:
        raise UserError(f"{folder}: {METADATA} with columns file_name and {', '.join(spec.columns)} is missing")
    video = any(isinstance(given, ClipInput) for given in spec.inputs.values())
    beside = {FEATURES} if any(isinstance(given, VectorInput) for given in spec.inputs.values()) else set()
    found = class_folders(folder, VIDEOS if video else PICTURES, beside)
    column = spec.label.column
    if classes is not None:
        if unknown := [name for name in found.files if name not in classes]:
            raise UserError(f"{found.folder}: {unknown_classes(unknown, classes)}")
        known = [(path, {column: classes.index(name)}) for name, paths in found.files.items() for path in paths]
        return _Found(known, classes, found.passed)
    if len(found.files) != spec.label.classes:
        count = f"{found.folder}: {len(found.files)} class folders, {spec.name} has {spec.label.classes} classes"
        raise UserError(f"{count}; {found.empty}" if found.empty else count)
    if found.empty:
        raise UserError(found.empty)
    rows = [(path, {column: label}) for label, paths in enumerate(found.files.values()) for path in paths]
    return _Found(rows, list(found.files), found.passed)


def unknown_classes(names: Sequence[str], classes: Sequence[str]) -> str:
    """The line on classes that are none of those known."""
    known = ", ".join(classes[:SHOWN]) + (f", ... ({len(classes)})" if len(classes) > SHOWN else "")
    what = f"{some(names)} {'are no classes' if len(names) > 1 else 'is no class'}"
    return f"{what} of the network's{nearest(names[0], classes)}; it knows {known}: rename or leave out the others"


def _listed(spec: SetSpec, folder: Path) -> _Found:
    named = spec.label is not None and spec.label.names is not None
    number = int if spec.label is not None else float
    aim = spec.label.column if spec.label is not None else spec.target.column  # type: ignore[union-attr]
    found: list[tuple[str, Row]] = []
    root, seen = folder.resolve(), dict[Path, tuple[int, float | str]]()
    # Spreadsheets begin a file with a mark; names of another encoding are found by their bytes.
    with (folder / METADATA).open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, row in sheet(folder / METADATA, file)[1]:
            at = f"{folder / METADATA} line {line}"
            name, said = row.get("file_name"), row.get(aim)
            if name is None or said is None:
                key = "file_name" if name is None else aim
                raise UserError(f"{at}: no column {key!r}{nearest(key, row)}")
            if not said.strip():
                raise UserError(f"{at}: {aim} is empty; every row needs one, leave rows without it out")
            try:
                value = said if named else number(said)
            except ValueError as error:
                raise UserError(f"{at}: {aim} is {said!r}, a number is expected") from error
            path = folder / name
            real = path.resolve()
            if not path.is_file() or root not in real.parents:
                raise UserError(f"{at}: no file {name!r} in {folder}")
            first, other = seen.setdefault(real, (line, value))
            if other != value:
                what = f"{name!r} has {aim} {other} in line {first} and {value} here"
                raise UserError(f"{at}: {what}; a row has one (multi-label is no kind of task here)")
            found.append((str(path), {**row, aim: value}))
    return _Found(found, passed=unlisted(folder, PICTURES | VIDEOS, {str(path) for path in seen}))


def content(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def features(path: Path, given: VectorInput) -> Any:
    """A row's stored features; None where an optional one is not there."""
    if not path.is_file():
        if given.optional:
            return None
        raise UserError(f"{path}: missing; it holds the {given.size} numbers of {given.column!r}")
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not an array of numbers, or cut off; get the file again") from error
