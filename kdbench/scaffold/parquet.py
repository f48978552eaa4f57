"""Looks at parquet files of pictures for what a data set file must say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kdbench.base.errors import UserError
from kdbench.data.decode.classfolders import some as first_names
from kdbench.data.decode.columns import file_content
from kdbench.data.decode.partfiles import shard_of, tables_of
from kdbench.data.decode.table import held_back, is_text, lone_class, one_row
from kdbench.scaffold import aims, partnames
from kdbench.scaffold.found import SAMPLE, VALIDATION, Found, looked, one_part


def in_parquet(given: Path, label: str | None, target: str | None, image: str | None) -> tuple[Path, Found]:
    """A parquet file of pictures, or a folder of some, and the test part beside it if there is one.

    A file stands for itself and its shards (``-00000-of-00002``); those of other names beside it are left alone.

    Returns:
        The folder to read, and what is in it.

    Raises:
        UserError: not readable, no column of pictures, or it is not plain which column is predicted.
    """
    folder, train, others = _named_part(given)
    files = tables_of(folder, train)
    schema = _opened(files[0]).schema_arrow
    column = aims.picture_column(schema, files[0], image)
    named = aims.class_labels(schema)
    chosen, number = aims.aim_column(
        schema, files[0], label, target, named, lambda name: aims.repeats(_values(files, name, {})), texts=True
    )
    texts = is_text(schema.field(chosen).type)
    notes: list[str] = []
    known: dict[Path, list[Any]] = {}
    test = next((part for part in others if _labelled(folder, part, chosen, known, notes, texts)), None)
    parts, every = {"train": train, "test": test or train}, None
    if test is None:
        parts, every, note = one_part(train)
        notes.append(note)
    elif (val := partnames.validation(others, test)) and _labelled(folder, val, chosen, known, notes, texts):
        parts["val"] = val
        notes.append(VALIDATION.format(val))
    read = dict.fromkeys(path for part in parts.values() for path in tables_of(folder, part))
    values = [value for path in read for value in _values([path], chosen, known, texts)]
    own = _values(files, chosen, known, texts)
    if texts:
        aim = aims.read_names(chosen, values, folder)
        notes.append(f"classes are numbered in the order of their names: {first_names(aim.names or [])} (`names`)")
    else:
        aims.read_aim(chosen, number, own, files[0], named.get(chosen))
        aim = aims.read_aim(chosen, number, values, folder, named.get(chosen))
    if aim.classes is not None and (lacking := aim.classes - len(set(values))):
        notes.append(f"{aim.classes - lacking} of {aim.classes} classes (0 to {aim.classes - 1}) occur")
    if test is None and not number and (lone := lone_class(own)) is not None:
        raise UserError(f"{files[0]}: {one_row(lone)}")
    for part in dict.fromkeys(parts.values()) if not number else ():
        odd = sorted(set(own) ^ set(_values(tables_of(folder, part), chosen, known, texts)))
        if odd:
            lacks = part if odd[0] in own else train
            raise UserError(
                f"{folder}: no row of class {odd[0]} in the part {lacks!r}; give all parts rows of every class"
            )
    notes.insert(0, f"read: {', '.join(path.name for path in list(read)[:4])}{', ...' if len(read) > 4 else ''}")
    held = sum(held_back([0] * len(own) if number else own, every)) if every else 0
    first = next(_opened(files[0]).iter_batches(SAMPLE, columns=[column])).to_pylist()
    some = (
        (f"{files[0].name} row {n}", file_content(row[column], f"{files[0].name} row {n}"))
        for n, row in enumerate(first)
    )
    return folder, Found(parts, every, len(own) - held, aim, column, *looked(some, notes))


def _named_part(given: Path) -> tuple[Path, str, list[str]]:
    """Folder and training part that a path names, and the parts beside it that could be for tests, the best first."""
    if given.is_dir():
        if not _stems(given) and _stems(given / "data"):
            given = given / "data"
        stems = _stems(given)
        found = partnames.pair(stems)
        if found is not None:
            return given, *found
        if not stems:
            raise UserError(f"{given}: no parquet file in it")
        return given.parent, given.name.removesuffix(".parquet") if given.suffix == ".parquet" else given.name, []
    if given.name.startswith("."):
        raise UserError(f"{given}: a hidden file; rename it")
    folder, stem = given.parent, shard_of(given.name.removesuffix(".parquet"))
    if given.name.removesuffix(".parquet") != stem and (folder / f"{stem}.parquet").exists():
        raise UserError(f"{given}: {stem}.parquet lies beside it; keep the one file or the shards")
    return folder, stem, partnames.partners(stem, _stems(folder))


def _stems(folder: Path) -> list[str]:
    """Names of the parts that parquet files of a folder could be."""
    names = (path.name.removesuffix(".parquet") for path in sorted(folder.glob("*.parquet")))
    return list(dict.fromkeys(shard_of(name) for name in names if not name.startswith(".")))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from error


def _values(files: Sequence[Path], column: str, known: dict[Path, list[Any]], texts: bool = False) -> list[Any]:
    """All values of a column; of a file in ``known`` they are not read again."""
    for path in files:
        if path not in known:
            file = _opened(path)
            if column not in file.schema_arrow.names:
                raise UserError(f"{path}: column {column!r} is missing; {', '.join(file.schema_arrow.names)} are there")
            kind = file.schema_arrow.field(column).type
            of = is_text if texts else _is_number
            if not (of(kind) or pa.types.is_null(kind)):
                what = "texts" if texts else "numbers"
                raise UserError(
                    f"{path}: column {column!r} is of type {kind}, {what} are expected as in the first file"
                )
            try:
                known[path] = [value for batch in file.iter_batches(columns=[column]) for value in batch[0].to_pylist()]
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{path}: cannot be read as parquet ({str(error).splitlines()[0]})") from error
    return [value for path in files for value in known[path]]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _labelled(
    folder: Path, part: str, column: str, known: dict[Path, list[Any]], notes: list[str], texts: bool
) -> bool:
    """Whether the rows of a part have labels; hidden test parts have -1 or nothing there."""
    files = tables_of(folder, part)
    there = all(column in _opened(path).schema_arrow.names for path in files)
    hidden = not there or all(value in (None, -1, "") for value in _values(files, column, known, texts))
    if hidden:
        notes.append(f"{files[0].name}: its rows have no labels in {column!r}, so it is not the test part")
    return not hidden
