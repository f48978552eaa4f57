"""Rows of a data set's parts: parquet and Arrow files, folders of pictures, or a data set of the hub."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kdbench.data.setspec import ImageInput, Part, PictureInput, SetSpec
from kdbench.errors import UserError, nearest

BLOCK = 256
"""Rows read at a time."""
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
METADATA = "metadata.csv"
_SHARD = re.compile(r"-(?P<number>\d{5})-of-(?P<count>\d{5})\.")


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


def open_part(spec: SetSpec, folder: Path, part: Part) -> Table:
    """A part of a data set on disk.

    Raises:
        UserError: nothing there, a file that cannot be read, or a shard that is missing.
    """
    names = spec.parts[part]
    for name in names:
        for form, suffix in ((_parquet, "parquet"), (_arrow, "arrow")):
            files = _files(folder, name, suffix)
            if files:
                _whole(files)
                return form(files)
    for name in names:
        if (folder / name).is_dir():
            return _pictures(spec, folder / name)
    name = names[0]
    raise UserError(
        f"{folder}: no {part} part; {name}*.parquet, {name}*.arrow or a folder {name}/ of pictures is expected"
    )


def _files(folder: Path, name: str, suffix: str) -> list[Path]:
    form = re.compile(rf"{re.escape(name)}([-_.].*)?\.{suffix}")
    for place in (folder, folder / "data"):
        found = [path for path in place.glob(f"*.{suffix}") if form.fullmatch(path.name)]
        if found:
            return sorted(found)
    return sorted((folder / name).glob(f"*.{suffix}"))


def _whole(files: Sequence[Path]) -> None:
    """Refuses a set of shards of which one is missing."""
    shards = [match for path in files if (match := _SHARD.search(path.name))]
    if shards and len(shards) == len(files) != int(shards[0]["count"]):
        missing = sorted(set(range(int(shards[0]["count"]))) - {int(match["number"]) for match in shards})
        raise UserError(
            f"{files[0].parent}: shard {missing[0]} of {shards[0]['count']} is missing beside {files[0].name}; "
            "the download was cut off, get it again"
        )


def _cannot(path: Path, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return UserError(f"{path}: cut off or not readable ({reason}); get the file again")


def _parquet(files: Sequence[Path]) -> Table:
    opened = []
    for path in files:
        try:
            opened.append(pq.ParquetFile(path))
        except (OSError, pa.ArrowException) as error:
            raise _cannot(path, error) from error

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for path, file in zip(files, opened, strict=True):
            try:
                yield from _numbered(path, file.iter_batches(BLOCK, columns=list(columns)))
            except (OSError, pa.ArrowException) as error:
                raise _cannot(path, error) from error

    return Table(str(files[0]), files, sum(file.metadata.num_rows for file in opened), read, opened[0].schema_arrow)


def _numbered(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, Row]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield f"{path.name} row {number}", row
            number += 1


def _arrow(files: Sequence[Path]) -> Table:
    tables = []
    for path in files:
        try:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_stream(source) if _is_stream(path) else pa.ipc.open_file(source)
                tables.append(reader.read_all())
        except (OSError, pa.ArrowException) as error:
            raise _cannot(path, error) from error
    return _in_memory(files, tables)


def _is_stream(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) != b"ARROW1"


def _in_memory(files: Sequence[Path], tables: Sequence[pa.Table]) -> Table:
    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for path, table in zip(files, tables, strict=True):
            yield from _numbered(path, table.select(list(columns)).to_batches(BLOCK))

    return Table(str(files[0]), files, sum(table.num_rows for table in tables), read, tables[0].schema)


def _pictures(spec: SetSpec, folder: Path) -> Table:
    """Pictures in a folder a class, or beside a ``metadata.csv`` with ``file_name`` and the other columns."""
    images = [given for given in spec.inputs.values() if isinstance(given, ImageInput | PictureInput)]
    if len(images) != 1 or len(spec.inputs) != 1:
        raise UserError(f"{folder}: a folder of pictures cannot hold {', '.join(spec.columns)}; give parquet files")
    column = images[0].column
    listed = _from_metadata(spec, folder) if (folder / METADATA).is_file() else _by_class(spec, folder)

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for path, values in listed:
            yield str(path.relative_to(folder.parent)), {column: {"bytes": path.read_bytes()}, **values}

    return Table(str(folder), [path for path, _ in listed], len(listed), read)


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
        if path.suffix.lower() in PICTURES
    ]


def _from_metadata(spec: SetSpec, folder: Path) -> list[tuple[Path, Row]]:
    number = int if spec.label is not None else float
    aim = spec.label.column if spec.label is not None else spec.target.column  # type: ignore[union-attr]
    listed = []
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
            listed.append((path, {**row, aim: value}))
    return listed


def from_hub(spec: SetSpec) -> dict[Part, Table]:
    """Both parts from the hub, through `datasets`; code of the repository there is never run.

    Raises:
        UserError: no hub id, no access or no network: says the id, the columns and where local files go.
    """
    assert spec.hub is not None
    import datasets  # slow to import, and needed at the first use alone

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would stand before the one line
    tables: dict[Part, Table] = {}
    for part, names in spec.parts.items():
        try:
            found = datasets.load_dataset(spec.hub.id, spec.hub.config, split=names[0], revision=spec.hub.revision)
        except Exception as error:  # the hub's client raises many types, all of which mean: not to be had now
            raise absent(spec, None, _first_line(error)) from error
        files = [Path(file["filename"]) for file in found.cache_files]
        tables[part] = replace(_in_memory([Path(f"{spec.hub.id} {names[0]}")], [found.data.table]), files=files)
    return tables


def absent(spec: SetSpec, folder: Path | None, reason: str = "") -> UserError:
    """The error for data that are not at hand."""
    columns = ", ".join(f"{name} ({what})" for name, what in spec.columns.items())
    gated = " (gated: accept its terms there and log in)" if spec.hub is not None and spec.hub.gated else ""
    hub = f"hub id {spec.hub.id}{gated}" if spec.hub is not None else "not on the hub"
    where = (
        f"{folder or '<data folder>'}/{spec.folders[0]}/{{{spec.parts['train'][0]},{spec.parts['test'][0]}}}*.parquet"
    )
    because = f" ({reason})" if reason else ""
    return UserError(
        f"data set {spec.name} is not at hand{because}: {hub}; or put {where} with columns {columns} "
        "in a folder named by --data or KDBENCH_DATA"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
