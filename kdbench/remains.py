"""The end of a run whose record is written: pointers to the record, and nothing else left behind. Needs no torch."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench import record as records
from kdbench.cache import clear
from kdbench.files import sha256, write_atomic
from kdbench.home import Home
from kdbench.record import Record

SCRATCH = "overhead-"
"""Folders below ``runs`` that live as long as the process that measures with them."""


def cell_key(spec_hash: str, device_class: str) -> str:
    """All seeds of one configuration on one device class."""
    return sha256(f"{spec_hash}/{device_class}")[:32]


def conclude(home: Home, key: str, record: Record) -> None:
    """Points from a run, and from its cell, to the run's record, and removes what the run no longer needs.

    Args:
        key: of the run; the folder of its checkpoints has this name.
    """
    ended = record.status in ("ok", "not_applicable")
    cell = cell_key(record.spec_hash, record.device_class)
    write_atomic(home.done / (key if ended else f"{key}.failed"), record.run_id)
    if record.status == "not_applicable":
        write_atomic(home.done / f"{cell}.not_applicable", record.run_id)
    if record.measured is not None and record.measured.measured_by == record.run_id:
        write_atomic(home.done / f"{cell}.{record.measured.mode}", record.run_id)
    clear(home.runs / key)


def tidy(home: Home) -> None:
    """Concludes the runs that were killed after their record was written; the index has them, so nobody returns."""
    for name in home.runs.glob("*/run.json"):
        key = name.parent.name
        try:
            with FileLock(home.runs / f"{key}.lock", timeout=0):
                run_id = json.loads(name.read_text())["run_id"]
                path = home.records / f"{run_id}.json"
                if path.is_file():
                    conclude(home, key, records.load(path))
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
