"""The index of a home folder: brought up to date whenever it is used, made again when it is damaged."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from kdbench.home import Home
from kdbench.store import Store
from kdbench.store_file import StoreDamaged

_T = TypeVar("_T")
WAIT_S = 60.0
"""How long to wait for an index that another process holds."""


def use(home: Home, action: Callable[[Store], _T], wait_s: float = WAIT_S) -> _T:
    """What ``action`` gives on the index with all records taken in.

    A damaged index is set aside, which is said in a line, and made again from the records; so is, quietly, one of
    records that are no longer there. In a folder that can only be read the index is made in memory.

    Raises:
        StoreLocked: another process held it all the time.
        UserError: another program's database, one of another version, or no room for it.
    """
    if not os.access(home.root, os.W_OK):
        with Store.memory(home.records) as store:
            return action(store)
    file = _which(home.index)
    try:
        return _once(home, action, wait_s)
    except StoreDamaged as problem:
        _set_aside(home.index, file, problem)
        return _once(home, action, wait_s)


def _once(home: Home, action: Callable[[Store], _T], wait_s: float) -> _T:
    with Store(home.index, wait_s=wait_s) as store:
        if not store.ingest(home.records).gone:
            return action(store)
    Store.rebuild(home.index, home.records, wait_s=wait_s)
    with Store(home.index, wait_s=wait_s) as store:
        return action(store)


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
        print(f"kdbench: {reason}: damaged, set aside as {aside.name} and made again from the records", file=sys.stderr)
