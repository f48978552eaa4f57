"""Rows of a data set's parts: parquet and Arrow files, folders of pictures or videos, or a data set of the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kdbench.base import hub
from kdbench.base.errors import UserError, nearest
from kdbench.data.decode.folders import open_folder
from kdbench.data.decode.inputs import ClipInput
from kdbench.data.decode.paired import open_paired
from kdbench.data.decode.partfiles import PartFiles, part_files
from kdbench.data.decode.specification import Part, SetSpec
from kdbench.data.decode.table import Row, Table

BLOCK, CLIP_BLOCK = 256, 4
"""Rows read at a time, and rows with videos."""


def open_part(spec: SetSpec, folder: Path, part: Part, classes: Sequence[str] | None = None) -> Table:
    """A part of a data set on disk.

    Args:
        classes: as of :func:`kdbench.data.decode.folders.open_folder`.

    Raises:
        UserError: nothing there, a file that cannot be read, or a shard that is missing.
    """
    found = part_files(spec, folder, part)
    if found.objects is not None and found.folder is not None:
        return found.placed()
    if spec.map is not None and found.folder is not None:
        return open_paired(spec, found.folder, found.part)
    if found.folder is not None:
        return open_folder(spec, found.folder, classes)
    form = _parquet if found.tables[0].suffix == ".parquet" else _arrow
    return form(found.tables, _block(spec))


def passed_over(spec: SetSpec, folder: Path | None) -> list[str]:
    """A line on the files of each part's folder that are no rows; none where there are no such files or folders."""
    parts = [part_files(spec, folder, part) for part in spec.part_names] if folder is not None else []
    found = [part for part in parts if part.folder is not None and part.objects is None]
    lines = [_passed(spec, part) for part in found]
    return list(dict.fromkeys(line for line in lines if line))


def _passed(spec: SetSpec, found: PartFiles) -> str:
    assert found.folder is not None
    if spec.map is not None:
        return open_paired(spec, found.folder, found.part).passed
    return open_folder(spec, found.folder).passed


def _block(spec: SetSpec) -> int:
    return CLIP_BLOCK if any(isinstance(given, ClipInput) for given in spec.inputs.values()) else BLOCK


def _cannot(path: Path, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return UserError(f"{path}: cut off or not readable ({reason}); get the file again")


def _parquet(files: Sequence[Path], block: int) -> Table:
    opened = []
    for path in files:
        try:
            opened.append(pq.ParquetFile(path))
        except (OSError, pa.ArrowException) as error:
            raise _cannot(path, error) from error

    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for path, file in zip(files, opened, strict=True):
            _has(path, file.schema_arrow, columns)
            try:
                yield from _numbered(path, file.iter_batches(block, columns=list(columns)))
            except (OSError, pa.ArrowException) as error:
                raise _cannot(path, error) from error

    return Table(str(files[0]), files, sum(file.metadata.num_rows for file in opened), read, opened[0].schema_arrow)


def _has(path: Path, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Refuses a file without a column that the first file of its part has."""
    missing = next((name for name in columns if name not in schema.names), None)
    if missing is not None:
        raise UserError(
            f"{path}: column {missing!r} is missing{nearest(missing, schema.names)}; is it one of these files?"
        )


def _numbered(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, Row]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield f"{path.name} row {number}", row
            number += 1


def _arrow(files: Sequence[Path], block: int) -> Table:
    tables = []
    for path in files:
        try:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_stream(source) if _is_stream(path) else pa.ipc.open_file(source)
                table = reader.read_all()
                table.validate(full=True)  # a damaged file has offsets that end the process when they are followed
                tables.append(table)
        except (OSError, pa.ArrowException) as error:
            raise _cannot(path, error) from error
    return _in_memory(files, tables, block)


def _is_stream(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) != b"ARROW1"


def _in_memory(files: Sequence[Path], tables: Sequence[pa.Table], block: int) -> Table:
    def read(columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for path, table in zip(files, tables, strict=True):
            _has(path, table.schema, columns)
            yield from _numbered(path, table.select(list(columns)).to_batches(block))

    return Table(str(files[0]), files, sum(table.num_rows for table in tables), read, tables[0].schema)


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
            raise absent(spec, None, hub.why(error)) from error
        files = [Path(file["filename"]) for file in found.cache_files]
        whole = _in_memory([Path(f"{spec.hub.id} {names[0]}")], [found.data.table], _block(spec))
        tables[part] = replace(whole, files=files)
    return tables


def absent(spec: SetSpec, folder: Path | None, reason: str = "") -> UserError:
    """The error for data that are not at hand."""
    columns = ", ".join(f"{name} ({what})" for name, what in spec.columns.items())
    gated = " (gated: accept its terms there and log in)" if spec.hub is not None and spec.hub.gated else ""
    remote = f"hub id {spec.hub.id}{gated}" if spec.hub is not None else "not on the hub"
    where = (
        f"{folder or '<data folder>'}/{spec.folders[0]}/{{{spec.parts['train'][0]},{spec.parts['test'][0]}}}*.parquet"
    )
    because = f" ({reason})" if reason else ""
    return UserError(
        f"data set {spec.name} is not at hand{because}: {remote}; or put {where} with columns {columns} "
        "in a folder named by --data or KDBENCH_DATA"
    )
