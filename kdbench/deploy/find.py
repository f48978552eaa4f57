"""What a user means by a run. Needs no torch, so that a wrong word is answered at once."""

from __future__ import annotations

import os
from pathlib import Path

from kdbench.base.errors import UserError
from kdbench.base.home import Home
from kdbench.records import files as records
from kdbench.records.files import Record
from kdbench.records.folder import one_of

TENSORS = ".safetensors"


def source(run: str | os.PathLike[str], home: Home) -> Record | Path:
    """The record of a run, or a safetensors file that `kdbench export` wrote.

    Raises:
        UserError: as :func:`find`.
    """
    if not isinstance(run, str | os.PathLike):
        raise UserError(f"{run!r} is no run; give a run id, the beginning of one, or a file")
    path = Path(run).expanduser()
    return path if path.suffix == TENSORS and path.is_file() else find(run, home)


def find(run: str | os.PathLike[str], home: Home) -> Record:
    """A record by its file, or by its run id or enough of the beginning of it, among those of the home folder.

    Raises:
        UserError: there is none or are several, or the run left no network.
    """
    record = records.load(one_of(os.fspath(run), home.records))
    if record.status != "ok":
        why = f": {record.error.message}" if record.error is not None else ""
        raise UserError(f"{record.run_id[:12]} ended as {record.status}{why[:200]}; it left no network")
    return record


def again(record: Record) -> str:
    """The command that makes a run's student once more, under a run id of its own."""
    return f"{record.provenance.command} --force --overhead off"
