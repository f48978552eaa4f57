"""The end of a run whose record is written: nothing else is left behind. Needs no torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench.base.cache import clear
from kdbench.base.files import read_facts
from kdbench.base.home import Home

SCRATCH = "overhead-"
"""Folders below ``runs`` that live as long as the process that measures with them."""


def tidy(home: Home) -> None:
    """Removes what is left of runs that were killed after their record was written; nobody returns to them."""
    for name in home.runs.glob("*/run.json"):
        key = name.parent.name
        try:
            with FileLock(home.runs / f"{key}.lock", timeout=0):
                if (home.records / f"{read_facts(name, 'run_id')['run_id']}.json").is_file():
                    clear(name.parent)
        except (Timeout, FileNotFoundError, ValueError):
            continue  # under way, just concluded by its own process, or cut off: its next attempt sees to it


@contextmanager
def scratch(home: Home) -> Iterator[Path]:
    """A folder for one measurement; what killed ones left behind is removed with it."""
    home.runs.mkdir(exist_ok=True)
    clear_scratch(home)
    with ExitStack() as stack:
        with FileLock(_scratch_lock(home)):  # nobody clears the folder between its making and its lock
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=SCRATCH, dir=home.runs)))
            stack.enter_context(FileLock(folder / ".lock"))
        yield folder


def clear_scratch(home: Home) -> None:
    """Removes the scratch folders of processes that live no more."""
    with FileLock(_scratch_lock(home)):
        for folder in home.runs.glob(f"{SCRATCH}*/"):
            try:
                with FileLock(folder / ".lock", timeout=0):
                    clear(folder)
            except Timeout:
                continue  # a measurement under way


def _scratch_lock(home: Home) -> Path:
    return home.runs / "scratch.lock"
