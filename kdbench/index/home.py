"""The index of a home folder: brought up to date whenever it is used, made again when it is damaged."""

from __future__ import annotations

import functools
import os
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from kdbench.base.home import Home
from kdbench.index.file import StoreDamaged, StoreLocked, StoreOld
from kdbench.index.store import IngestReport, Store

_T = TypeVar("_T")
WAIT_S = 2.0
"""How long to wait for an index that another process holds: as long as one takes records in, not as a person looks."""
TOLD = 3
"""Bad records that are named; further ones are counted."""


def use(home: Home, action: Callable[[Store], _T]) -> _T:
    """What ``action`` gives on the index with all records taken in.

    In a folder that can only be read the index is made in memory, as it is, which is said in a line, where another
    program holds it. Records that are damaged or of a newer kdbench are left out, which is said too.

    Raises:
        UserError: another program's database, one of a newer kdbench, or no room for it.
    """
    if os.access(home.root, os.W_OK):
        try:
            return _current(home, action)
        except StoreLocked as error:
            _say(f"{error.held}: the records themselves are read, which takes a little longer")
    with Store.memory(home.records) as store:
        _tell(store.report)
        return action(store)


def update(home: Home) -> None:
    """Takes all records into the index.

    Raises:
        StoreLocked: another process held it all the time.
        UserError: as :func:`use`.
    """
    _current(home, lambda store: None)


def _current(home: Home, action: Callable[[Store], _T]) -> _T:
    """What ``action`` gives on the index file.

    A damaged index is set aside, which is said in a line, and made again from the records; so is, quietly, one of
    records that are no longer there, and one of an older kdbench.
    """
    file = _which(home.index)
    try:
        return _once(home, action)
    except StoreDamaged as problem:
        _set_aside(home.index, file, problem)
        return _once(home, action)


def _once(home: Home, action: Callable[[Store], _T]) -> _T:
    with suppress(StoreOld), Store(home.index, wait_s=WAIT_S) as store:
        report = store.ingest(home.records)
        if not report.gone:
            _tell(report)
            return action(store)
    _tell(Store.rebuild(home.index, home.records, wait_s=WAIT_S))
    with Store(home.index, wait_s=WAIT_S) as store:
        return action(store)


def _tell(report: IngestReport) -> None:
    """The files that were left out, the first of many."""
    for problem in report.bad[:TOLD]:
        _say(f"{problem}: left out")
    if len(report.bad) > TOLD:
        more = len(report.bad) - TOLD
        _say(f"{more} more problems of records that are left out: 'kdbench records validate' lists all")


@functools.cache
def _say(line: str) -> None:
    """A line on standard error, once: a sweep looks again and again."""
    print(f"kdbench: {line}", file=sys.stderr, flush=True)


def _which(path: Path) -> int | None:
    """What tells a file from another of the same name."""
    return path.stat().st_ino if path.exists() else None


def _set_aside(index: Path, file: int | None, problem: StoreDamaged) -> None:
    """Moves a damaged index away, unless another process has done so."""
    with FileLock(index.with_name(f"{index.name}.lock")):
        if file is None or _which(index) != file:
            return
        aside = index.with_name(f"{index.name}.damaged-{uuid.uuid4().hex[:8]}")
        index.rename(aside)
        log = index.with_name(f"{index.name}.wal")
        if log.exists():
            log.rename(aside.with_name(f"{aside.name}.wal"))
        reason = str(problem).partition("; ")[0]
        _say(f"{reason}: damaged, set aside as {aside.name} and made again from the records")
