"""Shards: many records in one Parquet file, text for text, where there are too many for a file each.

A packed record goes by the path that it would have in a folder named like its shard,
``records-0001.parquet/<run_id>.json``: who reads a record by its path reads either form. What lies beside a record, its
side file and its examples, lies beside its shard.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.base.errors import UserError
from kdbench.base.files import sha256, write_atomic

SUFFIX = ".parquet"
COLUMNS = ("run_id", "sha256", "bytes", "record")
"""Of a shard: the record's text as it was submitted, its hash, and how long it is."""


class ShardError(UserError):
    """A shard that cannot be read; ``shard`` is its file, ``what`` is wrong with it."""

    def __init__(self, shard: Path, what: str) -> None:
        self.shard, self.what = shard, f"{what}; restore it from its source"
        super().__init__(f"{shard}: {self.what}")


@dataclass(frozen=True)
class Row:
    """A packed record: its run id, the length of its text in bytes, and when its shard was written."""

    run_id: str
    size: int
    mtime_ns: int


def packed(path: Path) -> bool:
    """Whether a record's path is that of a row of a shard."""
    return path.parent.suffix == SUFFIX and path.parent.is_file()


def beside(path: Path) -> Path:
    """The folder in which a record's side file and examples have their own folders."""
    return path.parent.parent if packed(path) else path.parent


def rows(shard: Path) -> tuple[Row, ...]:
    """The records of a shard, in order, their texts unread.

    Raises:
        ShardError: it is no shard.
    """
    return _raised(shard, _rows(shard, *_state(shard)))


def text(path: Path) -> str:
    """The text of a packed record.

    Raises:
        ShardError: the shard cannot be read, holds another text than it says, or has no such record.
    """
    shard = path.parent
    found = _raised(shard, _texts(shard, *_state(shard))).get(path.stem)
    if found is None:
        raise ShardError(shard, f"holds no record {path.stem}")
    return found


def write(shard: Path, texts: Mapping[str, str]) -> None:
    """Writes records as a shard, whole or not at all; equal records give equal rows.

    Args:
        texts: run id to the text of the record's file.

    Raises:
        UserError: the folder cannot be written, or the texts cannot be read back.
    """
    import pyarrow
    import pyarrow.parquet

    ordered = sorted(texts.items())
    hashes, sizes = [sha256(one) for _, one in ordered], [len(one.encode()) for _, one in ordered]
    columns = [[run_id for run_id, _ in ordered], hashes, sizes, [one for _, one in ordered]]
    stream = io.BytesIO()
    table = pyarrow.table(dict(zip(COLUMNS, columns, strict=True)))
    pyarrow.parquet.write_table(table, stream, compression="zstd", use_dictionary=False)
    write_atomic(shard, stream.getvalue())
    if _raised(shard, _texts(shard, *_state(shard))) != dict(ordered):
        raise ShardError(shard, "gives other texts than were written to it")


def _state(shard: Path) -> tuple[int, int]:
    try:
        found = shard.stat()
    except OSError as error:
        raise ShardError(shard, f"cannot be read: {error.strerror or error}") from error
    return found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=256)
def _rows(shard: Path, size: int, mtime_ns: int) -> tuple[Row, ...] | str:
    """As :func:`rows`, or what is wrong."""
    found = _read(shard, ["run_id", "bytes"])
    if isinstance(found, str):
        return found
    lengths = zip(found["run_id"], found["bytes"], strict=True)
    return tuple(Row(run_id, length, mtime_ns) for run_id, length in lengths)


@functools.lru_cache(maxsize=2)  # records are read in order, and a shard holds many
def _texts(shard: Path, size: int, mtime_ns: int) -> dict[str, str] | str:
    """Run id to text, or what is wrong."""
    found = _read(shard, ["run_id", "sha256", "record"])
    if isinstance(found, str):
        return found
    for run_id, digest, record in zip(found["run_id"], found["sha256"], found["record"], strict=True):
        if sha256(record) != digest:
            return f"the text of {run_id} is not that of its hash"
    return dict(zip(found["run_id"], found["record"], strict=True))


def _read(shard: Path, columns: list[str]) -> dict[str, list[Any]] | str:
    import pyarrow
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.ParquetFile(shard)
        if lacking := [name for name in COLUMNS if name not in found.schema_arrow.names]:
            return f"is no shard of records: it has no column {', '.join(lacking)}"
        taken: dict[str, list[Any]] = found.read(columns).to_pydict()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        return f"is no whole Parquet file ({(str(error).splitlines() or ['unreadable'])[0][:200]})"
    if any(value is None for values in taken.values() for value in values):
        return "is no shard of records: a row lacks a value"
    return taken


def _raised(shard: Path, found: Any) -> Any:
    if isinstance(found, str):
        raise ShardError(shard, found)
    return found
