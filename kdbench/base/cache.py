"""Folders that are made once, whole, whoever asks first: trained teachers, kept artefacts, decoded data.

Needs no torch. A folder appears under its final name by one rename; a file lock, released by the system when its
holder dies, keeps two processes from making the same thing.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from kdbench.base.files import cannot_write


class Damaged(Exception):
    """A cached folder does not hold what it should; the message says how."""


def build_once(
    folder: Path,
    check: Callable[[Path], None],
    build: Callable[[Path], None],
    announce: Callable[[str], None],
) -> bool:
    """Make ``folder`` unless a sound one is there.

    Args:
        folder: the final place.
        check: raises :class:`Damaged` when the folder's content is not sound.
        build: fills an empty folder next to the final place. What an earlier, killed builder left there is kept, so
            that a build with checkpoints goes on where it was.
        announce: told in one line when a damaged folder is set aside.

    Returns:
        True if this call made it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f"{folder.name}.lock")
        with lock:
            if folder.is_dir():
                try:
                    check(folder)
                    return False
                except Damaged as problem:
                    aside = folder.parent / f"{folder.name}.damaged-{uuid.uuid4().hex[:8]}"
                    folder.rename(aside)
                    announce(f"{folder} is damaged ({problem}); set aside as {aside.name}, making it again")
            work = folder.parent / f"{folder.name}.making"
            work.mkdir(exist_ok=True)
            build(work)
            check(work)
            work.rename(folder)
            return True
    except OSError as error:
        raise cannot_write(folder, error) from error


def clear(folder: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
