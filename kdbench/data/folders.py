"""Rows of a part as files: pictures or videos in a folder a class, or beside a ``metadata.csv``.

Beside ``v.avi`` a file ``v.npy`` may hold the row's stored features.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdbench.data.setspec import ClipInput, ImageInput, PictureInput, SetSpec, VectorInput
from kdbench.data.table import Row, Table
from kdbench.errors import UserError, nearest

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
VIDEOS = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"}
METADATA = "metadata.csv"
FEATURES = ".npy"


def open_folder(spec: SetSpec, folder: Path) -> Table:
    """The pictures or videos of a part.

    Raises:
        UserError: the set has other inputs too, the classes are not its own, or a listed file is missing.
    """
    shown, stored = _inputs(spec, folder)
    listed = _rows(spec, folder)

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for path, values in listed:
            row: Row = {shown: {"bytes": path.read_bytes()}, **values}
            if spec.id is not None:
                row.setdefault(spec.id, path.stem)
            if stored is not None:
                row[stored.column] = _features(path.with_suffix(FEATURES), stored)
            yield str(path.relative_to(folder.parent)), row

    return Table(str(folder), files(spec, folder), len(listed), read)


def files(spec: SetSpec, folder: Path) -> list[Path]:
    """Every file that decides a part's rows.

    Raises:
        UserError: as :func:`open_folder`.
    """
    _, stored = _inputs(spec, folder)
    shown = [path for path, _ in _rows(spec, folder)]
    beside = [path.with_suffix(FEATURES) for path in shown] if stored is not None else []
    return [path for path in [folder / METADATA, *beside] if path.is_file()] + shown


def _inputs(spec: SetSpec, folder: Path) -> tuple[str, VectorInput | None]:
    """Column of the pictures or videos, and the stored features beside them."""
    shown = [given for given in spec.inputs.values() if isinstance(given, ImageInput | PictureInput | ClipInput)]
    stored = [given for given in spec.inputs.values() if isinstance(given, VectorInput)]
    columns = {(given.column, given.kind == "clip") for given in shown}  # one picture may be read at several sizes
    if len(columns) != 1 or len(stored) > 1 or len(shown) + len(stored) != len(spec.inputs):
        raise UserError(f"{folder}: a folder of files cannot hold {', '.join(spec.columns)}; give parquet files")
    return shown[0].column, stored[0] if stored else None


def _rows(spec: SetSpec, folder: Path) -> list[tuple[Path, Row]]:
    return _listed(spec, folder) if (folder / METADATA).is_file() else _by_class(spec, folder)


def _suffixes(spec: SetSpec) -> set[str]:
    return VIDEOS if any(isinstance(given, ClipInput) for given in spec.inputs.values()) else PICTURES


def _by_class(spec: SetSpec, folder: Path) -> list[tuple[Path, Row]]:
    if spec.label is None:
        raise UserError(f"{folder}: {METADATA} with columns file_name and {', '.join(spec.columns)} is missing")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(classes) != spec.label.classes:
        raise UserError(f"{folder}: {len(classes)} class folders, {spec.name} has {spec.label.classes} classes")
    return [
        (path, {spec.label.column: label})
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in _suffixes(spec)
    ]


def _listed(spec: SetSpec, folder: Path) -> list[tuple[Path, Row]]:
    number = int if spec.label is not None else float
    aim = spec.label.column if spec.label is not None else spec.target.column  # type: ignore[union-attr]
    found = []
    with (folder / METADATA).open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            at = f"{folder / METADATA} line {line}"
            for key in ("file_name", aim):
                if row.get(key) is None:
                    raise UserError(f"{at}: no column {key!r}{nearest(key, [k for k in row if k])}")
            try:
                value = number(row[aim])
            except ValueError as error:
                raise UserError(f"{at}: {aim} is {row[aim]!r}, a number is expected") from error
            path = folder / row["file_name"]
            if not path.is_file() or folder.resolve() not in path.resolve().parents:
                raise UserError(f"{at}: no file {row['file_name']!r} in {folder}")
            found.append((path, {**row, aim: value}))
    return found


def _features(path: Path, given: VectorInput) -> Any:
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
