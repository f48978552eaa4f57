"""The end of a run whose record is written: nothing else is left behind. Needs no torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kdbench.base.cache import clear
from kdbench.base.files import read_facts
from kdbench.base.home import Home

SCRATCH = "overhead-"
"""Folders below ``runs`` that live as long as the process that measures with them."""
KEYS = "[0-9a-f]" * 32
"""Runs' folders below ``runs``, beside those that others work in."""
FACTS = "run.json"
"""What a run's folder says of it; checkpoints beside it are that run's."""


def clear_run(folder: Path) -> None:
    """Removes a run's folder, its facts last: a process killed on the way leaves no checkpoints that are nobody's."""
    for path in folder.glob("*"):
        if path.is_dir():
            clear(path)
        elif path.name != FACTS:
            with suppress(OSError):  # as `clear` passes over what it may not remove: the record is written
                path.unlink()
    clear(folder)


def tidy(home: Home) -> None:
    """Removes what is left of runs that were killed after their record was written; nobody returns to them."""
    for folder in home.runs.glob(f"{KEYS}/"):
        try:
            with FileLock(home.runs / f"{folder.name}.lock", timeout=0):
                if _is_over(folder, home):
                    clear_run(folder)
        except (Timeout, ValueError):
            continue  # under way, or cut off: its next attempt sees to it


def _is_over(folder: Path, home: Home) -> bool:
    """Whether a run's record is written, or its facts are gone, which go last."""
    try:
        return (home.records / f"{read_facts(folder / FACTS, 'run_id')['run_id']}.json").is_file()
    except FileNotFoundError:
        return True


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
