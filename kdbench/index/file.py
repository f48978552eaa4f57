"""The DuckDB file behind an index: opened in turn with other processes, its errors told as what they mean."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb

from kdbench.base.errors import UserError

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "storage_compatibility_version": "v1.4.0",  # files that DuckDB 1.4 opens too
    "memory_limit": "512MB",
    "threads": 2,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_NOT_THE_FILE = (
    "no space left", "read-only file system", "permission denied", "is a directory", "cannot open file",
    "could not write", "out of memory",
)  # fmt: skip
"""Words of errors that say nothing of what is in the file."""
_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")
_T = TypeVar("_T")


class StoreLocked(UserError):
    """Another process kept the index open for the whole wait. Nothing is lost: the records are files.

    Attributes:
        held: which index, and by what, as far as DuckDB tells.
    """

    def __init__(self, path: Path, wait_s: float, error: duckdb.Error) -> None:
        holder = _HOLDER.search(str(error))
        by = f" ({Path(holder[1]).name}, process {holder[2]})" if holder else ""
        self.held = f"the index {path} is open in another program{by}"
        super().__init__(f"{self.held} and stayed so for {wait_s:g} s; its records are safe, ingest them later")


class StoreOld(UserError):
    """The index was made by an older kdbench. Nothing is lost: the records are files."""


class StoreDamaged(UserError):
    """The file is none of DuckDB's, or what is in it cannot be read. Nothing is lost: the records are files."""


def connect(path: Path | None, read_only: bool, wait_s: float) -> duckdb.DuckDBPyConnection:
    """An open index, in memory without a path.

    Raises:
        StoreLocked, StoreDamaged, UserError: as the class ``Store`` says.
    """
    if path is None:
        return duckdb.connect(":memory:", config=_CONFIG)
    if read_only and not path.exists():
        raise UserError(f"there is no index {path} yet; run an evaluation, or ingest a folder of records")
    if path.is_dir():
        raise UserError(f"the index {path} is a folder: move it away, or name another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder of the index {path}: {error.strerror}") from error
    return retry(lambda: duckdb.connect(str(path), read_only=read_only, config=_CONFIG), path, wait_s)


def hold(path: Path, wait_s: float) -> duckdb.DuckDBPyConnection | None:
    """The old index, kept open so that nobody writes to it while a new one is made; None where there is none."""
    if not path.exists():
        return None
    try:
        connection = connect(path, False, wait_s)
    except StoreLocked:
        raise
    except UserError:
        return None  # no DuckDB file: replaced
    with contextlib.suppress(duckdb.Error):  # damaged: replaced too
        connection.execute("CHECKPOINT")
    return connection


def retry(action: Callable[[], _T], path: Path | None, wait_s: float) -> _T:
    """``action()``, again while another process holds the file, with growing random pauses.

    Raises:
        StoreLocked: it held it all the time.
        StoreDamaged, UserError: see :func:`told`.
    """
    deadline, pause = time.monotonic() + wait_s, 0.01
    while True:
        try:
            return action()
        except duckdb.Error as error:
            busy = _is_busy(error, path)
            late = time.monotonic() >= deadline
            if not busy and (late or not _is_new(path)):
                raise told(error, path) from error
            if late:
                assert path is not None
                raise StoreLocked(path, wait_s, error) from error
        time.sleep(min(pause * random.uniform(0.5, 1.0), max(0.0, deadline - time.monotonic())))
        pause = min(1.0, pause * 2)


@contextmanager
def telling(path: Path | None) -> Iterator[None]:
    """Errors of DuckDB in the block are raised as what they mean, see :func:`told`."""
    try:
        yield
    except duckdb.Error as error:
        raise told(error, path) from error


def told(error: duckdb.Error, path: Path | None) -> Exception:
    """A StoreDamaged or another UserError for what is wrong with the file; a mistake in a query is raised as it is."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    if path is None or isinstance(error, duckdb.ProgrammingError | duckdb.IntegrityError | duckdb.DataError):
        return error
    if isinstance(error, duckdb.OutOfMemoryException) or any(words in text.lower() for words in _NOT_THE_FILE):
        return UserError(f"the index {path} cannot be used: {text}; free some space or name another --out")
    what = "is no DuckDB file" if "not a valid DuckDB" in text else f"cannot be read ({text})"
    return StoreDamaged(f"{path} {what}; name another, or rebuild the index from the records, which are untouched")


def _is_busy(error: duckdb.Error, path: Path | None) -> bool:
    text = str(error).replace(str(path), "").lower()
    return (
        isinstance(error, duckdb.TransactionException)
        or "set lock on file" in text
        or "conflicting lock" in text  # not just "lock": a damaged file has bad blocks
        or "different configuration" in text
    )


def _is_new(path: Path | None) -> bool:
    """Whether another process has just made the file and not yet written to it."""
    try:
        return path is not None and path.stat().st_size == 0 and abs(time.time() - path.stat().st_mtime) < 2
    except OSError:
        return False
