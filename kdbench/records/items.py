"""On which test rows a run's network is right: a bit a row, in a Parquet file beside the record, for paired tests.

The record holds the digest of the bits (``metrics.items_sha256``), so that the file belongs to it; a record without the
file is whole. It lies in :data:`FOLDER` beside the record, named like it, and has two columns: ``row``, the number of a
row of the test part, from 0 in order, and ``correct``.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdbench.base.files import write_atomic
from kdbench.records import shards
from kdbench.records.files import Record

FOLDER = "items"
MAX_BYTES = 20_000_000
MAX_ROWS = 10_000_000
TOLERANCE = 1e-6
"""Points by which the share of right rows may differ from the metric, which is summed in another order."""

Right = NDArray[np.bool_]
"""(N,) whether the network is right on each test row."""


def path_of(record: Path) -> Path:
    """Where the bits of a record's file lie."""
    return shards.beside(record) / FOLDER / f"{record.stem}.parquet"


def digest(right: Right) -> str:
    """SHA-256 of the bits as text, a ``1`` or ``0`` a row: whoever has them computes it in a line."""
    return hashlib.sha256(b"".join(b"1" if one else b"0" for one in right)).hexdigest()


def dump(right: Right, path: Path) -> None:
    """Writes them whole or not at all."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as database:
        made = Path(folder) / "items.parquet"
        database.execute(
            "CREATE TABLE items AS SELECT unnest(range(?))::INTEGER AS row, unnest(?::BOOLEAN[]) AS correct",
            [len(right), right.tolist()],
        )
        place = str(made).replace("'", "''")
        # of the format's second version, which writes numbers in order as next to nothing
        how = "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2"
        database.execute(f"COPY (FROM items ORDER BY row) TO '{place}' ({how})")
        write_atomic(path, made.read_bytes())


def load(path: Path) -> Right | None:
    """The bits of a file; None where there is none, or it is not what :func:`dump` writes."""
    import duckdb

    try:
        if path.stat().st_size > MAX_BYTES:
            return None
        with duckdb.connect() as database:
            asked = f"SELECT row, correct FROM read_parquet(?) LIMIT {MAX_ROWS}"
            found = database.execute(asked, [str(path)]).fetchnumpy()
    except (OSError, duckdb.Error):
        return None
    rows, right = found["row"], found["correct"]
    whole = isinstance(right, np.ndarray) and not np.ma.is_masked(right) and right.dtype == np.bool_
    return np.asarray(right) if whole and np.array_equal(rows, np.arange(len(right))) else None


def of(path: Path, record: Record) -> Right | None:
    """The bits that belong to a record's file; None without them."""
    right = load(path_of(path))
    return right if right is not None and wrong(right, record) is None else None


def wrong(right: Right, record: Record) -> str | None:
    """Why bits are not a record's, None where they are."""
    if record.metrics is None or record.metrics.items_sha256 is None:
        return "the record names no bits of its test rows"
    if digest(right) != record.metrics.items_sha256:
        return "are not the bits that the record names (metrics.items_sha256)"
    if len(right) != record.metrics.test_items:
        return f"are of {len(right)} rows, the record of {record.metrics.test_items}"
    share, name = 100 * float(right.mean()), record.task.metric_primary
    if abs(share - record.metrics.last[name]) > TOLERANCE:
        return f"are right on {share:.6g} %, {name} is {record.metrics.last[name]:.6g}"
    return None
