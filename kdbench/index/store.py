"""The index of result records in DuckDB. Records are the truth: the index can be dropped and rebuilt at any time."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from kdbench import __version__
from kdbench.base.errors import UserError, nearest
from kdbench.base.files import write_atomic
from kdbench.index.columns import MEASURED
from kdbench.index.csv import to_csv
from kdbench.index.file import StoreOld, connect, hold, retry, telling
from kdbench.index.intake import checked
from kdbench.index.sql import EXTERNAL_SCORES, INSERT_RUNS, INSERT_SIDES, STAGE_RUNS, STAGE_SIDES, STORE_VERSION, TABLES
from kdbench.index.views import VIEWS
from kdbench.records.files import Problem, Record
from kdbench.records.folder import File, Listed, listed

_BATCH = 1000
"""Records in memory at a time."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did: how many files were ``new`` or ``unchanged``, and which were ``bad`` and why.

    ``gone``: how many of those taken in earlier are not among the sources.
    """

    new: int = 0
    unchanged: int = 0
    gone: int = 0
    bad: tuple[Problem, ...] = ()


class Store:
    """An open index, to be used in a ``with`` block.

    Args:
        path: the file, made when missing unless ``read_only``; None keeps the index in memory.
        read_only: refuse writes, and let other readers in.
        wait_s: seconds to wait for another process to close the index.

    Attributes:
        report: what the last :meth:`ingest` did.

    Raises:
        StoreLocked: it stayed open elsewhere.
        StoreDamaged: no DuckDB file, or one that cannot be read.
        UserError: another program's, one of another version, or missing although ``read_only``.
    """

    def __init__(self, path: Path | None, *, read_only: bool = False, wait_s: float = 60.0) -> None:
        self.path = path
        self.wait_s = wait_s
        self.report = IngestReport()
        self._connection = connect(path, read_only, wait_s)
        try:
            with telling(path):
                self._connection.execute("SET enable_progress_bar = false")  # no option of connect()
                self._check_version(read_only)
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def memory(cls, *sources: Path) -> Self:
        """An index in memory, straight from records, for the site; what was bad is in its ``report``."""
        store = cls(None)
        store.ingest(*sources)
        return store

    @classmethod
    def rebuild(cls, path: Path, *sources: Path, wait_s: float = 60.0) -> IngestReport:
        """Make the index anew from the records, whatever it held; the old one stays until the new one is whole.

        This is also how an index of another version is brought up to date.
        """
        fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
        old = hold(path, wait_s)
        try:
            with cls(fresh) as store:
                report = store.ingest(*sources)
            path.with_name(f"{path.name}.wal").unlink(missing_ok=True)  # belongs to the old index
            os.replace(fresh, path)
        finally:
            for left in (fresh, fresh.with_name(f"{fresh.name}.wal")):
                left.unlink(missing_ok=True)
            if old is not None:
                old.close()
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, so that others may open it."""
        self._connection.close()

    def ingest(self, *sources: Path) -> IngestReport:
        """Take in all records and side files that are not in yet, in one transaction.

        Args:
            sources: record files, shards of them, or folders looked through to the bottom. Side files lie in folders
                named ``verifications``.

        Returns:
            What was new, unchanged and bad. A bad file never keeps the others out. A record that differs from the one
            taken in earlier under its name is bad: records are immutable.

        Raises:
            UserError: a source does not exist, or the index cannot be written (disk full).
        """
        found = listed(*sources)
        self.report = retry(lambda: self._ingest(found), self.path, self.wait_s)
        return self.report

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Rows of any SELECT, as column to value."""
        with telling(self.path):
            cursor = self._connection.execute(sql, list(parameters))
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def runs(self, **where: Any) -> list[dict[str, Any]]:
        """Runs with level and withdrawal, without their JSON; ``where``: column = value, or a list of values."""
        return self._select("v_runs", where, "method, task, task_version, device_class, seed, run_id", drop="record")

    def cells(self, **where: Any) -> list[dict[str, Any]]:
        """Cells: n, mean, sd (sample), scores by seed, and whether the cell is its method's ``current`` one."""
        return self._select("v_cell", where, "task, task_version, device_class, method, spec_hash, teacher_sha256")

    def deltas(self, **where: Any) -> list[dict[str, Any]]:
        """Seed-paired differences to the baseline and to plain; ``gain`` is positive where the method is better."""
        return self._select("v_delta", where, "task, task_version, device_class, method, reference, seed, run_id")

    def coverage(self, **where: Any) -> list[dict[str, Any]]:
        """How many seeds ran, failed or did not apply, by method, task version and device class."""
        return self._select("v_coverage", where, "task, task_version, device_class, method")

    def record(self, run_id: str) -> dict[str, Any] | None:
        """The record as JSON, None when the index does not have it."""
        found = self.query("SELECT record FROM runs WHERE run_id = ?", [run_id])
        return json.loads(found[0]["record"]) if found else None

    def records(self, run_ids: Sequence[str]) -> dict[str, Record]:
        """Run id to record without its curve, of those that the index has; half of the time would go to the curves."""
        slim = """json_merge_patch(record, '{"curve": []}') AS record"""
        found = self.query(f"SELECT run_id, {slim} FROM runs WHERE run_id IN (SELECT unnest(?::VARCHAR[]))", [run_ids])
        return {row["run_id"]: Record.model_validate_json(row["record"]) for row in found}

    def overheads(self, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Run id to row of the overhead table, of those that have one."""
        found = self.query("SELECT * FROM overhead WHERE run_id IN (SELECT unnest(?::VARCHAR[]))", [run_ids])
        return {row["run_id"]: row for row in found}

    def class_scores(self) -> dict[str, dict[str, float]]:
        """Run id to the primary metric of each class that its test rows hold, of runs whose metric has such."""
        by_run: dict[str, dict[str, float]] = {}
        for row in self.query("SELECT * FROM class_scores ORDER BY run_id, class"):
            by_run.setdefault(row["run_id"], {})[row["class"]] = row["value"]
        return by_run

    def external(self) -> list[dict[str, Any]]:
        """Scores on test sets from elsewhere by name and run; of sets that share a name, the newest run's."""
        return self.query(EXTERNAL_SCORES)

    def external_scores(self) -> dict[str, dict[str, float]]:
        """Run id to the primary metric on each test set from elsewhere, of runs that were scored on some."""
        by_run: dict[str, dict[str, float]] = {}
        for row in self.external():
            by_run.setdefault(row["run_id"], {})[row["name"]] = row["value"]
        return by_run

    def export(self, folder: Path, **where: Any) -> list[Path]:
        """Write ``runs.parquet`` (all columns and the record) and ``runs.csv`` (without it); returns the two paths.

        Args:
            where: as of :meth:`runs`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        kept, values = self._tests("v_runs", where)
        rows = f"(SELECT * FROM v_runs WHERE {kept}) r LEFT JOIN overhead o USING (run_id)"
        shared = "EXCLUDE (run_id, device, dtype, batch)"  # these stand in the run itself
        parquet, table = folder / "runs.parquet", folder / "runs.csv"
        part = parquet.with_name(f".{parquet.name}.part")
        whole = self._connection.sql(f"SELECT r.*, o.* {shared} FROM {rows} ORDER BY run_id", params=values)
        whole.write_parquet(str(part), compression="zstd")
        os.replace(part, parquet)
        flat = self.query(f"SELECT r.* EXCLUDE (record), o.* {shared} FROM {rows} ORDER BY run_id", values)
        write_atomic(table, to_csv(flat, [name for name in whole.columns if name != "record"]))
        return [parquet, table]

    def _check_version(self, read_only: bool) -> None:
        tables = {row["name"] for row in self.query("SELECT table_name AS name FROM duckdb_tables()")}
        if "schema_meta" not in tables:
            if tables or read_only:
                raise UserError(f"{self.path} is a DuckDB file, but no index of kdbench: name another file")
            with _transaction(self._connection):
                self._connection.execute(TABLES)
                self._connection.execute(VIEWS)
                self._connection.execute(
                    "INSERT INTO schema_meta VALUES (?, ?, ?)",
                    [STORE_VERSION, __version__, datetime.now(UTC).replace(tzinfo=None)],
                )
            return
        version = self.query("SELECT version FROM schema_meta")[0]["version"]
        said = f"the index {self.path} has version {version}, not {STORE_VERSION}, so it is"
        if version > STORE_VERSION:
            raise UserError(f"{said} newer than this kdbench; upgrade kdbench, or rebuild it from the records")
        if version < STORE_VERSION:
            raise StoreOld(f"{said} older than this kdbench; rebuild it from the records")
        if lacking := MEASURED - {row["column_name"] for row in self.query("DESCRIBE overhead")}:
            raise StoreOld(f"the index {self.path} lacks {', '.join(sorted(lacking))}; rebuild it from the records")

    def _select(self, view: str, where: dict[str, Any], order: str, drop: str | None = None) -> list[dict[str, Any]]:
        tests, values = self._tests(view, where)
        columns = f"* EXCLUDE ({drop})" if drop else "*"
        return self.query(f"SELECT {columns} FROM {view} WHERE {tests} ORDER BY {order}", values)

    def _tests(self, view: str, where: dict[str, Any]) -> tuple[str, list[Any]]:
        """The condition that columns have given values, or one of several, and what its placeholders stand for."""
        known = [row["column_name"] for row in self.query(f"DESCRIBE {view}")]
        for name in where:
            if name not in known:
                raise UserError(f"{view} has no column {name!r}{nearest(name, known)}")
        tests = " AND ".join(f'"{name}" IN (SELECT unnest(?))' for name in where) or "true"
        return tests, [list(value) if isinstance(value, list | tuple | set) else [value] for value in where.values()]

    def _ingest(self, found: Listed) -> IngestReport:
        files, bad = found.files, list(found.bad)
        known = self._known(files)
        fresh, seen = [], dict[tuple[str, str], str]()
        for file in files:
            key = (file.kind, file.run_id)
            if key in seen:
                bad.append(Problem(file.name, "run_id", f"is in {seen[key]} too; one of the two files must go"))
                continue
            seen[key] = file.name
            if known.get(key, ())[:2] != (file.size, file.mtime_ns):
                fresh.append(file)
        new, unchanged = 0, len(seen) - len(fresh)
        gone = self.query("SELECT count(*) AS n FROM sources")[0]["n"] - len(known.keys() & seen.keys())
        touched: list[File] = []
        with _transaction(self._connection):
            for kind, stage, insert in (("run", STAGE_RUNS, INSERT_RUNS), ("side", STAGE_SIDES, INSERT_SIDES)):
                todo = [file for file in fresh if file.kind == kind]
                for start in range(0, len(todo), _BATCH):
                    lines, same = checked(todo[start : start + _BATCH], known, bad)
                    touched += same
                    if lines:
                        self._load(lines, stage, insert)
                    new += len(lines)
            self._remember(touched)
        return IngestReport(new, unchanged + len(touched), gone, tuple(dict.fromkeys(bad)))

    def _known(self, files: Sequence[File]) -> dict[tuple[str, str], tuple[int, int, str]]:
        """(size, mtime, hash) of those of the files that are in."""
        rows = self._connection.execute(
            "SELECT kind, run_id, size, mtime_ns, sha256 FROM sources WHERE run_id IN (SELECT unnest(?::VARCHAR[]))",
            [[file.run_id for file in files]],
        ).fetchall()
        return {(kind, run_id): (size, mtime_ns, digest) for kind, run_id, size, mtime_ns, digest in rows}

    def _load(self, lines: Iterable[str], stage: str, insert: str) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="kdbench-") as folder:
                spool = Path(folder) / "spool.ndjson"
                spool.write_text("".join(lines), encoding="utf-8")
                self._connection.execute(stage, [str(spool)])
        except OSError as error:
            raise UserError(
                f"cannot write to the temporary folder: {error.strerror or error}; free some space"
            ) from error
        self._connection.execute(insert)

    def _remember(self, files: Sequence[File]) -> None:
        """New times of files whose content is unchanged, so that they are skipped next time."""
        self._connection.execute(
            "UPDATE sources SET mtime_ns = t.mtime_ns FROM (SELECT unnest(?::VARCHAR[]) AS kind,"
            " unnest(?::VARCHAR[]) AS run_id, unnest(?::BIGINT[]) AS mtime_ns) t"
            " WHERE sources.kind = t.kind AND sources.run_id = t.run_id",
            [[f.kind for f in files], [f.run_id for f in files], [f.mtime_ns for f in files]],
        )


class _transaction:
    """All of the block's statements or none."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
            return
        with contextlib.suppress(duckdb.Error):  # the first error is the one to tell
            self._connection.execute("ROLLBACK")
