"""What a run's primary metric is of each test row, in a Parquet file beside the record, for paired tests.

The record holds the digest of the values (``metrics.items_sha256``), so that the file belongs to it; a record without
the file is whole. It lies in :data:`FOLDER` beside the record, named like it, and has two columns: ``row``, the number
of a row of the test part, from 0 in order, and ``correct``, whether the network is right on it, or, of a metric that is
no share of rows, ``value``, in the metric's unit.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdbench.base.files import write_atomic
from kdbench.records import shards
from kdbench.records.files import Record

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FOLDER = "items"
MAX_BYTES = 20_000_000
MAX_ROWS = 10_000_000
TOLERANCE = 1e-6
"""By which the mean may differ from the metric, summed in another order: in its unit, or its share of a large one."""

Each = NDArray[np.bool_] | NDArray[np.float64]
"""(N,) whether the network is right on each test row, or the metric of each."""
COLUMNS = {"correct": np.dtype(np.bool_), "value": np.dtype(np.float64)}
"""How the second column is called, and what it holds."""


def path_of(record: Path) -> Path:
    """Where the values of a record's file lie."""
    return shards.beside(record) / FOLDER / f"{record.stem}.parquet"


def digest(each: Each) -> str:
    """SHA-256 of a text with a ``1`` or ``0`` a row, or of the numbers as 8 bytes each, the lowest first."""
    if each.dtype == np.bool_:
        return hashlib.sha256(b"".join(b"1" if one else b"0" for one in each)).hexdigest()
    return hashlib.sha256(each.astype("<f8").tobytes()).hexdigest()


def dump(each: Each, path: Path) -> None:
    """Writes them whole or not at all."""
    name, kind = ("correct", "BOOLEAN") if each.dtype == np.bool_ else ("value", "DOUBLE")

    with tempfile.TemporaryDirectory() as folder, _database().cursor() as database:
        made = Path(folder) / "items.parquet"
        database.execute(
            f"CREATE TEMP TABLE items AS SELECT unnest(range(?))::INTEGER AS row, unnest(?::{kind}[]) AS {name}",
            [len(each), each.tolist()],
        )
        place = str(made).replace("'", "''")
        # of the format's second version, which writes numbers in order as next to nothing
        how = "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2"
        database.execute(f"COPY (FROM items ORDER BY row) TO '{place}' ({how})")
        write_atomic(path, made.read_bytes())


@functools.cache
def _database() -> DuckDBPyConnection:
    """One a process: to start one takes nine times as long as to read a file of these."""
    import duckdb

    return duckdb.connect(config={"threads": 1})


def load(path: Path) -> Each | None:
    """The values of a file; None where there is none, or it is not what :func:`dump` writes."""
    import duckdb

    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        with _database().cursor() as database:
            there = [one[0] for one in database.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall()]
            name = next((name for name in COLUMNS if there == ["row", name]), None)
            if name is None:
                return None
            asked = f"SELECT row, {name} FROM read_parquet(?) LIMIT {MAX_ROWS}"
            found = database.execute(asked, [str(path)]).fetchnumpy()
    except (OSError, duckdb.Error):
        return None
    rows, each = found["row"], found[name]
    whole = isinstance(each, np.ndarray) and not np.ma.is_masked(each) and each.dtype == COLUMNS[name]
    return np.asarray(each) if whole and np.array_equal(rows, np.arange(len(each))) else None


def of(path: Path, record: Record) -> Each | None:
    """The values that belong to a record's file; None without them."""
    each = load(path_of(path))
    return each if each is not None and wrong(each, record) is None else None


def wrong(each: Each, record: Record) -> str | None:
    """Why values are not a record's, None where they are."""
    if record.metrics is None or record.metrics.items_sha256 is None:
        return "the record names no values of its test rows"
    if digest(each) != record.metrics.items_sha256:
        return "are not the values that the record names (metrics.items_sha256)"
    if len(each) != record.metrics.test_items:
        return f"are of {len(each)} rows, the record of {record.metrics.test_items}"
    mean, name = float(each.mean()) * (100 if each.dtype == np.bool_ else 1), record.task.metric_primary
    said = record.metrics.last[name]
    if not abs(mean - said) <= TOLERANCE * max(1.0, abs(said)):
        return f"have the mean {mean:.6g}, {name} is {said:.6g}"
    return None
